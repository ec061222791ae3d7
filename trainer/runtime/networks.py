"""A network of the user's own in place of the bundled script's: ``--network net.py:make``."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.faults import RuntimeFault

if TYPE_CHECKING:
    import chainer


def load_network(where: str) -> Callable[[tuple[int, ...], int], chainer.Chain]:
    """Return the function that makes a network.

    Args:
        where: ``FILE.py:NAME``. The function takes the shape of one example, channels first, such as (3, 32, 32), and
            the number of classes; it returns a ``chainer.Chain`` that gives scores of shape (B, classes).

    Raises:
        RuntimeFault: There is no such file or function.
    """
    path, _, name = where.rpartition(":")
    try:
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # pickling and dataclasses look it up there
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise RuntimeFault(f"There is no file {path!r}.", "Write it as --network FILE.py:NAME.") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise RuntimeFault(f"{path} has no function {name!r}.", "Write it as --network FILE.py:NAME.")
    found: Callable[[tuple[int, ...], int], chainer.Chain] = make
    return found


def as_inputs(examples: NDArray[Any], *, flat: bool) -> NDArray[Any]:
    """Return examples in the shape that a network takes.

    Args:
        examples: Of shape (N, ...), of a :class:`~trainer.runtime.datasets.Dataset`.
        flat: As rows of numbers, for fully connected layers. Otherwise pictures are given a channel, and one that comes
            last (1, 3 or 4 of them) is brought to the front, as Chainer's convolutions take it.

    Returns:
        Of shape (N, numbers), or (N, channels, rows, columns) for pictures; a view where that can be had.
    """
    if flat:
        return examples.reshape(len(examples), math.prod(examples.shape[1:]))
    if examples.ndim == 3:
        return examples[:, np.newaxis]
    if examples.ndim == 4 and examples.shape[3] in (1, 3, 4) and examples.shape[1] not in (1, 3, 4):
        return np.ascontiguousarray(examples.transpose(0, 3, 1, 2))
    return examples
