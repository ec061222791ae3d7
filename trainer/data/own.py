"""Data of the user's own, made into what travels: pictures in a folder per class, CSV tables, npz archives.

A job reads one format, four IDX files (:mod:`trainer.runtime.datasets`), with what else must be known in
``dataset.json``. Everything else is read here, on the machine that submits, where Pillow is, so that a node needs
nothing for it::

    DIR/CLASS/*.png                    pictures, one folder per class; split into training and test examples
    DIR/train/CLASS/*  DIR/test/...    pictures that are split already (val, valid and validation are test, too)
    FILE.csv                           numbers, and the class in the column label, class, target or y, else the last
    DIR/train.csv  DIR/test.csv        the same, split already
    FILE.npz                           x_train, y_train, x_test, y_test; or x, y

The split is the same every time: a fifth of each class is for testing. A table's columns are made to have mean 0 and
standard deviation 1 over the training rows; the means and deviations travel with the model.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.data.own_arrays import read_arrays
from trainer.data.own_examples import Arrays
from trainer.data.own_pictures import has_classes, read_pictures
from trainer.data.own_table import read_table
from trainer.errors import DamagedRecordError, UsageError
from trainer.job import DataRecord
from trainer.runtime.atomic import write_bytes
from trainer.runtime.datasets import idx
from trainer.runtime.datasets.files import ABOUT, FILES, find_file

_RECORD = msgspec.json.Decoder(DataRecord)
_WORDS = {"pictures": "pictures", "table": "a table", "arrays": "arrays", "idx": "IDX files"}


def is_own(path: Path) -> bool:
    """Whether a path is data that this module reads, and not four IDX files."""
    if path.is_file():
        return path.suffix.lower() in (".csv", ".npz")
    return path.is_dir() and find_file(path, FILES[0]) is None and ((path / "train.csv").is_file() or has_classes(path))


def read(path: Path, like: DataRecord | None = None) -> Arrays:
    """Read data of the user's own.

    Args:
        path: For which :func:`is_own` is true.
        like: What a model was trained on: classes, sizes and scales are taken from it.

    Raises:
        UsageError: It can't be read, is not consistent, or is not like ``like``.
    """
    pictures = path.is_dir() and not (path / "train.csv").is_file()
    table = not pictures and (path.is_dir() or path.suffix.lower() == ".csv")
    if like is not None and table != (like.kind == "table"):
        raise UsageError(
            f"{path} is {'a table' if table else 'no table'}, and the model was trained on {_WORDS[like.kind]}.",
            "Give data of that kind.",
        )
    found = read_pictures(path, like) if pictures else read_table(path, like) if table else read_arrays(path, like)
    unlearned = sorted(set(map(int, found.test_y)) - set(map(int, found.train_y)))
    if like is None and unlearned:
        raise UsageError(
            f"{path} has no training example of the class {found.record.classes[unlearned[0]]!r}, only test examples.",
            "Give it some, or leave the class out.",
        )
    return found


def make(path: Path, folder: Path) -> tuple[dict[str, Path], DataRecord]:
    """Write what travels of it, once for each state of the files.

    Args:
        path: For which :func:`is_own` is true.
        folder: Where such data sets are kept, each in a folder of its own.

    Returns:
        The files by name, and the record.

    Raises:
        UsageError: As :func:`read`.
    """
    made = folder / _state(path)
    files = {name: made / name for name in (*FILES, ABOUT)}
    try:
        record = recordfile.read(made / ABOUT, _RECORD)
        if all(file.is_file() for file in files.values()):
            return files, record
    except (OSError, DamagedRecordError):
        pass  # not made yet, or cut off on the way: the record is written last
    arrays = read(path)
    made.mkdir(parents=True, exist_ok=True)
    for name, values in zip(FILES, arrays[:4], strict=True):
        write_bytes(made / name, idx.encode(values))
    write_bytes(made / ABOUT, msgspec.json.encode(arrays.record))
    return files, arrays.record


def _state(path: Path) -> str:
    """Changes when a file's name, size or time does: as git's index and make decide."""
    digest = hashlib.sha256(b"trainer own data 2\0")
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for file in files:
        status = file.stat()
        line = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n"
        digest.update(os.fsencode(line))
    return digest.hexdigest()[:32]
