"""Pictures of the user's own: a folder per class, brought to one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainer.data.own_examples import TEST_NAMES, Arrays, check_classes, split
from trainer.errors import UsageError
from trainer.job import DataRecord

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
_PIXELS_MAX = 64_000_000
# How many bits of 16 are in use: cameras and scanners deliver fewer, too.
_BITS = (8, 10, 12, 14, 16)
# Pictures of one size up to this are taken as they are; others are made squares of the other side.
_LARGEST_SIDE, _SIDE = 96, 32


def read_pictures(folder: Path, like: DataRecord | None) -> Arrays:
    """Read a folder of pictures; arguments and errors as :func:`trainer.data.own.read`."""
    parts = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    test = next((parts[name] for name in TEST_NAMES if name in parts and has_classes(parts[name])), None)
    if "train" in parts and test is not None:
        found = (_classes_of(parts["train"]), _classes_of(test))
    elif "train" in parts and has_classes(parts["train"]):
        raise UsageError(
            f"{folder} has a folder {parts['train'].name}, and none of {', '.join(TEST_NAMES)} with classes in it.",
            f"Give {parts['train']} itself, which is then split.",
        )
    else:
        found = (_classes_of(folder), {})
    classes = like.classes if like else tuple(sorted(set(found[0]) | set(found[1])))
    check_classes(classes, str(folder))
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
    (train_x, train_y), (test_x, test_y) = arrays if every[1] else split(*arrays[0], str(folder), classes)
    record = like or DataRecord(
        kind="pictures", shape=train_x.shape[1:], classes=classes, source=str(folder.resolve()), bits=bits
    )
    return Arrays(train_x, train_y, test_x, test_y, record)


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


def has_classes(folder: Path) -> bool:
    """Return whether a folder holds folders of pictures, directly or under train and test."""
    try:
        children = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
        below = [
            inner for child in children if child.name.lower() in ("train", *TEST_NAMES) for inner in child.iterdir()
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
