"""What a request's body holds: numbers as JSON, numbers as float32 bytes, or pictures.

===============================  ==============================================================
Content-Type                     body
===============================  ==============================================================
``application/json``             ``{"data": [[0.0, ...], ...]}``, one list per input; ``{"data": [0.0, ...]}`` for one
                                 input; the lists alone; or ``{"images": ["<base64>", ...]}`` of PNG or JPEG files
``application/octet-stream``     float32, little-endian, one input after the other
``image/png``, ``image/jpeg``    one picture
anything else                    JSON or a picture, told by the first bytes
===============================  ==============================================================
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.errors import UsageError
from trainer.job import DataRecord

Array = NDArray[np.float32]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_JSON_TYPES = ("application/json", "text/json")
_RAW_TYPES = ("application/octet-stream", "application/x-float32")
_IMAGES_MAX = 1000
# A server decodes pictures of strangers: 16 MB of float32.
PIXELS_MAX = 4_000_000


class InputError(Exception):
    """A body that can't be used.

    Args:
        status: HTTP status of the answer.
        message: What is wrong, for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    data: list[list[float]] | None = None
    images: list[str] | None = None


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    data: list[float]


class _Any(msgspec.Struct, forbid_unknown_fields=True):
    data: Any = None
    images: list[str] | None = None


_ROWS = msgspec.json.Decoder(_Rows)
_ROW = msgspec.json.Decoder(_Row)
_ANY = msgspec.json.Decoder(_Any)
_LIST = msgspec.json.Decoder(list[list[float]])
_FLAT = msgspec.json.Decoder(list[float])
_NESTED = msgspec.json.Decoder(list[Any])


class Reader:
    """Reads bodies for a network of a known input.

    Args:
        shape: Of one input; empty where it isn't known. Then numbers come as JSON, nested as the network takes them.
        picture: Makes an input of a picture's bytes, or None where the network takes no pictures.
    """

    def __init__(self, shape: tuple[int, ...], picture: Callable[[bytes, str], Array] | None) -> None:
        self.shape = shape
        self.numbers = math.prod(shape) if shape else 0
        self.takes_pictures = picture is not None
        self._picture = picture

    def read(self, body: bytes, content_type: str) -> Array:
        """Return the inputs of a body.

        Args:
            body: What was sent.
            content_type: The header's value, without parameters and in lower case.

        Returns:
            float32 (B, *shape), contiguous and finite, B at least 1.

        Raises:
            InputError: The body can't be used.
        """
        if not body:
            raise InputError(400, f"The body is empty. {self.wanted}")
        if content_type in _RAW_TYPES:
            return self._finite(self._raw(body))
        if body.startswith((_PNG, _JPEG)) or content_type.startswith("image/"):
            return self._images([body])
        start = body[:64].lstrip()[:1]
        if content_type not in _JSON_TYPES and start not in (b"{", b"["):
            raise InputError(415, f"Can't tell what this body is. {self.wanted}")
        if self.shape:
            return self._rows(body, start)
        return self._finite(self._nested(body, start))

    @property
    def wanted(self) -> str:
        """One sentence about what a body may be."""
        shape = "x".join(map(str, self.shape))
        texts = [f'JSON {{"data": [[...]]}} with {self.numbers:,} numbers per input' if shape else 'JSON {"data": ...}']
        if shape:
            texts.append(f"float32 bytes as application/octet-stream, {4 * self.numbers:,} per input")
        if self.takes_pictures:
            texts.append("a PNG or JPEG picture")
        return f"Send {', or '.join(texts)}."

    def _rows(self, body: bytes, start: bytes) -> Array:
        try:
            found = self._decoded(body, start)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _not_json(error) from None
        if isinstance(found, _Rows):
            if (found.data is None) == (found.images is None):
                raise InputError(400, f'Give either "data" or "images". {self.wanted}')
            if found.images is not None:
                return self._images([_base64(number, text) for number, text in enumerate(found.images)])
            assert found.data is not None
            rows: list[list[float]] = found.data
        else:
            rows = found
        if not rows:
            raise InputError(400, f"There is no input in the body. {self.wanted}")
        if len(rows) == math.isqrt(self.numbers) and all(len(row) ** 2 == self.numbers for row in rows):
            rows = [[number for row in rows for number in row]]  # one square image
        for number, row in enumerate(rows):
            if len(row) != self.numbers:
                raise InputError(
                    400, f"Input {number} holds {len(row):,} numbers; the model takes {self.numbers:,} per input."
                )
        try:
            inputs = np.array(rows, np.float32)
        except (OverflowError, ValueError):
            raise InputError(400, "A number is too large for float32.") from None
        return self._finite(inputs.reshape(-1, *self.shape))

    def _decoded(self, body: bytes, start: bytes) -> _Rows | list[list[float]]:
        if start == b"[":
            try:
                return _LIST.decode(body)
            except msgspec.ValidationError as error:
                first = error
            try:
                return [_FLAT.decode(body)]
            except msgspec.ValidationError:
                return self._deeper(_NESTED.decode, body, first)
        try:
            return _ROWS.decode(body)
        except msgspec.ValidationError as error:
            first = error
        try:
            return [_ROW.decode(body).data]
        except msgspec.ValidationError:
            return self._deeper(lambda text: _ANY.decode(text).data, body, first)

    def _deeper(self, decode: Callable[[bytes], Any], body: bytes, first: msgspec.ValidationError) -> list[list[float]]:
        """Take inputs that are nested as the network's own shape is: 28 rows of 28 numbers, say."""
        try:
            value = decode(body)
        except msgspec.ValidationError:
            raise InputError(400, f"{first}. {self.wanted}") from None
        nested = _array(value)
        if nested is None or nested.ndim < 2 or nested.size % self.numbers:
            raise InputError(400, f"{first}. {self.wanted}")
        if nested.shape[1:] == self.shape or nested.shape == self.shape:
            rows: list[list[float]] = nested.reshape(-1, self.numbers).tolist()
            return rows
        side = math.isqrt(self.numbers)
        if side * side == self.numbers and nested.shape[-2:] == (side, side) and nested.ndim <= 3:
            square: list[list[float]] = nested.reshape(-1, self.numbers).tolist()
            return square
        shape = "x".join(map(str, nested.shape))
        raise InputError(400, f"The numbers have shape {shape}. {self.wanted}")

    def _nested(self, body: bytes, start: bytes) -> Array:
        try:
            value = _NESTED.decode(body) if start == b"[" else _ANY.decode(body).data
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise _not_json(error) from None
        found = _array(value)
        if found is None or found.size == 0:
            raise InputError(400, f"This is no array of numbers. {self.wanted}")
        return found

    def _raw(self, body: bytes) -> Array:
        if not self.shape:
            raise InputError(415, "The model's input shape is not known here; send JSON, or serve with --input-shape.")
        if len(body) % (4 * self.numbers):
            raise InputError(
                400, f"{len(body):,} bytes are no whole number of inputs of {4 * self.numbers:,} bytes (float32)."
            )
        return np.frombuffer(body, "<f4").astype(np.float32, copy=False).reshape(-1, *self.shape)

    def _images(self, files: Sequence[bytes]) -> Array:
        if self._picture is None:
            raise InputError(415, f"This model takes no pictures. {self.wanted}")
        if not files:
            raise InputError(400, "There is no picture in the body.")
        if len(files) > _IMAGES_MAX:
            raise InputError(413, f"There are {len(files):,} pictures; at most {_IMAGES_MAX:,} at once.")
        inputs = []
        for number, file in enumerate(files):
            try:
                inputs.append(self._picture(file, f"Picture {number}"))
            except UsageError as error:
                raise InputError(400, f"{error.message} {error.hint}") from error
        return np.stack(inputs).reshape(len(files), *self.shape)

    def _finite(self, inputs: Array) -> Array:
        # In float64 no sum of finite float32 numbers overflows, so it is finite exactly if they all are.
        with np.errstate(invalid="ignore"):
            if not math.isfinite(np.add.reduce(inputs, axis=None, dtype=np.float64)):
                raise InputError(400, "The numbers are not all finite in float32.")
        return inputs


def own_picture(record: DataRecord) -> Callable[[bytes, str], Array]:
    """Return what makes an input of a picture as ``trainer predict`` does for a model of the user's own pictures."""
    from trainer.data.own_pictures import read_picture  # at once, so that the first request doesn't pay for it

    def read(file: bytes, name: str) -> Array:
        try:
            pixels = read_picture(io.BytesIO(file), record, name=name, pixels_max=PIXELS_MAX)
        except UsageError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever they run into
            raise UsageError(f"{name} is a damaged image: {error}.", "Save it again.") from error
        return pixels.astype(np.float32) * np.float32(1 / 255)

    return read


def digit_picture(size: int) -> Callable[[bytes, str], Array]:
    """Return what makes an MNIST-like input of a picture, as ``trainer predict`` does.

    Args:
        size: Rows and columns of the model's images.
    """

    def read(file: bytes, name: str) -> Array:
        from trainer.modeluse.prediction import read_digit

        pixels = read_digit(io.BytesIO(file), size, name=name, pixels_max=PIXELS_MAX)
        return pixels.astype(np.float32) * np.float32(1 / 255)

    return read


def colour_picture(rows: int, columns: int) -> Callable[[bytes, str], Array]:
    """Return what scales a picture to float32 (3, rows, columns), red, green and blue from 0 to 1."""

    def read(file: bytes, name: str) -> Array:
        from trainer.modeluse.prediction import read_colours

        pixels = read_colours(io.BytesIO(file), (rows, columns), name=name, pixels_max=PIXELS_MAX)
        return np.moveaxis(pixels, 2, 0).astype(np.float32) * np.float32(1 / 255)

    return read


def _array(value: object) -> Array | None:
    """A rectangular array of numbers as float32, or None."""
    try:
        found = np.array(value)
        if found.dtype.kind not in "fiu" or found.ndim == 0:
            return None
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(found, np.float32)
    except (ValueError, OverflowError, RecursionError, TypeError):
        return None


def _base64(number: int, text: str) -> bytes:
    if text.startswith("data:"):  # a canvas's toDataURL()
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(400, f"Picture {number} is not base64.") from None


def _not_json(error: Exception) -> InputError:
    if isinstance(error, RecursionError):
        return InputError(400, "The JSON is nested too deeply.")
    return InputError(400, f"The body is not JSON: {str(error)[:200].removeprefix('JSON is malformed: ')}.")
