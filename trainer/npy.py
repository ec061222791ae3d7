"""The header of an npy member: what array it says it is, judged before its data is read.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import IO

_HEADER_MAX = 10_000  # NumPy's own max_header_size
_DIMENSIONS_MAX = 32  # what NumPy 1.x takes; 2.x takes 64
# {'descr': '<f4', 'fortran_order': False, 'shape': (100, 784), } is a Python literal, but three fields of known
# form need no evaluator. The L is how Python 2 wrote a long. Whitespace is matched possessively (*+), so that a header
# of nothing else fails at once.
_SHAPE = r"\(\s*+(?:\d{1,18}L?\s*+(?:,\s*+\d{1,18}L?\s*+)*,?\s*+)?\)"
_FIELD = rf"\s*+'(\w{{1,20}})'\s*+:\s*+('[^'\\]{{1,20}}'|True|False|{_SHAPE})\s*+"
_HEADER = re.compile(rf"\{{{_FIELD},{_FIELD},{_FIELD},?\s*+\}}\s*+", re.ASCII)
# bool, integers, floats, complex, byte strings and text: Chainer stores its logs as text, random states as integers.
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9})", re.ASCII)


class UnsafeError(Exception):
    """Why a file is refused, as the end of a sentence that names the file."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array as its header describes it.

    Attributes:
        dtype: NumPy's type string, such as ``<f4``.
        shape: Its shape.
        fortran_order: Whether the first index varies fastest in the file.
        nbytes: Size of its data in bytes.
        offset: Bytes of header before the data.
    """

    dtype: str
    shape: tuple[int, ...]
    fortran_order: bool
    nbytes: int
    offset: int


def read_header(stream: IO[bytes], name: str, size: int) -> ArrayInfo:
    """Read a member's npy header, leaving the stream at the data.

    Args:
        stream: The member, at its beginning.
        name: The array's name, for messages.
        size: The member's unpacked size in bytes, as the zip declares it.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise UnsafeError(f"its member {name[:60]!r} is not an array")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _HEADER_MAX:
        raise UnsafeError(f"the header of {name[:60]!r} is too long")
    text = stream.read(length).decode("utf-8" if start[6] == 3 else "latin-1", "replace")
    match = _HEADER.fullmatch(text)
    fields = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    descr, order, shape_text = (fields.get(key, "") for key in ("descr", "fortran_order", "shape"))
    dtype = descr.strip("'")
    if dtype.lstrip("<>|=").startswith("O"):
        raise UnsafeError(f"its array {name[:60]!r} holds Python objects, which are pickles and can run code")
    if order not in ("True", "False") or not shape_text.startswith("(") or not _DTYPE.fullmatch(dtype):
        raise UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text")
    shape = tuple(int(number) for number in re.findall(r"\d+", shape_text))
    item = _item_size(dtype)
    # Empty arrays too: their other dimensions must still be ones that NumPy can multiply.
    if len(shape) > _DIMENSIONS_MAX or math.prod(max(n, 1) for n in shape) * max(item, 1) > 1 << 48:
        raise UnsafeError(f"the shape of {name[:60]!r} is absurd")
    info = ArrayInfo(dtype, shape, order == "True", math.prod(shape) * item, 8 + width + length)
    if info.offset + info.nbytes != size:
        raise UnsafeError(f"the header of {name[:60]!r} promises {info.nbytes:,} bytes and its member has another size")
    return info


def _item_size(dtype: str) -> int:
    kind, count = re.fullmatch(r"[<>|=]?(\w)(\d+)", dtype).groups()  # type: ignore[union-attr]  # _DTYPE has matched
    return int(count) * (4 if kind == "U" else 1)
