"""A network of the user's own, run by Chainer with the arrays of a model file."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import NotFoundError, RunFailedError, UsageError
from trainer.home import find_home
from trainer.runfolder import RunFolder
from trainer.runtime.faults import RuntimeFault
from trainer.snapshot import Snapshot

if TYPE_CHECKING:
    from trainer.artifacts import ModelVersion

_MNIST_SHAPE, _MNIST_CLASSES = (28, 28), 10


@dataclass(frozen=True)
class OwnNetwork:
    """A ``chainer.Chain`` that scores examples.

    Attributes:
        chain: It has its weights.
        shape: Of one example, channels first.
        classes: How many classes it tells apart.
    """

    chain: Any
    shape: tuple[int, ...]
    classes: int

    @property
    def inputs(self) -> int:
        """How many numbers one example has."""
        return math.prod(self.shape)

    @property
    def image_size(self) -> int:
        """Rows, and columns, of the square images that it takes.

        Raises:
            UsageError: It takes none.
        """
        if len(self.shape) != 3 or self.shape[0] != 1 or self.shape[1] != self.shape[2]:
            raise UsageError(f"The model takes examples of shape {self.shape}, not square images.", "Give it those.")
        return self.shape[1]

    def scores_of(self, examples: NDArray[Any]) -> NDArray[np.float32]:
        """Scores before the softmax, of shape (B, classes), of examples as a data set has them."""
        import chainer

        from trainer.modeluse.network import scaled
        from trainer.runtime.networks import as_inputs

        with chainer.using_config("train", False), chainer.no_backprop_mode():
            found = self.chain(scaled(as_inputs(examples, flat=False))).array
        return np.asarray(found, np.float32)


def load_own(
    network: str, version: ModelVersion | None, arrays: Mapping[str, NDArray[Any]], *, given: bool = False
) -> OwnNetwork:
    """Make the network that a model is of, and give it its weights.

    Runs Python code: the user's own file, as it travelled with the run on this machine, or as it was given.

    Args:
        network: ``FILE.py:NAME``.
        version: What is recorded of the model.
        arrays: Of its file.
        given: The file is the user's, and not that of the run's snapshot.

    Raises:
        NotFoundError: The run, and so the file, is not here.
        UsageError: The file doesn't make such a network.
        RunFailedError: The weights are not finite.
    """
    path, _, name = network.rpartition(":")
    if not given:
        path = str(_travelled(version, path))
    from trainer.runtime import compat

    compat.apply()  # before Chainer
    import chainer

    from trainer.runtime.networks import as_inputs, load_network

    record = version.data if version else None
    shape = as_inputs(np.empty((1, *(record.shape if record else _MNIST_SHAPE)), np.uint8), flat=False).shape[1:]
    classes = len(record.classes) if record else _MNIST_CLASSES
    if any(not np.isfinite(values).all() for values in arrays.values() if values.dtype.kind == "f"):
        raise RunFailedError("The model holds weights that are not finite: its training diverged.", "Train again.")
    try:
        with _no_bytecode():
            chain = load_network(f"{path}:{name}")(shape, classes)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            chain(np.zeros((1, *shape), np.float32))  # links that take their size from the first batch
        chainer.serializers.NpzDeserializer(arrays).load(chain)
    except RuntimeFault as fault:
        raise UsageError(fault.message, fault.hint) from fault
    except Exception as error:  # the user's code may raise anything
        raise UsageError(
            f"{network} doesn't make the network of this model: {type(error).__name__}: {error}",
            "Give the one that it was trained with: --network FILE.py:NAME",
        ) from error
    return OwnNetwork(chain, shape, classes)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no ``__pycache__`` for what is imported in the block: in a snapshot it would be a change."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def travelled_network(version: ModelVersion) -> str:
    """Return ``FILE.py:NAME`` of a model's recorded network, the file as it travelled with the run on this machine.

    Raises:
        NotFoundError: The run, and so the file, is not here.
    """
    path, _, name = str(version.network).rpartition(":")
    return f"{_travelled(version, path)}:{name}"


def _travelled(version: ModelVersion | None, name: str) -> Path:
    """The file in the snapshot of the run that made the model, if that is on this machine and unchanged."""
    if version is not None:
        folder = RunFolder(find_home().runs / version.run_id)
        if (folder.snapshot / name).is_file() and Snapshot.load(folder.snapshot).digest == version.snapshot:
            return folder.snapshot / name
    raise NotFoundError(
        f"The model is of a network of its own in {name}, and the run that it travelled with is not here.",
        "Give the file: --network FILE.py:NAME",
    )
