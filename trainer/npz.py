"""Reading npz files that came from elsewhere.

An npz is a zip of npy members (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
Three things make one dangerous: an npy member may hold a pickle, which runs code when it is loaded; a
small zip may unpack to any size; and a zip describes itself in several places that need not agree. So every
member is judged by what it declares before a byte of it is unpacked, then what it unpacks to is held
against the declaration. Arrays are built from the raw bytes: no unpickler is ever near them.

Checking needs no NumPy. The processes that register and fetch models are light, and stay so.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainer.errors import IntegrityError, NotFoundError

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 1 << 20
_HEADER_MAX = 10_000  # NumPy's own max_header_size
_NAME_MAX = 300
_DIMENSIONS_MAX = 32  # what NumPy 1.x takes; 2.x takes 64
# The list of members is read whole before they can be counted, at 46 bytes each or more.
_DIRECTORY_MAX = 4 << 20

# {'descr': '<f4', 'fortran_order': False, 'shape': (100, 784), } is a Python literal, but three fields of known
# form need no evaluator. The L is how Python 2 wrote a long. Whitespace is matched possessively (*+), so that a header
# of nothing else fails at once.
_SHAPE = r"\(\s*+(?:\d{1,18}L?\s*+(?:,\s*+\d{1,18}L?\s*+)*,?\s*+)?\)"
_FIELD = rf"\s*+'(\w{{1,20}})'\s*+:\s*+('[^'\\]{{1,20}}'|True|False|{_SHAPE})\s*+"
_HEADER = re.compile(rf"\{{{_FIELD},{_FIELD},{_FIELD},?\s*+\}}\s*+", re.ASCII)
# bool, integers, floats, complex, byte strings and text: Chainer stores its logs as text, random states as integers.
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """What a file may ask for.

    Attributes:
        members: Number of arrays.
        total: Bytes of all arrays together, unpacked.
        ratio: Times that unpacking may enlarge the file, where it unpacks to more than ``unsuspicious`` bytes.
        unsuspicious: Bytes below which any ratio is fine; a network's zeroed optimizer state packs a thousandfold.
    """

    members: int = 10_000
    total: int = 2 << 30
    ratio: int = 100
    unsuspicious: int = 64 << 20


DEFAULT_LIMITS = Limits()


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


def check_npz(path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, ArrayInfo]:
    """Read a whole npz file, keeping nothing of it.

    Args:
        path: The file.
        limits: What it may ask for.

    Returns:
        What each array is, by name, in the file's order.

    Raises:
        NotFoundError: There is no such file.
        IntegrityError: It is not an npz file, is damaged, holds Python objects, or asks for too much.
    """
    found = {}
    with _opened(path, limits) as archive:
        for name, member in _members(archive, limits):
            with archive.open(member) as stream:
                info = _header(stream, name, member.file_size)
                left = info.nbytes
                while left and (chunk := stream.read(min(left, _CHUNK))):
                    left -= len(chunk)
                _at_end(stream, name, left)
            found[name] = info
    return found


def read_npz(path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of an npz file.

    Args:
        path: The file.
        limits: What it may ask for.

    Returns:
        The arrays by name, without ``.npy``, in the file's order, with the file's types.

    Raises:
        NotFoundError: There is no such file.
        IntegrityError: It is not an npz file, is damaged, holds Python objects, or asks for too much.
    """
    import numpy as np

    found = {}
    with _opened(path, limits) as archive:
        for name, member in _members(archive, limits):
            with archive.open(member) as stream:
                info = _header(stream, name, member.file_size)
                data, filled = bytearray(info.nbytes), 0
                while filled < info.nbytes and (chunk := stream.read(min(info.nbytes - filled, _CHUNK))):
                    data[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                _at_end(stream, name, info.nbytes - filled)
            # A type of no width, '<U0', has no count that frombuffer could find out.
            flat = np.frombuffer(data, info.dtype) if info.nbytes else np.empty(math.prod(info.shape), info.dtype)
            found[name] = flat.reshape(info.shape, order="F" if info.fortran_order else "C")
    return found


class _UnsafeError(Exception):
    """Why a file is refused; becomes an IntegrityError once the file's name is known."""


class _BoundedDirectory(RawIOBase):
    """The file, refusing to hand out more than ``_DIRECTORY_MAX`` bytes until it is told that the list is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._allowed: int | None = _DIRECTORY_MAX

    def lift(self) -> None:
        self._allowed = None

    def read(self, size: int = -1) -> bytes:
        if self._allowed is None:
            return self._stream.read(size)
        if size > self._allowed:
            raise _UnsafeError(f"its list of members takes {size:,} bytes")
        data = self._stream.read(size if size >= 0 else self._allowed)
        self._allowed -= len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open the file; whatever goes wrong with it inside the block is an IntegrityError that names it."""
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115, PTH123
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} can't be read: {error}.", "Check the path and its permissions.") from error
    with stream:
        try:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise _UnsafeError("it is not a regular file")
            bounded = _BoundedDirectory(stream)
            with zipfile.ZipFile(bounded) as archive:
                bounded.lift()
                _check_directory(archive, os.fstat(stream.fileno()).st_size, limits)
                yield archive
        except _UnsafeError as refused:
            raise _refusal(path, str(refused)) from refused
        except zipfile.BadZipFile as error:
            raise _refusal(path, str(error)) from error
        except zlib.error as error:
            raise _refusal(path, f"its compressed data is damaged ({error})") from error
        except (EOFError, OSError) as error:
            raise _refusal(path, str(error) or "it ends too soon") from error
        except (ValueError, struct.error, NotImplementedError, RuntimeError, OverflowError) as error:
            # What zipfile raises for fields that no writer makes: odd offsets, versions, flags and encodings.
            raise _refusal(path, f"its structure is damaged ({error})") from error


def _refusal(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path} is not a safe npz file: {why.rstrip('.')}.",
        "Use a file that serializers.save_npz or numpy.savez wrote, from a source you trust.",
    )


def _check_directory(archive: zipfile.ZipFile, size: int, limits: Limits) -> None:
    """Judge the zip's own list of members, before any of them is opened."""
    members = archive.infolist()
    if len(members) > limits.members:
        raise _UnsafeError(f"it has {len(members):,} members; the limit is {limits.members:,}")
    names: set[str] = set()
    total = packed = end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        # The name as written: ZipInfo.filename stops at the first NUL.
        name = _check_name(member.orig_filename)
        if name in names:
            raise _UnsafeError(f"it has two members named {name[:60]!r}")
        names.add(name)
        if member.flag_bits & 0x41:
            raise _UnsafeError(f"its member {name[:60]!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _UnsafeError(f"its member {name[:60]!r} is compressed in a way that npz files are not")
        if member.header_offset < end:
            raise _UnsafeError("its members overlap")
        # 30 bytes of local header, then the name, then the data.
        end = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
        packed += member.compress_size
        total += member.file_size
    if end > size or packed > size:
        raise _UnsafeError("its members claim more bytes than the file has")
    if total > limits.total:
        raise _UnsafeError(f"it would unpack to {total:,} bytes; the limit is {limits.total:,}")
    if total > limits.unsuspicious and total > limits.ratio * size:
        raise _UnsafeError(f"it would unpack to {total:,} bytes from {size:,}, as a zip bomb does")


def _check_name(name: str) -> str:
    if len(name) > _NAME_MAX:
        raise _UnsafeError(f"a member's name has {len(name)} characters; the limit is {_NAME_MAX}")
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise _UnsafeError(f"a member is named {name[:60]!r}")
    if not name.endswith(".npy"):
        raise _UnsafeError(f"its member {name[:60]!r} is not an array")
    return name


def _members(archive: zipfile.ZipFile, limits: Limits) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for member in archive.infolist():
        if member.file_size > limits.total:
            raise _UnsafeError(f"its member {member.filename[:60]!r} is too large")
        yield member.filename.removesuffix(".npy"), member


def _header(stream: IO[bytes], name: str, size: int) -> ArrayInfo:
    """Read a member's npy header, leaving the stream at the data.

    Args:
        stream: The member, at its beginning.
        name: The array's name, for messages.
        size: The member's unpacked size in bytes, as the zip declares it.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise _UnsafeError(f"its member {name[:60]!r} is not an array")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _HEADER_MAX:
        raise _UnsafeError(f"the header of {name[:60]!r} is too long")
    text = stream.read(length).decode("utf-8" if start[6] == 3 else "latin-1", "replace")
    match = _HEADER.fullmatch(text)
    fields = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    descr, order, shape_text = (fields.get(key, "") for key in ("descr", "fortran_order", "shape"))
    dtype = descr.strip("'")
    if dtype.lstrip("<>|=").startswith("O"):
        raise _UnsafeError(f"its array {name[:60]!r} holds Python objects, which are pickles and can run code")
    if order not in ("True", "False") or not shape_text.startswith("(") or not _DTYPE.fullmatch(dtype):
        raise _UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text")
    shape = tuple(int(number) for number in re.findall(r"\d+", shape_text))
    item = _item_size(dtype)
    # Empty arrays too: their other dimensions must still be ones that NumPy can multiply.
    if len(shape) > _DIMENSIONS_MAX or math.prod(max(n, 1) for n in shape) * max(item, 1) > 1 << 48:
        raise _UnsafeError(f"the shape of {name[:60]!r} is absurd")
    info = ArrayInfo(dtype, shape, order == "True", math.prod(shape) * item, 8 + width + length)
    if info.offset + info.nbytes != size:
        raise _UnsafeError(
            f"the header of {name[:60]!r} promises {info.nbytes:,} bytes and its member has another size"
        )
    return info


def _item_size(dtype: str) -> int:
    kind, count = re.fullmatch(r"[<>|=]?(\w)(\d+)", dtype).groups()  # type: ignore[union-attr]  # _DTYPE has matched
    return int(count) * (4 if kind == "U" else 1)


def _at_end(stream: IO[bytes], name: str, missing: int) -> None:
    """Check that a member has given all its data and no more; its CRC is checked where it ends."""
    if missing or stream.read(1):
        raise _UnsafeError(f"its array {name[:60]!r} has another size than declared")
