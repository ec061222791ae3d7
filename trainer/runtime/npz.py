"""npz files: written atomically and reproducibly, read without trusting them.

An npz is a zip of npy members (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html); what
:func:`write` writes is read by NumPy and Chainer alike. Three things make one from elsewhere dangerous, and
``numpy.load`` and :func:`chainer.serializers.load_npz` stop at most the first: an npy member may hold a pickle, which
runs code when it is loaded; a small zip may unpack to any size; and a zip describes itself in several places that
need not agree. So every member is judged by what it declares before a byte of it is unpacked, its header is parsed with
a bounded length (:mod:`trainer.runtime.npy_headers`), and what it unpacks to is held against the declaration. Nothing
is ever unpickled.

NumPy is imported where arrays are made, and not with this module: whoever ends a run checks its model, and most
models can be checked without.
"""

from __future__ import annotations

import array
import io
import math
import os
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trainer.runtime.atomic import write_bytes
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.npy_headers import HEADER_MAX, ArrayInfo, UnsafeError, is_pickled_none, parse_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 20
_NAME_MAX = 300
# The list of members is read whole before they can be counted, at 46 bytes each or more.
_DIRECTORY_MAX = 4 << 20
# Values of which sums_are_finite() makes numbers one by one; more are NumPy's.
_SUMMED_MAX = 1 << 20
# The earliest date that a zip archive can hold: the bytes depend on nothing but the arrays.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


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


def write(path: Path, arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> None:
    """Write ``arrays`` to ``path``: whole or not at all, and the same bytes for the same arrays.

    Args:
        path: The file; its folder must exist.
        arrays: Name to array. Names may hold slashes, as Chainer's serializer makes them.
        compress: Deflate the members. Weights shrink by about 8 %; a checkpoint is written sooner without.

    Raises:
        RuntimeFault: The file can't be written, an array holds Python objects, or its name would be refused by
            :func:`read`.
    """
    import numpy as np
    from numpy.lib import format as npy

    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w") as archive:
        # Chainer's serializers walk sets, whose order changes from process to process.
        for name, array in sorted(arrays.items()):
            if array.dtype.hasobject:
                raise RuntimeFault(
                    f"{path.name}: {name} holds Python objects, which npz files of ours never do",
                    "store numbers, or text as a NumPy string",
                )
            try:
                member = zipfile.ZipInfo(_check_name(f"{name}.npy"), _ZIP_EPOCH)
            except UnsafeError as refused:
                raise RuntimeFault(
                    f"{path.name}: {refused}, which can't be read again", "choose another name"
                ) from None
            member.external_attr = 0o644 << 16
            member.compress_type = method
            with archive.open(member, "w", force_zip64=array.nbytes > 1 << 30) as stream:
                npy.write_array(stream, np.asanyarray(array), allow_pickle=False)
    try:
        write_bytes(path, buffer.getbuffer())
    except OSError as error:
        raise RuntimeFault(
            f"cannot write {path}: {error.strerror or error}", "free some space there, or choose another --output_dir"
        ) from error


def read(path: Path, limits: Limits | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of an npz file that may come from anyone.

    Args:
        path: The file.
        limits: What it may ask for; ``Limits()`` if None.

    Returns:
        The arrays by name, without ``.npy``, in the file's order, with the file's types.

    Raises:
        RuntimeFault: There is no such file, it is not an npz file, is damaged, holds Python objects, or asks for too
            much.
    """
    import numpy as np

    found: dict[str, NDArray[Any]] = {}
    with _opened(path, limits or Limits()) as archive:
        for name, info, chunks in _arrays(archive):
            data, filled = bytearray(info.nbytes), 0
            for chunk in chunks:
                data[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
            # A type of no width, '<U0', has no count that frombuffer could find out.
            dtype = np.dtype(info.typestr)
            flat = np.frombuffer(data, dtype) if info.nbytes else np.empty(math.prod(info.shape), dtype)
            found[name] = flat.reshape(info.shape, order="F" if info.fortran_order else "C")
    return found


def check(path: Path, limits: Limits | None = None) -> dict[str, ArrayInfo]:
    """Read a whole npz file as :func:`read` does, keeping nothing of it; same arguments, same errors.

    Returns:
        What each array is, by name, in the file's order.
    """
    found: dict[str, ArrayInfo] = {}
    with _opened(path, limits or Limits()) as archive:
        for name, info, chunks in _arrays(archive):
            for _ in chunks:
                pass
            found[name] = info
    return found


def sums_are_finite(path: Path, limits: Limits | None = None) -> bool:
    """Return whether the sum of each array's values is a finite number: then each value is.

    Where it isn't, or would take long to say without NumPy, the answer is False. Same arguments and errors as
    :func:`read`.
    """
    codes = {"<" if sys.byteorder == "little" else ">": {"f4": "f", "f8": "d"}}
    with _opened(path, limits or Limits()) as archive:
        left = _SUMMED_MAX
        for _, info, chunks in _arrays(archive):
            if info.typestr[1] in "biu":
                continue
            code = codes.get(info.typestr[0], {}).get(info.typestr[1:])
            left -= math.prod(info.shape)
            if code is None or left < 0 or not math.isfinite(sum(array.array(code, b"".join(chunks)))):
                return False
    return True


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, ArrayInfo, Iterator[bytes]]]:
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as stream:
            head = stream.read(12 + HEADER_MAX)
            if len(head) == member.file_size and is_pickled_none(head):
                continue
            info, offset = parse_header(head, name, member.file_size)
            yield name, info, _chunks(stream, head[offset:], name, info.nbytes)


def _chunks(stream: IO[bytes], first: bytes, name: str, nbytes: int) -> Iterator[bytes]:
    """Yield a member's data; its CRC is checked where it ends, and zipfile gives no more than the declared size."""
    chunk = first or stream.read(_CHUNK)
    while chunk:
        nbytes -= len(chunk)
        yield chunk
        chunk = stream.read(_CHUNK)
    if nbytes:
        raise UnsafeError(f"its array {name[:60]!r} has another size than declared")


class _BoundedDirectory(io.RawIOBase):
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
    """Open the file; whatever goes wrong with it inside the block is a RuntimeFault that names it."""
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RuntimeFault(f"There is no file {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise RuntimeFault(f"{path} can't be read: {error}.", "Check the path and its permissions.") from error
    with stream:
        try:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeError("it is not a regular file")
            bounded = _BoundedDirectory(stream)
            with zipfile.ZipFile(bounded) as archive:
                bounded.lift()
                _check_directory(archive.infolist(), status.st_size, limits)
                yield archive
        except zlib.error as error:
            raise _refusal(path, f"its compressed data is damaged ({error})") from error
        except (UnsafeError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise _refusal(path, str(error) or "it ends too soon") from error
        except (ValueError, struct.error, NotImplementedError, RuntimeError, OverflowError) as error:
            # What zipfile raises for fields that no writer makes: odd offsets, versions, flags and encodings.
            raise _refusal(path, f"its structure is damaged ({error})") from error


def _refusal(path: Path, why: str) -> RuntimeFault:
    return RuntimeFault(
        f"{path} is not a safe npz file: {why.rstrip('.')}.",
        "Use a file that serializers.save_npz or numpy.savez wrote, from a source you trust.",
    )


def _check_directory(members: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    """Judge the zip's own list of members, before any of them is opened."""
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
        raise UnsafeError(f"it unpacks to {total:,} bytes; the limit is {limits.total:,}")
    if total > limits.unsuspicious and total > limits.ratio * size:
        raise UnsafeError(f"it unpacks to {total:,} bytes from {size:,}, as a zip bomb does")


def _check_name(name: str) -> str:
    if len(name) > _NAME_MAX:
        raise UnsafeError(f"a member's name has {len(name)} characters; the limit is {_NAME_MAX}")
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise UnsafeError(f"a member is named {name[:60]!r}")
    if not name.endswith(".npy"):
        raise UnsafeError(f"its member {name[:60]!r} is not an array")
    return name
