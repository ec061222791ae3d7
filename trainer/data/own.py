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

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainer import recordfile
from trainer.errors import DamagedRecordError, UsageError
from trainer.job import DataRecord
from trainer.modelfile import read_npz
from trainer.runtime.atomic import write_bytes
from trainer.runtime.datasets import idx
from trainer.runtime.datasets.files import ABOUT, FILES, find_file

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
_RECORD = msgspec.json.Decoder(DataRecord)
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
_PIXELS_MAX = 64_000_000
_CLASSES_MAX = 256
# How many bits of 16 are in use: cameras and scanners deliver fewer, too.
_BITS = (8, 10, 12, 14, 16)
_WORDS = {"pictures": "pictures", "table": "a table", "arrays": "arrays", "idx": "IDX files"}
# Pictures of one size up to this are taken as they are; others are made squares of the other side.
_LARGEST_SIDE, _SIDE = 96, 32
_TEST_NAMES = ("test", "val", "valid", "validation")
_LABEL_NAMES = ("label", "class", "target", "y")
_NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "y_train", "X_test", "y_test"),
)
_NPZ_WHOLE = (("x", "y"), ("X", "y"), ("images", "labels"), ("data", "target"), ("data", "labels"))


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


def is_own(path: Path) -> bool:
    """Whether a path is data that this module reads, and not four IDX files."""
    if path.is_file():
        return path.suffix.lower() in (".csv", ".npz")
    return (
        path.is_dir() and find_file(path, FILES[0]) is None and ((path / "train.csv").is_file() or _has_classes(path))
    )


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
    found = _pictures(path, like) if pictures else _table(path, like) if table else _archive(path, like)
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


def read_picture(
    path: Path | IO[bytes], record: DataRecord, *, name: str = "", pixels_max: int = _PIXELS_MAX
) -> NDArray[np.uint8]:
    """Read a picture as those of the training set were read.

    Args:
        path: The file.
        record: Of the data that the model was trained on.
        name: What to call it in messages; needed where ``path`` is no path.
        pixels_max: Most pixels that it may have.

    Returns:
        uint8, of the record's shape.

    Raises:
        UsageError: It is no picture.
    """
    shape = record.shape
    colour = len(shape) == 3
    return _picture(path, shape[-2:], "RGB" if colour else "L", name or str(path), pixels_max, record.bits)


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


def _pictures(folder: Path, like: DataRecord | None) -> Arrays:
    parts = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    test = next((parts[name] for name in _TEST_NAMES if name in parts and _has_classes(parts[name])), None)
    if "train" in parts and test is not None:
        found = (_classes_of(parts["train"]), _classes_of(test))
    elif "train" in parts and _has_classes(parts["train"]):
        raise UsageError(
            f"{folder} has a folder {parts['train'].name}, and none of {', '.join(_TEST_NAMES)} with classes in it.",
            f"Give {parts['train']} itself, which is then split.",
        )
    else:
        found = (_classes_of(folder), {})
    classes = like.classes if like else tuple(sorted(set(found[0]) | set(found[1])))
    _check_classes(classes, str(folder))
    empty = next((name for part in found for name, paths in part.items() if not paths), None)
    if empty is not None:
        raise UsageError(
            f"{folder} has a folder {empty!r} with no picture in it.",
            f"Remove it, or put pictures of the class there: {', '.join(f'*{suffix}' for suffix in PICTURES)}",
        )
    unknown = [name for part in found for name in part if name not in classes]
    if unknown:
        raise UsageError(f"{folder} has the class {unknown[0]!r}, which the model doesn't know.", "Leave it out.")
    every = [[(path, classes.index(name)) for name in sorted(part) for path in part[name]] for part in found]
    if like:
        size, mode, bits = like.shape[-2:], "RGB" if len(like.shape) == 3 else "L", like.bits
    else:
        size, mode, bits = _common(path for part in every for path, _ in part)
    arrays = [
        (
            np.stack([_picture(path, size, mode, bits=bits) for path, _ in part]) if part else np.empty((0,), np.uint8),
            np.array([label for _, label in part], np.uint8),
        )
        for part in every
    ]
    (train_x, train_y), (test_x, test_y) = arrays if every[1] else _split(*arrays[0], str(folder), classes)
    record = like or DataRecord(
        kind="pictures", shape=train_x.shape[1:], classes=classes, source=str(folder.resolve()), bits=bits
    )
    return Arrays(train_x, train_y, test_x, test_y, record)


def _classes_of(folder: Path) -> dict[str, list[Path]]:
    """The pictures by class. Hidden files are left out: macOS and notebooks leave some that end in ``.png``."""
    return {
        child.name: sorted(path for path in child.rglob("*") if _is_picture(path, child) and path.is_file())
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith((".", "__MACOSX"))
    }


def _is_picture(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in PICTURES and not hidden


def _has_classes(folder: Path) -> bool:
    """Whether a folder holds folders of pictures, directly or under train and test."""
    try:
        children = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
        below = [
            inner for child in children if child.name.lower() in ("train", *_TEST_NAMES) for inner in child.iterdir()
        ]
        return any(
            _is_picture(path, child)
            for child in (*children, *(inner for inner in below if inner.is_dir()))
            for path in child.iterdir()
        )
    except OSError:
        return False


def _common(paths: Iterator[Path]) -> tuple[tuple[int, int], str, int]:
    """The size, as rows and columns, and the mode that pictures are brought to; and of 16 bits, those in use."""
    sizes: set[tuple[int, int]] = set()
    grey, largest = True, 0
    for path in paths:
        with _opened(path) as image:
            sizes.add((image.height, image.width))
            grey = grey and image.mode in ("1", "L", "LA", "I;16", "I;16B", "I")
            if _is_deep(image):
                largest = max(largest, int(_decoded(image, str(path)).max()))
    size = next(iter(sizes)) if len(sizes) == 1 and max(next(iter(sizes))) <= _LARGEST_SIDE else (_SIDE, _SIDE)
    bits = next((bits for bits in _BITS if 0 < largest < 1 << bits), _BITS[-1])
    return size, "L" if grey else "RGB", bits


def _is_deep(image: Image.Image) -> bool:
    """Whether it has 16 bits per pixel, which Pillow would cut off at 255."""
    return image.mode in ("I;16", "I;16B", "I")


def _decoded(image: Image.Image, name: str) -> NDArray[np.float32]:
    """The pixels of a grey picture of 16 bits."""
    try:
        return np.asarray(image, np.float32)
    except (OSError, ValueError, SyntaxError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> UsageError:
    return UsageError(f"{name} is a damaged image: {error}.", "Save it again, or leave it out.")


def _picture(
    path: Path | IO[bytes],
    size: Sequence[int],
    mode: str,
    name: str = "",
    pixels_max: int = _PIXELS_MAX,
    bits: int = _BITS[-1],
) -> NDArray[np.uint8]:
    name = name or str(path)
    with _opened(path, name, pixels_max) as image:
        try:
            turned = ImageOps.exif_transpose(image)
            if _is_deep(turned):
                levels = np.asarray(turned, np.float32) * np.float32(255 / ((1 << bits) - 1))
                turned = Image.fromarray(np.asarray(levels.clip(0, 255), np.uint8))
            if "A" in turned.getbands() or "transparency" in turned.info:
                picture = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = turned.convert(mode)
        except (OSError, ValueError, SyntaxError) as error:
            raise _damaged(name, error) from error
        if (picture.height, picture.width) != tuple(size):
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        values = np.asarray(picture, np.uint8)
    # Channels first, as Chainer's convolutions take them.
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if values.ndim == 3 else values


def _opened(path: Path | IO[bytes], name: str = "", pixels_max: int = _PIXELS_MAX) -> Image.Image:
    name = name or str(path)
    try:
        image = Image.open(path, formats=_FORMATS)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {name}.", "Check the path.") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"{name} is not an image that can be read.", "Save it again, or leave it out.") from error
    if image.width * image.height > pixels_max:
        raise UsageError(f"{name} has more than {pixels_max:,} pixels.", "Scale it down first.")
    return image


def _table(path: Path, like: DataRecord | None) -> Arrays:
    if path.is_dir():
        test = next((path / f"{name}.csv" for name in _TEST_NAMES if (path / f"{name}.csv").is_file()), None)
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
    _check_classes(classes, f"{path}, column {label!r},")
    labels = [_numbered(part, classes, file) for part, file in zip(texts, files, strict=True)]
    split = (
        list(zip(values, labels, strict=True))
        if len(files) == 2
        else _split(values[0], labels[0], f"{path}, column {label!r},", classes)
    )
    (train_x, train_y), (test_x, test_y) = split
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


def _archive(path: Path, like: DataRecord | None) -> Arrays:
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
    _check_classes(classes, str(path))
    (train_x, train_y), (test_x, test_y) = (
        zip(x, y, strict=True) if len(x) == 2 else _split(x[0], y[0], str(path), classes)
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
    if flat.dtype.kind not in "ui" or not flat.size or flat.min() < 0 or flat.max() >= _CLASSES_MAX:
        raise UsageError(
            f"{path} holds labels that are not whole numbers from 0 to {_CLASSES_MAX - 1}.", "Number them."
        )
    return flat.astype(np.uint8)


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Numbers in their order, else names in theirs."""
    return tuple(sorted(names, key=float) if all(map(_is_number, names)) else sorted(names))


def _numbered(texts: list[str], classes: tuple[str, ...], path: Path) -> NDArray[np.uint8]:
    known = {name: number for number, name in enumerate(classes)}
    unknown = next((text for text in texts if text not in known), None)
    if unknown is not None:
        raise UsageError(f"{path} has the class {unknown[:40]!r}, which the model doesn't know.", "Leave it out.")
    return np.array([known[text] for text in texts], np.uint8)


def _check_classes(classes: Sequence[str], what: str) -> None:
    if not 2 <= len(classes) <= _CLASSES_MAX:
        number = f"one class, {classes[0]!r}" if len(classes) == 1 else f"{len(classes):,} classes"
        raise UsageError(f"{what} has {number}.", f"There must be 2 to {_CLASSES_MAX}.")


_Part = tuple[NDArray[Any], NDArray[np.uint8]]


def _split(x: NDArray[Any], y: NDArray[np.uint8], what: str, classes: Sequence[str]) -> tuple[_Part, _Part]:
    """A fifth of each class, at least one example, for testing; always the same."""
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


def _state(path: Path) -> str:
    """Changes when a file's name, size or time does: as git's index and make decide."""
    digest = hashlib.sha256(b"trainer own data 2\0")
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for file in files:
        status = file.stat()
        line = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n"
        digest.update(os.fsencode(line))
    return digest.hexdigest()[:32]
