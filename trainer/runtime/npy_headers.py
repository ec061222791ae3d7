"""The headers of npy members, read without trusting them.

NumPy has a parser, and NumPy takes a twentieth of a second to import. So a header that is, word for word, one of those
that NumPy writes for numbers is read here, and any other is left to NumPy: other spacing, text, what Python 2 wrote.

Pickles are refused, and never executed. One is known without that: None, which Chainer writes for a parameter that was
never initialised. A member whose pickle is that of ``numpy.array(None)``, instruction by instruction, counts as absent.
"""

from __future__ import annotations

import functools
import io
import math
import re
import warnings
from dataclasses import dataclass

HEADER_MAX = 10_000  # NumPy's own max_header_size
_DIMENSIONS_MAX = 32  # what NumPy 1 takes; NumPy 2 takes 64
_FIRST_FORMAT = b"\x93NUMPY\x01\x00"
# Word for word as numpy.lib.format writes it, with room for the first axis to grow.
_PLAIN_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-z][0-9]{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:N,|N(?:, N)+)?)\), \} *\n".replace(b"N", rb"(?:0|[1-9][0-9]{0,14})")
)
_PLAIN_TYPES = {"|b1", "|i1", "|u1"} | {
    order + kind for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}
_NONE_HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
# bool, integers, floats, complex, byte strings and text: Chainer stores its logs as text, random states as integers.
_KINDS = "biufcSU"


@dataclass(frozen=True)
class ArrayInfo:
    """One array as its header describes it.

    Attributes:
        typestr: Its element type as NumPy's array interface has it, such as ``<f4``.
        itemsize: Size of an element in bytes.
        shape: Its shape.
        fortran_order: Whether the first index varies fastest in the file.
    """

    typestr: str
    itemsize: int
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Size of its data in bytes."""
        return math.prod(self.shape) * self.itemsize


class UnsafeError(Exception):
    """Why a file is refused, as the end of a sentence that names the file."""


def is_pickled_none(member: bytes) -> bool:
    """Whether a whole npy member is what NumPy writes for ``numpy.array(None)``."""
    start = len(_FIRST_FORMAT) + 2
    end = start + int.from_bytes(member[start - 2 : start], "little")
    if member[: start - 2] != _FIRST_FORMAT or member[start:end].rstrip() != _NONE_HEADER:
        return False
    return _instructions(member[end:]) in _pickles_of_none()


@functools.cache
def _pickles_of_none() -> tuple[object, ...]:
    import pickle

    import numpy as np

    value = np.array(None)
    return tuple(_instructions(pickle.dumps(value, protocol=protocol)) for protocol in (2, 3, 4, 5))


def _instructions(data: bytes) -> object:
    """Return the instructions of a pickle, without executing any; None if it is none or has something behind it."""
    import pickletools

    found = []
    try:
        for code, argument, position in pickletools.genops(data):
            if code.name != "FRAME":  # its argument is the length, which differs with the module's name
                # NumPy 2 renamed the module; files that NumPy 1 wrote have the old name.
                if isinstance(argument, str):
                    argument = argument.replace("numpy.core.", "numpy._core.")
                found.append((code.name, argument))
            if code.name == "STOP" and (position or 0) + 1 != len(data):
                return None
    except Exception:  # a damaged pickle raises anything
        return None
    return found


def parse_header(head: bytes, name: str, size: int) -> tuple[ArrayInfo, int]:
    """Parse a member's npy header.

    Args:
        head: The member's first bytes.
        name: The array's name, for messages.
        size: The member's unpacked size in bytes, as the zip declares it.

    Returns:
        What the array is, and how many bytes of header there are before its data.
    """
    info, offset = _plain_header(head) or _odd_header(head, name)
    # Empty arrays too: their other dimensions must still be ones that NumPy can multiply.
    shape = info.shape
    if len(shape) > _DIMENSIONS_MAX or math.prod(max(n, 1) for n in shape) * max(info.itemsize, 1) > 1 << 48:
        raise UnsafeError(f"the shape of {name[:60]!r} is absurd")
    if offset + info.nbytes != size:
        than = "more" if offset + info.nbytes > size else "less"
        raise UnsafeError(f"the header of {name[:60]!r} promises {info.nbytes:,} bytes, {than} data than it has")
    return info, offset


def _plain_header(head: bytes) -> tuple[ArrayInfo, int] | None:
    """Parse a header that NumPy has written for numbers; None for any other, which may be fine all the same."""
    start = len(_FIRST_FORMAT) + 2
    end = start + int.from_bytes(head[start - 2 : start], "little")
    if head[: start - 2] != _FIRST_FORMAT or end - start > HEADER_MAX:
        return None
    found = _PLAIN_HEADER.fullmatch(head[start:end])
    if found is None or (typestr := found[1].decode()) not in _PLAIN_TYPES:
        return None
    shape = tuple(int(side) for side in found[3].split(b",") if side)
    return ArrayInfo(typestr, int(typestr[2:]), shape, found[2] == b"True"), end


def _odd_header(head: bytes, name: str) -> tuple[ArrayInfo, int]:
    """Have NumPy parse a header, without pickles."""
    from numpy.lib import format as npy

    stream = io.BytesIO(head)
    try:
        version = npy.read_magic(stream)
    except ValueError:
        version = (0, 0)
    # Version 3.0 only adds field names that are not Latin-1.
    if version not in ((1, 0), (2, 0)):
        raise UnsafeError(f"its member {name[:60]!r} is not an array")
    width, parse = (2, npy.read_array_header_1_0) if version == (1, 0) else (4, npy.read_array_header_2_0)
    if int.from_bytes(head[8 : 8 + width], "little") > HEADER_MAX:
        raise UnsafeError(f"the header of {name[:60]!r} is too long")
    try:
        with warnings.catch_warnings():
            # NumPy warns of long integers as Python 2 wrote them, and of types and literals that are going away.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = parse(stream)
    except Exception as error:  # a Python literal and a type's description, of anyone's making, raise anything
        raise UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text") from error
    if dtype.hasobject:
        raise UnsafeError(f"its array {name[:60]!r} holds pickled Python objects, which can run code")
    if dtype.kind not in _KINDS or any(type(side) is not int or side < 0 for side in shape):
        raise UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text")
    return ArrayInfo(dtype.str, dtype.itemsize, shape, fortran_order), stream.tell()
