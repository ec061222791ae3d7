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
from trainer.npy import ArrayInfo, UnsafeError, read_header

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 1 << 20
_NAME_MAX = 300
# The list of members is read whole before they can be counted, at 46 bytes each or more.
_DIRECTORY_MAX = 4 << 20


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
                info = read_header(stream, name, member.file_size)
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
                info = read_header(stream, name, member.file_size)
                data, filled = bytearray(info.nbytes), 0
                while filled < info.nbytes and (chunk := stream.read(min(info.nbytes - filled, _CHUNK))):
                    data[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                _at_end(stream, name, info.nbytes - filled)
            # A type of no width, '<U0', has no count that frombuffer could find out.
            flat = np.frombuffer(data, info.dtype) if info.nbytes else np.empty(math.prod(info.shape), info.dtype)
            found[name] = flat.reshape(info.shape, order="F" if info.fortran_order else "C")
    return found


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
            raise UnsafeError(f"its list of members takes {size:,} bytes")
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
        stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} can't be read: {error}.", "Check the path and its permissions.") from error
    with stream:
        try:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UnsafeError("it is not a regular file")
            bounded = _BoundedDirectory(stream)
            with zipfile.ZipFile(bounded) as archive:
                bounded.lift()
                _check_directory(archive, os.fstat(stream.fileno()).st_size, limits)
                yield archive
        except UnsafeError as refused:
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
        raise UnsafeError(f"it has {len(members):,} members; the limit is {limits.members:,}")
    names: set[str] = set()
    total = packed = end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        # The name as written: ZipInfo.filename stops at the first NUL.
        name = _check_name(member.orig_filename)
        if name in names:
            raise UnsafeError(f"it has two members named {name[:60]!r}")
        names.add(name)
        if member.flag_bits & 0x41:
            raise UnsafeError(f"its member {name[:60]!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsafeError(f"its member {name[:60]!r} is compressed in a way that npz files are not")
        if member.header_offset < end:
            raise UnsafeError("its members overlap")
        # 30 bytes of local header, then the name, then the data.
        end = member.header_offset + 30 + len(member.orig_filename) + member.compress_size
        packed += member.compress_size
        total += member.file_size
    if end > size or packed > size:
        raise UnsafeError("its members claim more bytes than the file has")
    if total > limits.total:
        raise UnsafeError(f"it would unpack to {total:,} bytes; the limit is {limits.total:,}")
    if total > limits.unsuspicious and total > limits.ratio * size:
        raise UnsafeError(f"it would unpack to {total:,} bytes from {size:,}, as a zip bomb does")


def _check_name(name: str) -> str:
    if len(name) > _NAME_MAX:
        raise UnsafeError(f"a member's name has {len(name)} characters; the limit is {_NAME_MAX}")
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise UnsafeError(f"a member is named {name[:60]!r}")
    if not name.endswith(".npy"):
        raise UnsafeError(f"its member {name[:60]!r} is not an array")
    return name


def _members(archive: zipfile.ZipFile, limits: Limits) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for member in archive.infolist():
        if member.file_size > limits.total:
            raise UnsafeError(f"its member {member.filename[:60]!r} is too large")
        yield member.filename.removesuffix(".npy"), member


def _at_end(stream: IO[bytes], name: str, missing: int) -> None:
    """Check that a member has given all its data and no more; its CRC is checked where it ends."""
    if missing or stream.read(1):
        raise UnsafeError(f"its array {name[:60]!r} has another size than declared")
