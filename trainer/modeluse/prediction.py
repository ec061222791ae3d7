"""Classify pictures of digits, each first made into the image that MNIST would have made of it.

MNIST's digits are white on black. "The original black and white (bilevel) images from NIST were size normalized to
fit in a 20x20 pixel box while preserving their aspect ratio. The resulting images contain grey levels as a result of
the anti-aliasing technique used by the normalization algorithm. The images were centered in a 28x28 image by
computing the center of mass of the pixels, and translating the image so as to position this point at the center of
the 28x28 field." (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/.) A picture is treated alike:

1. Turned as its EXIF orientation says, laid on white if it is transparent (on black, if nothing shows on white),
   and made grey. Of 16 bits per pixel, as many are used as the largest value needs: 8, 10, 12, 14 or 16.
2. A picture of the model's own size with a black frame is used as it is, unless it is faint: then its strongest ink is
   made 255.
3. The frame's median is the paper. Ink is what differs from it, in the direction that differs more: dark ink on light
   paper is inverted.
4. Cut out where ink is stronger than a quarter of the strongest, scaled so that its longer side is 20 pixels and its
   strongest ink is 255, and placed with its centre of mass at (14, 14), counted from 0, as in MNIST's own images.

What was assumed of a picture that is faint or has fewer bits than its format is said with the prediction.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.errors import NotFoundError, UsageError
from trainer.modeluse.network import probabilities
from trainer.modeluse.source import LoadedModel

if TYPE_CHECKING:
    from trainer.job import DataRecord

FORMATS = ("PNG", "JPEG")
PIXELS_MAX = 64_000_000
_BOX = 20 / 28  # of the image's side
_INK = 0.25
_CONTRAST_MIN = 16  # of 255; less is the noise of a blank page
_FAINT = 64  # of 255; MNIST's digits reach 250 and more
_BITS = (8, 10, 12, 14, 16)  # what cameras and scanners deliver in 16


class Prediction(msgspec.Struct, frozen=True, kw_only=True, rename={"label": "class"}):
    """What a model takes an image for.

    Attributes:
        path: The image.
        label: The most probable class; ``class`` in JSON.
        name: What that class is called.
        probability: Its probability.
        probabilities: Of every class, summing to 1.
        notes: What was assumed of an image that is unusual, one sentence for each.
    """

    path: str
    label: int
    name: str
    probability: float
    probabilities: tuple[float, ...]
    notes: tuple[str, ...] = ()


def predict(model: LoadedModel, images: Sequence[Path]) -> list[Prediction]:
    """Classify examples: by what the model was trained on, images of single digits, pictures, rows or arrays.

    Images of digits are prepared as this module says. Every file is read before the first example is classified, so
    an unusable one is known before any result.

    Args:
        model: The model.
        images: PNG or JPEG files; CSV files for a model of a table; npy files for one of arrays of another shape.

    Returns:
        One prediction per image, row or array, in their order.

    Raises:
        NotFoundError: A file is missing.
        UsageError: A file is not readable as such, or shows nothing; or the model takes no images.
    """
    reader = _reader(model, model.version.data if model.version else None)
    if not images:
        return []
    names: list[str] = []
    notes: list[list[str]] = []
    parts: list[NDArray[Any]] = []
    for path in images:
        if not path.is_file():
            raise NotFoundError(f"There is no file {path}.", "Check the path.")
        assumed: list[str] = []
        part = reader(path, assumed)
        names += [str(path)] if len(part) == 1 else [f"{path}:{number}" for number in range(1, len(part) + 1)]
        notes += [assumed] * len(part)
        parts.append(part)
    found = probabilities(model.network.scores_of(np.concatenate(parts)))
    return [
        Prediction(
            path=path,
            label=int(row.argmax()),
            name=model.classes[int(row.argmax())],
            probability=float(row.max()),
            probabilities=tuple(float(part) for part in row),
            notes=tuple(assumed),
        )
        for path, row, assumed in zip(names, found, notes, strict=True)
    ]


def takes_images(record: DataRecord | None) -> bool:
    """Whether a model that was trained on such data is asked with pictures."""
    return record is None or record.kind == "pictures" or (record.kind == "idx" and len(record.shape) == 2)


def _reader(model: LoadedModel, record: DataRecord | None) -> Callable[[Path, list[str]], NDArray[Any]]:
    """What makes examples, of shape (N, ...), of a file, and takes notes of what it assumed."""
    if record is not None and record.kind in ("pictures", "table"):
        from trainer.data.own_pictures import read_picture
        from trainer.data.own_table import read_rows

        if record.kind == "table":
            return lambda path, _: read_rows(path, record)
        return lambda path, _: read_picture(path, record)[np.newaxis]
    if record is not None and not takes_images(record):
        return lambda path, _: _arrays(path, record)
    size = model.network.image_size
    return lambda path, notes: read_digit(path, size, notes)[np.newaxis]


def _arrays(path: Path, record: DataRecord) -> NDArray[Any]:
    """The examples in an npy file: one, or some."""
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.", "Give another file.") from error
    except (ValueError, EOFError) as error:  # numpy would have us trust it: what has no npy header may be a pickle
        raise UsageError(
            f"{path} is not an npy file.", f"Save an array of shape {record.shape}, or (N, ...): numpy.save"
        ) from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise UsageError(f"{path} holds several arrays.", "Save the one that is meant: numpy.save")
    if values.dtype.kind not in "uif":
        raise UsageError(f"{path} holds no array of numbers.", "Save it with numpy.save.")
    if values.shape == record.shape:
        values = values[np.newaxis]
    if values.shape[1:] != record.shape or not len(values):
        raise UsageError(f"{path} has the shape {values.shape}, and the model takes {record.shape}.", "Give those.")
    return values if values.dtype == np.uint8 else np.asarray(values, np.float32)


def read_digit(
    source: Path | IO[bytes],
    size: int = 28,
    notes: list[str] | None = None,
    *,
    name: str = "",
    pixels_max: int = PIXELS_MAX,
) -> NDArray[np.uint8]:
    """Read a picture of one digit.

    Args:
        source: A PNG or JPEG file of any size.
        size: Rows and columns to make of it.
        notes: Takes what was assumed of an unusual picture, one sentence for each.
        name: What to call it in messages; needed where ``source`` is no path.
        pixels_max: Most pixels that it may have.

    Returns:
        uint8 (size, size); 255 is ink.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is not a readable PNG or JPEG image, is too large, or shows nothing.
    """
    assumed: list[str] = [] if notes is None else notes
    name = name or str(source)
    grey = _read(source, name, pixels_max, lambda image: _grey(image, assumed))
    if not np.ptp(grey):
        raise _blank(name)
    if grey.shape == (size, size) and np.median(_frame(grey)) <= _CONTRAST_MIN:
        strongest = float(grey.max())
        if strongest < _CONTRAST_MIN:
            raise _too_faint(name, strongest)
        if strongest >= _FAINT:
            return grey.astype(np.uint8)
        assumed.append(_faint(strongest))
        return np.asarray(grey * np.float32(255 / strongest), np.uint8)
    return _centred(_cut(_ink(grey, name, assumed)), size)


def read_colours(
    source: Path | IO[bytes], size: tuple[int, int], *, name: str = "", pixels_max: int = PIXELS_MAX
) -> NDArray[np.uint8]:
    """Read a picture and scale it.

    Args:
        source: A PNG or JPEG file of any size.
        size: Rows and columns to make of it.
        name: What to call it in messages; needed where ``source`` is no path.
        pixels_max: Most pixels that it may have.

    Returns:
        uint8 (rows, columns, 3): red, green and blue. What is transparent becomes white.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It is not a readable PNG or JPEG image, or is too large.
    """
    rows, columns = size

    def convert(image: Image.Image) -> NDArray[np.uint8]:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(ground, picture).convert("RGB")
        return np.asarray(flat.resize((columns, rows), Image.Resampling.LANCZOS))

    return _read(source, name or str(source), pixels_max, convert)


_Pixels = TypeVar("_Pixels", NDArray[np.float32], NDArray[np.uint8])


def _read(source: Path | IO[bytes], name: str, pixels_max: int, convert: Callable[[Image.Image], _Pixels]) -> _Pixels:
    """Decode a picture, within bounds, and turn it as its EXIF orientation says."""
    if isinstance(source, Path) and not source.is_file():
        raise NotFoundError(f"There is no file {name}.", "Check the path.")
    try:
        with warnings.catch_warnings():
            # Its own limit is higher than ours, and only warns.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > pixels_max:
                    raise _too_large(name, pixels_max)
                image.load()
                return convert(ImageOps.exif_transpose(image))
    except UsageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, pixels_max) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is not a PNG or JPEG image.", "Convert it to one.") from error
    except PermissionError as error:
        raise UsageError(f"{name} can't be read: {error.strerror}.", "Check its permissions.") from error
    except Exception as error:  # Pillow's decoders raise whatever they run into
        raise UsageError(f"{name} is a damaged image: {error}.", "Save it again.") from error


def _grey(image: Image.Image, notes: list[str]) -> NDArray[np.float32]:
    """Grey levels, float32 (rows, columns), 0 to 255."""
    if image.mode in ("I", "I;16", "I;16B", "F"):  # 16 bits per pixel
        return _levels(np.asarray(image, dtype=np.float32), notes)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.asarray(image.convert("L"), dtype=np.float32)
    picture = image.convert("RGBA")
    for paper in ("white", "black"):
        ground = Image.new("RGBA", picture.size, paper)
        grey = np.asarray(Image.alpha_composite(ground, picture).convert("L"), dtype=np.float32)
        if np.ptp(grey):
            return grey
    return grey


def _levels(values: NDArray[np.float32], notes: list[str]) -> NDArray[np.float32]:
    """Scale values of 16 bits per pixel to 0 to 255, by the number of bits that are in use."""
    largest = float(values.max())
    bits = next((bits for bits in _BITS if largest < 1 << bits), _BITS[-1])
    if bits < _BITS[-1]:
        notes.append(
            f"It has 16 bits per pixel, and no value above {largest:,.0f}: it was read as an image of {bits} bits."
        )
    return np.asarray(values * np.float32(255 / ((1 << bits) - 1)))


def _frame(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The outermost pixels."""
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _ink(grey: NDArray[np.float32], name: str, notes: list[str]) -> NDArray[np.float32]:
    """How much ink there is, 0 to 1 at the strongest, whatever the colours of ink and paper."""
    paper = float(np.median(_frame(grey)))
    difference = grey - paper if grey.max() - paper >= paper - grey.min() else paper - grey
    ink = np.clip(difference, 0, None)
    strongest = float(ink.max())
    if strongest < _CONTRAST_MIN:
        raise _too_faint(name, strongest)
    if strongest < _FAINT:
        notes.append(_faint(strongest))
    return np.asarray(ink / np.float32(strongest))


def _cut(ink: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = (np.flatnonzero((ink > _INK).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(ink: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    box = round(size * _BOX)
    scale = box / max(ink.shape)
    rows, columns = (max(1, round(side * scale)) for side in ink.shape)
    picture = Image.fromarray(np.asarray(ink * 255, dtype=np.uint8))
    small = np.asarray(picture.resize((columns, rows), Image.Resampling.LANCZOS), dtype=np.float32)
    # A thin pen's line fades when it is scaled down; MNIST's lines are white.
    small = small * np.float32(255 / small.max())
    total = small.sum()
    mass = (small.sum(axis=1) @ np.arange(rows) / total, small.sum(axis=0) @ np.arange(columns) / total)
    # Kept inside the image, should the mass lie far to one side.
    top, left = (
        int(np.clip(round(size / 2 - float(centre)), 0, size - side))
        for centre, side in zip(mass, (rows, columns), strict=True)
    )
    field = np.zeros((size, size), np.uint8)
    field[top : top + rows, left : left + columns] = small
    return field


def _blank(name: str) -> UsageError:
    return UsageError(f"{name} shows nothing: it is of one colour.", "Give a picture of one digit.")


def _faint(strongest: float) -> str:
    return f"It is faint: its strongest mark differs from the paper by {strongest:.0f} of 255. It was made stronger."


def _too_faint(name: str, strongest: float) -> UsageError:
    return UsageError(
        f"{name} is too faint: its strongest mark differs from the paper by {strongest:.0f} of 255.",
        f"Raise its contrast; {_CONTRAST_MIN} is the least.",
    )


def _too_large(name: str, pixels_max: int) -> UsageError:
    return UsageError(f"{name} has more than {pixels_max:,} pixels.", "Scale it down first.")
