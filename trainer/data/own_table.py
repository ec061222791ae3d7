"""Tables of the user's own: CSV files of numbers, with the class in a column."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.own_examples import TEST_NAMES, Arrays, check_classes, split
from trainer.errors import UsageError
from trainer.job import DataRecord

_LABEL_NAMES = ("label", "class", "target", "y")


def read_table(path: Path, like: DataRecord | None) -> Arrays:
    """Read a CSV file, or a folder of two; arguments and errors as :func:`trainer.data.own.read`."""
    if path.is_dir():
        test = next((path / f"{name}.csv" for name in TEST_NAMES if (path / f"{name}.csv").is_file()), None)
        if test is None:
            raise UsageError(f"{path} has a train.csv and no test.csv.", "Give the file itself, which is then split.")
        files = [path / "train.csv", test]
    else:
        files = [path]
    names, _ = _csv(files[0])
    column = next((names.index(name) for name in names if name.strip().lower() in _LABEL_NAMES), len(names) - 1)
    columns = like.columns if like else tuple(name for number, name in enumerate(names) if number != column)
    if not columns:
        other = next((sign for sign in (";", "\t") if sign in names[0]), None)
        raise UsageError(
            f"{files[0]} has one column.",
            f"Its columns are separated by {other!r}: save it with commas."
            if other
            else "A table has columns of numbers, and one of the class.",
        )
    label, texts, values = names[column], [], []
    for file in files:
        own, rows = _csv(file)
        if label not in own or any(name not in own for name in columns):
            raise UsageError(f"{file} has other columns than {files[0]}.", f"It needs: {', '.join((*columns, label))}")
        order = [own.index(name) for name in columns]
        values.append(_numbers(file, [[row[number] for number in order] for row in rows], columns))
        texts.append([row[own.index(label)].strip() for row in rows])
    classes = like.classes if like else _ordered({text for part in texts for text in part})
    check_classes(classes, f"{path}, column {label!r},")
    labels = [_numbered(part, classes, file) for part, file in zip(texts, files, strict=True)]
    parts = (
        list(zip(values, labels, strict=True))
        if len(files) == 2
        else split(values[0], labels[0], f"{path}, column {label!r},", classes)
    )
    (train_x, train_y), (test_x, test_y) = parts
    if like is None:
        scale = train_x.std(axis=0)
        like = DataRecord(
            kind="table",
            shape=(len(columns),),
            classes=classes,
            source=str(path.resolve()),
            columns=columns,
            mean=tuple(map(float, train_x.mean(axis=0))),
            scale=tuple(float(value) or 1.0 for value in scale),
        )
    return Arrays(_scaled(train_x, like), train_y, _scaled(test_x, like), test_y, like)


def read_rows(path: Path, record: DataRecord) -> NDArray[np.float32]:
    """Read the rows of a CSV file, with or without the column of the class.

    Raises:
        UsageError: It has other columns than the training set.
    """
    names, rows = _csv(path)
    missing = [name for name in record.columns if name not in names]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]!r}.", f"The model was trained on: {', '.join(record.columns)}"
        )
    order = [names.index(name) for name in record.columns]
    values = _numbers(path, [[row[column] for column in order] for row in rows], record.columns)
    return _scaled(values, record)


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """A header and rows of as many texts."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} can't be read as CSV: {error}.", "Save it as UTF-8 text.") from error
    if len(rows) < 2:
        raise UsageError(f"{path} has no rows.", "Its first line names the columns; each further one is an example.")
    if all(map(_is_number, rows[0])):
        raise UsageError(f"{path} has numbers in its first line.", "Write the columns' names there.")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UsageError(
                f"{path}, line {number}, has {len(row)} columns, and the first {len(rows[0])}.", "Correct it."
            )
    return [name.strip() for name in rows[0]], rows[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, rows: list[list[str]], columns: Sequence[str]) -> NDArray[np.float64]:
    try:
        values = np.array(rows, np.float64)
    except ValueError:
        values = np.full((1, 1), np.nan)
    if not np.isfinite(values).all():
        for number, row in enumerate(rows, 2):
            for name, text in zip(columns, row, strict=True):
                if not _is_number(text) or not np.isfinite(float(text)):
                    raise UsageError(
                        f"{path}, line {number}: {name} is {text[:40]!r}, not a number.",
                        "Fill it in, or leave the line out."
                        if text.strip() in ("", "nan")
                        else "Write a number, or leave the line or the column out.",
                    )
    return values


def _scaled(values: NDArray[np.float64], record: DataRecord) -> NDArray[np.float32]:
    return np.asarray((values - np.array(record.mean)) / np.array(record.scale), np.float32)


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Numbers in their order, else names in theirs."""
    return tuple(sorted(names, key=float) if all(map(_is_number, names)) else sorted(names))


def _numbered(texts: list[str], classes: tuple[str, ...], path: Path) -> NDArray[np.uint8]:
    known = {name: number for number, name in enumerate(classes)}
    unknown = next((text for text in texts if text not in known), None)
    if unknown is not None:
        raise UsageError(f"{path} has the class {unknown[:40]!r}, which the model doesn't know.", "Leave it out.")
    return np.array([known[text] for text in texts], np.uint8)
