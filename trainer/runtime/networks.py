"""A network of the user's own in place of the bundled script's: ``--network net.py:make``."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    Returns:
        That function, which also tries what it has made on two examples of zeros, on a copy.

    Raises:
        RuntimeFault: There is no such file or function. The returned function raises it where the user's fails,
            or makes something else than such a network.
    """
    path, _, name = where.rpartition(":")
    if not Path(path).is_file():
        raise RuntimeFault(f"There is no file {path!r}.", "Write it as --network FILE.py:NAME.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise RuntimeFault(f"{path!r} is not a Python file.", "Write it as --network FILE.py:NAME.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickling and dataclasses look it up there
    with _own_errors(path, f"{path} can't be imported"):
        spec.loader.exec_module(module)
    make = getattr(module, name, None)
    if not callable(make):
        raise RuntimeFault(f"{path} has no function {name!r}.", "Write it as --network FILE.py:NAME.")

    def checked(shape: tuple[int, ...], classes: int) -> chainer.Chain:
        if not _takes_two(make):
            raise RuntimeFault(
                f"{where} can't be called with the shape of an example and the number of classes.",
                f"Define it as {name}(shape, classes).",
            )
        with _own_errors(path, f"{where} fails for examples of shape {shape} and {classes} classes"):
            network = make(shape, classes)
        _try_on_zeros(network, where, shape, classes)
        return network

    return checked


def _takes_two(make: Callable[..., object]) -> bool:
    try:
        inspect.signature(make).bind((), 0)
    except TypeError:
        return False
    except ValueError:  # of something that is not written in Python
        return True
    return True


def _try_on_zeros(network: object, where: str, shape: tuple[int, ...], classes: int) -> None:
    import chainer

    path = where.rpartition(":")[0]
    if not isinstance(network, chainer.Link):
        raise RuntimeFault(f"{where} returned {_described(network)}, not a chainer.Chain.", "Return the network.")
    # On a copy, and with the generator put back: a training is the same bytes with and without this.
    drawn = np.random.get_state()
    try:
        with (
            _own_errors(path, f"The network of {where} fails on two examples of shape {shape}"),
            chainer.using_config("train", False),
            chainer.no_backprop_mode(),
        ):
            scores: Any = copy.deepcopy(network)(np.zeros((2, *shape), np.float32))
    finally:
        np.random.set_state(drawn)
    if getattr(scores, "shape", None) != (2, classes):
        found = f"shape {scores.shape}" if hasattr(scores, "shape") else _described(scores)
        raise RuntimeFault(
            f"The network of {where} gives {found} for two examples; it must give scores of shape (2, {classes}), "
            "one per class.",
            "Its function gets the number of classes as its second argument.",
        )


@contextmanager
def _own_errors(path: str, what: str) -> Iterator[None]:
    """Turn whatever the user's own code raises into one line that says where."""
    try:
        yield
    except RuntimeFault:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = str(Path(path).resolve())
        line = next((frame.lineno for frame in reversed(frames) if str(Path(frame.filename).resolve()) == own), None)
        if line is None and isinstance(error, SyntaxError):
            line = error.lineno
        place = f" (line {line})" if line else ""
        text = " ".join(str(error).split())
        raise RuntimeFault(f"{what}{place}: {type(error).__name__}: {text}", f"Correct {path}.") from error


def _described(value: object) -> str:
    return "nothing" if value is None else f"an object of the type {type(value).__name__}"


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
