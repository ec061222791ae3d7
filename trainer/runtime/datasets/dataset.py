"""Find a data set at run time and check that its four files belong together."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime import layout
from trainer.runtime.datasets import decoded
from trainer.runtime.datasets.files import ABOUT, FILES, NAMES, find_file, find_files
from trainer.runtime.faults import RuntimeFault

_ABOUT_MAX = 4 << 20


@dataclass(frozen=True)
class Dataset:
    """Images and their labels. The arrays are C-contiguous and read-only; the larger ones are mapped files.

    Attributes:
        name: ``mnist``, ``mnist-5k``, or the name of the directory.
        train_images: uint8 (N, rows, columns), 0 to 255, as MNIST's; or of any shape (N, ...), uint8 or float32.
        train_labels: uint8 (N,), 0 to ``class_count - 1``.
        test_images: uint8 (M, rows, columns), or likewise.
        test_labels: uint8 (M,).
        class_count: How many classes the labels may name.
        classes: Their names.
    """

    name: str
    train_images: NDArray[Any]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[Any]
    test_labels: NDArray[np.uint8]
    class_count: int
    classes: tuple[str, ...] = ()


def load(where: str | Path = "auto", *, class_count: int | None = None) -> Dataset:
    """Find a data set and read it.

    ``auto`` is what travelled with this job, else what ``trainer data`` gives on this machine.
    Another name must be that of the data set that travelled, where one did. Anything else is a
    directory with the four files, or, on the user's machine, whatever ``trainer run --dataset`` takes.

    Args:
        where: ``auto``, a name, a directory or a file.
        class_count: Labels must be smaller than this; by default 10 for a data set that has a name, else as many as
            the labels show.

    Raises:
        RuntimeFault: There is no such data set, or a file of it is malformed.
    """
    directory, name = _locate(where)
    return read_directory(
        directory, name=name, class_count=10 if class_count is None and name in NAMES else class_count
    )


def read_directory(
    directory: Path, *, name: str | None = None, class_count: int | None = None, decoded_dir: Path | None = None
) -> Dataset:
    """Read and check the four files in a directory.

    Args:
        directory: Where they lie.
        name: What to call the data set; the directory's name if None.
        class_count: Labels must be smaller than this; by default one more than the largest of training.
        decoded_dir: Folder of decompressed copies; that of the environment if None, and none without one.

    Raises:
        RuntimeFault: A file is missing or malformed, or two don't belong together; the message names it.
    """
    if decoded_dir is None and os.environ.get(layout.DECODED_DIR_VARIABLE):
        decoded_dir = Path(os.environ[layout.DECODED_DIR_VARIABLE])
    paths = find_files(directory)
    classes = _class_names(directory)
    class_count = class_count or len(classes) or None
    train = _read_pair(paths[FILES[0]], paths[FILES[1]], class_count, decoded_dir)
    # A class that only test images have can't be learned: it is an error.
    count = class_count or int(train[1].max()) + 1
    test = _read_pair(paths[FILES[2]], paths[FILES[3]], count, decoded_dir)
    if (train[0].shape[1:], train[0].dtype) != (test[0].shape[1:], test[0].dtype):
        raise RuntimeFault(
            f"{paths[FILES[2]]} has images of {_size(test[0])}, and {paths[FILES[0]]} of {_size(train[0])}.",
            "Training and test images must have the same size.",
        )
    if len(classes) != count:
        classes = tuple(map(str, range(count)))
    return Dataset(name or directory.resolve().name, *train, *test, count, classes)


def _class_names(directory: Path) -> tuple[str, ...]:
    """The names in ``dataset.json``; none without the file.

    Raises:
        RuntimeFault: The file is not what the client writes.
    """
    path = directory / ABOUT
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_ABOUT_MAX))["classes"]
        if isinstance(found, list) and len(found) <= 256 and all(isinstance(name, str) for name in found):
            return tuple(found)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, LookupError):
        pass
    raise RuntimeFault(f"{path} is not the record of a data set.", "Submit the run again.")


def _read_pair(
    images_path: Path, labels_path: Path, class_count: int | None, decoded_dir: Path | None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    images = decoded.read(images_path, None, decoded_dir)
    labels = decoded.read(labels_path, 1, decoded_dir)
    if len(images) != len(labels):
        raise RuntimeFault(
            f"{labels_path} has {len(labels):,} labels, and {images_path} has {len(images):,} images.",
            "Each image needs one label: these files don't belong together.",
        )
    if class_count is not None and int(labels.max()) >= class_count:
        first = int(np.argmax(labels >= class_count))
        raise RuntimeFault(
            f"{labels_path} has the label {labels[first]} at position {first}, and there are {class_count} classes.",
            f"Labels run from 0 to {class_count - 1}.",
        )
    return images, labels


def _size(images: NDArray[Any]) -> str:
    kind = "" if images.dtype == np.uint8 else f" {images.dtype}"
    return "x".join(map(str, images.shape[1:])) + kind


def _locate(where: str | Path) -> tuple[Path, str]:
    travelled = layout.travelled_dataset()
    if travelled is not None and str(where) in ("auto", travelled.name):
        return travelled, travelled.name
    named = isinstance(where, str) and where in NAMES
    directory = Path(where).expanduser()
    if not named and directory.is_dir() and (travelled is not None or find_file(directory, FILES[0]) is not None):
        return directory, directory.resolve().name
    if travelled is None:
        return _resolve(str(where))
    # A directory of the submitting machine stands for what travelled from it.
    if not named and directory.name == travelled.name:
        return travelled, travelled.name
    raise RuntimeFault(
        f"The script asks for the data set {str(where)!r}, and this job carries {travelled.name!r}.",
        f"Submit it with --dataset {where}, or let the script take --dataset auto.",
    )


def _resolve(where: str) -> tuple[Path, str]:
    # The client's side of the package, if this is the user's machine. It is looked up and not imported
    # at the top because this module travels to nodes, where it is absent.
    try:
        client = importlib.util.find_spec("trainer.data")
    except ModuleNotFoundError:  # the script's own module named trainer has taken the package's place
        client = None
    if client is None:
        raise RuntimeFault(
            f"No data set travelled with this job, and {where!r} is no directory here.",
            "Submit with --dataset auto, or give the script a directory of IDX files.",
        )
    resolve: Callable[[str], tuple[Path, str]] = importlib.import_module("trainer.data").resolve_for_script
    return resolve(where)
