"""What every kind of the user's own data is read into, and how it is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.job import DataRecord

CLASSES_MAX = 256
# What test examples are called that lie beside those for training.
TEST_NAMES = ("test", "val", "valid", "validation")


class Arrays(NamedTuple):
    """Examples and what is known of them.

    Attributes:
        train_x: uint8 or float32, of shape (N, ...).
        train_y: uint8 (N,).
        test_x: Of the same kind, (M, ...).
        test_y: uint8 (M,).
        record: What travels with the model.
    """

    train_x: NDArray[Any]
    train_y: NDArray[np.uint8]
    test_x: NDArray[Any]
    test_y: NDArray[np.uint8]
    record: DataRecord


def check_classes(classes: Sequence[str], what: str) -> None:
    """Check the number of classes.

    Args:
        classes: Their names.
        what: Whose they are, for messages.

    Raises:
        UsageError: It is less than two, or more than a byte can tell apart.
    """
    if not 2 <= len(classes) <= CLASSES_MAX:
        number = f"one class, {classes[0]!r}" if len(classes) == 1 else f"{len(classes):,} classes"
        raise UsageError(f"{what} has {number}.", f"There must be 2 to {CLASSES_MAX}.")


_Part = tuple[NDArray[Any], NDArray[np.uint8]]


def split(x: NDArray[Any], y: NDArray[np.uint8], what: str, classes: Sequence[str]) -> tuple[_Part, _Part]:
    """Split examples: a fifth of each class, at least one example, is for testing; always the same.

    Args:
        x: The examples, of shape (N, ...).
        y: Their classes' numbers, of shape (N,).
        what: Whose they are, for messages.
        classes: The classes' names.

    Returns:
        Examples and classes for training, and those for testing.

    Raises:
        UsageError: A class has one example.
    """
    order = np.random.RandomState(0).permutation(len(y))
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        own = order[y[order] == label]
        if len(own) < 2:
            raise UsageError(
                f"{what} has one example of the class {classes[label]!r}.",
                "Each class needs two: one is for testing.",
            )
        test[own[: max(1, len(own) // 5)]] = True
    return (x[~test], y[~test]), (x[test], y[test])
