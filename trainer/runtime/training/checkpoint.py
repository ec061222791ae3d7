"""A trainer's whole state after every epoch, and resuming from it.

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

import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer
from chainer.training import Extension, Trainer
from numpy.typing import NDArray

from trainer.runtime import npz
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.layout import CHECKPOINT_FILE

_ABOUT = "about_this_checkpoint"
_FORMAT = 1


class Checkpoint(Extension):  # type: ignore[misc]
    """Writes ``checkpoint.npz`` into the trainer's output folder after every epoch, atomically.

    Args:
        identity: what the run is, as name to value (text, numbers, lists); a run with another
            identity cannot resume from the file. The shapes of the parameters are added.
    """

    trigger = (1, "epoch")
    # After every other extension, whose state is part of the file.
    priority = -100

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._identity = identity

    def __call__(self, trainer: Trainer) -> None:
        """Writes the file; raises RuntimeFault where that fails."""
        serializer = DictionarySerializer()
        serializer.save(trainer)
        arrays = {key: np.asarray(value) for key, value in serializer.target.items()}
        missing = [key for key, array in arrays.items() if array.dtype.hasobject and array[()] is None]
        about = {
            "format": _FORMAT,
            "identity": _identity(self._identity, trainer),
            "none": missing,
        }
        kept = {key: array for key, array in arrays.items() if key not in missing}
        kept[_ABOUT] = np.asarray(json.dumps(about))
        npz.write(Path(trainer.out) / CHECKPOINT_FILE, kept, compress=False)


def resume(path: Path, trainer: Trainer, identity: Mapping[str, Any]) -> None:
    """Puts ``trainer`` into the state that the checkpoint at ``path`` recorded.

    Args:
        path: written by :class:`Checkpoint`.
        trainer: built as the one that wrote it: same extensions, same network.
        identity: as given to :class:`Checkpoint`.

    Raises:
        RuntimeFault: the file is no sound checkpoint, or belongs to another run; ``trainer`` is
            then as it was, unless the file was made to mislead.
    """
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
    _require_same(path, theirs, _identity(identity, trainer))
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


def checksum(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """A short name for the content of a training set: CRC-32 of its labels and every hundredth image, as text.

    It tells sets apart that were mixed up, not sets that were made to look alike.
    """
    return f"{zlib.crc32(images[::100].tobytes(), zlib.crc32(labels.tobytes())):08x}"


def _identity(given: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    optimizer = trainer.updater.get_optimizer("main")
    shapes = {f"shape of {name}": list(p.shape) for name, p in optimizer.target.namedparams()}
    own = {**given, "optimizer": type(optimizer).__name__, **shapes}
    # As JSON gives it back: tuples become lists.
    return dict(json.loads(json.dumps(own)))


def _require_same(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in [*ours, *sorted(theirs)]:
        if theirs.get(name) != ours.get(name):
            raise RuntimeFault(
                f"{path} has {name}: {theirs.get(name)}, and this run has {ours.get(name)}",
                "resume with the options of the run that wrote it, or start without --resume",
            )
