"""Arrays of the user's own, in an npz archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.own_examples import CLASSES_MAX, Arrays, check_classes, split
from trainer.errors import UsageError
from trainer.job import DataRecord
from trainer.modelfile import read_npz

_NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "y_train", "X_test", "y_test"),
)
_NPZ_WHOLE = (("x", "y"), ("X", "y"), ("images", "labels"), ("data", "target"), ("data", "labels"))


def read_arrays(path: Path, like: DataRecord | None) -> Arrays:
    """Read an npz archive; arguments and errors as :func:`trainer.data.own.read`."""
    found = read_npz(path)
    names = next((names for names in _NPZ_NAMES if all(name in found for name in names)), None)
    whole = next((names for names in _NPZ_WHOLE if all(name in found for name in names)), None)
    if names is None and whole is None:
        raise UsageError(
            f"{path} holds {', '.join(map(repr, list(found)[:6]))}.",
            "Name its arrays x_train, y_train, x_test, y_test; or x, y.",
        )
    chosen = [found[name] for name in names or whole or ()]
    x, y = [_examples(path, part) for part in chosen[::2]], [_labels(path, part) for part in chosen[1::2]]
    for examples, labels in zip(x, y, strict=True):
        if len(examples) != len(labels) or not len(labels):
            raise UsageError(f"{path} has {len(examples):,} examples and {len(labels):,} labels.", "Correct it.")
    if any((part.shape[1:], part.dtype) != (x[0].shape[1:], x[0].dtype) for part in x):
        raise UsageError(f"{path}: training and test examples have another shape or type.", "Make them alike.")
    classes = like.classes if like else tuple(map(str, range(max(int(part.max()) for part in y) + 1)))
    check_classes(classes, str(path))
    (train_x, train_y), (test_x, test_y) = (
        zip(x, y, strict=True) if len(x) == 2 else split(x[0], y[0], str(path), classes)
    )
    record = like or DataRecord(kind="arrays", shape=train_x.shape[1:], classes=classes, source=str(path.resolve()))
    return Arrays(train_x, train_y, test_x, test_y, record)


def _examples(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim < 2 or values.dtype.kind not in "uif" or not values.size:
        raise UsageError(
            f"{path} holds examples of {values.dtype} and shape {values.shape}.", "Make them (N, ...) numbers."
        )
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise UsageError(f"{path} holds examples that are not finite.", "Leave them out.")
    return values


def _labels(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.ndim > 1 and values.size != len(values):
        raise UsageError(
            f"{path} holds labels of shape {values.shape}.", "Give one number per example: y.argmax(axis=1)"
        )
    flat = values.reshape(-1)
    if flat.dtype.kind == "f" and np.isfinite(flat).all() and (flat == np.round(flat)).all():
        flat = flat.astype(np.int64)
    if flat.dtype.kind not in "ui" or not flat.size or flat.min() < 0 or flat.max() >= CLASSES_MAX:
        raise UsageError(f"{path} holds labels that are not whole numbers from 0 to {CLASSES_MAX - 1}.", "Number them.")
    return flat.astype(np.uint8)
