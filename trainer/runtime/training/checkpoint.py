"""A trainer's whole state after every epoch, resuming from it, and the trained model.

A checkpoint is Chainer's trainer snapshot (parameters, optimizer, iterator, triggers, log) with two
differences: it holds no pickles (Chainer stores ``None`` as one), and it says what it belongs to, so
that resuming something else is refused and not half done.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chainer
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer
from chainer.training import Extension, Trainer
from numpy.typing import NDArray

from trainer.runtime import npz, ranks
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import CHECKPOINT_FILE
from trainer.runtime.training.iterator import arrays_of

_ABOUT = "about_this_checkpoint"
_FORMAT = 1
_SHAPE = "shape of "


class Checkpoint(Extension):  # type: ignore[misc]
    """Writes ``checkpoint.npz`` into the trainer's output folder after every epoch, atomically; rank 0 does it for all.

    Only a run with the same identity resumes from it: training set, batch size, optimizer, the shapes of all
    parameters, and what ``identity`` adds.

    Args:
        identity: Further facts that make the run what it is, as name to value (text, numbers, lists).
    """

    trigger = (1, "epoch")
    # After every other extension, whose state is part of the file.
    priority = -100

    def __init__(self, identity: Mapping[str, Any] | None = None) -> None:
        self._given = dict(identity or {})
        self._training_set: dict[str, Any] | None = None

    def identity(self, trainer: Trainer) -> dict[str, Any]:
        """What the run of ``trainer`` is, as JSON gives it back."""
        if self._training_set is None:
            self._training_set = _training_set(trainer)
        return dict(json.loads(json.dumps({**self._training_set, **self._given, **_model(trainer)})))

    def __call__(self, trainer: Trainer) -> None:
        """Write the file.

        Raises:
            RuntimeFault: That fails.
        """
        if ranks.rank() != 0:
            return
        serializer = DictionarySerializer()
        serializer.save(trainer)
        arrays = {key: np.asarray(value) for key, value in serializer.target.items()}
        missing = [key for key, array in arrays.items() if array.dtype.hasobject and array[()] is None]
        about = {
            "format": _FORMAT,
            "identity": self.identity(trainer),
            "none": missing,
        }
        kept = {key: _narrow(array) for key, array in arrays.items() if key not in missing}
        kept[_ABOUT] = np.asarray(json.dumps(about))
        npz.write(Path(trainer.out) / CHECKPOINT_FILE, kept, compress=False)


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers in half the bytes, where they fit: the order of the examples is a third of the file.

    Loading copies them into an array of the type that it was.
    """
    if array.dtype == np.int64 and array.ndim == 1 and array.size and -(2**31) <= array.min() <= array.max() < 2**31:
        return array.astype(np.int32)
    return array


def save_npz(path: str | Path, link: chainer.Link) -> None:
    """Write a link's parameters as ``chainer.serializers.save_npz`` does, but whole or not at all.

    The same parameters give the same bytes.

    Args:
        path: The file; its folder must exist.
        link: What is saved; ``chainer.serializers.load_npz`` loads it.

    Raises:
        RuntimeFault: The file can't be written.
    """
    serializer = DictionarySerializer()
    serializer.save(link)
    npz.write(Path(path), serializer.target)


def resume(path: str | Path, trainer: Trainer) -> None:
    """Put ``trainer`` into the state that the checkpoint at ``path`` recorded.

    Args:
        path: Written by :class:`Checkpoint`.
        trainer: Built as the one that wrote it: same extensions, a :class:`Checkpoint` among them, same network.

    Raises:
        RuntimeFault: The file is no sound checkpoint, or belongs to another run; ``trainer`` is
            then as it was, unless the file was made to mislead.
    """
    path = Path(path)
    arrays = npz.read(path)
    try:
        about = json.loads(str(arrays.pop(_ABOUT)[()]))
        if about["format"] != _FORMAT:
            raise RuntimeFault(
                f"{path} has checkpoint format {about['format']}, not {_FORMAT}",
                "resume it with the version of this program that wrote it",
            )
        theirs = dict(about["identity"])
        none = [str(key) for key in about["none"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RuntimeFault(
            f"{path} is no checkpoint of this program", f"resume from the {CHECKPOINT_FILE} in a run's outputs"
        ) from error
    _require_same(path, theirs, trainer.get_extension("Checkpoint").identity(trainer))
    for key in none:
        arrays[key] = np.asarray(None)
    try:
        NpzDeserializer(arrays).load(trainer)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RuntimeFault(
            f"{path} does not fit this training run: {error}", "resume from the file that the same script wrote"
        ) from error

    epochs, unit = trainer.stop_trigger.get_training_length()
    if unit == "epoch" and trainer.updater.epoch > epochs:
        raise RuntimeFault(
            f"{path} is {trainer.updater.epoch} epochs into training, and this run has {epochs} in all",
            f"ask for {trainer.updater.epoch} epochs or more",
        )


def _training_set(trainer: Trainer) -> dict[str, Any]:
    iterator = trainer.updater.get_iterator("main")
    facts = {"training examples": len(iterator.dataset), "batch size": iterator.batch_size}
    try:
        arrays = arrays_of(iterator.dataset)
    except TypeError:  # examples may be made anew at every access, and never be the same twice
        return facts
    return {"checksum of the training set": _checksum(arrays), **facts}


def _checksum(arrays: tuple[NDArray[Any], ...]) -> str:
    """CRC-32 as text, of arrays with one dimension (labels) and every hundredth example of the others.

    It tells sets apart that were mixed up, not sets that were made to look alike.
    """
    checksum = 0
    for array in arrays:
        part = array if array.ndim == 1 else array[::100]
        checksum = zlib.crc32(part.tobytes(), checksum)
    return f"{checksum:08x}"


def _model(trainer: Trainer) -> dict[str, Any]:
    optimizer = trainer.updater.get_optimizer("main")
    shapes = {f"{_SHAPE}{name}": p.shape if p.is_initialized else None for name, p in optimizer.target.namedparams()}
    return {"optimizer": type(optimizer).__name__, **shapes}


def _require_same(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in [*ours, *sorted(theirs)]:
        # A parameter without a shape takes the one in the file.
        if theirs.get(name) != ours.get(name) and not (name.startswith(_SHAPE) and name in ours and ours[name] is None):
            raise RuntimeFault(
                f"{path} has {name}: {theirs.get(name)}, and this run has {ours.get(name)}",
                "resume with the options of the run that wrote it, or start without --resume",
            )
