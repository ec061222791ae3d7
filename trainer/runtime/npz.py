"""npz files: written atomically and reproducibly, read without trusting them.

An npz is a zip of npy members (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html); what
:func:`write` writes is read by NumPy and Chainer alike. Three things make one from elsewhere dangerous, and
``numpy.load`` and :func:`chainer.serializers.load_npz` stop at most the first: an npy member may hold a pickle, which
runs code when it is loaded; a small zip may unpack to any size; and a zip describes itself in several places that
need not agree. So every member is judged by what it declares before a byte of it is unpacked, its header is parsed by
NumPy with a bounded length, and what it unpacks to is held against the declaration. Nothing is ever unpickled.

One pickle is known without that: None, which Chainer writes for a parameter that was never initialised. A member whose
pickle is that of ``numpy.array(None)``, instruction by instruction, counts as absent.
"""

from __future__ import annotations

import functools
import io
import math
import os
import pickle
import pickletools
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trainer.runtime.atomic import write_bytes
from trainer.runtime.faults import RuntimeFault

_CHUNK = 1 << 20
_NAME_MAX = 300
# The list of members is read whole before they can be counted, at 46 bytes each or more.
_DIRECTORY_MAX = 4 << 20
_HEADER_MAX = 10_000  # NumPy's own max_header_size
_DIMENSIONS_MAX = 32  # what NumPy 1 takes; NumPy 2 takes 64
_NONE_HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
# bool, integers, floats, complex, byte strings and text: Chainer stores its logs as text, random states as integers.
_KINDS = "biufcSU"
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


@dataclass(frozen=True)
class ArrayInfo:
    """One array as its header describes it.

    Attributes:
        dtype: Its element type.
        shape: Its shape.
        fortran_order: Whether the first index varies fastest in the file.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Size of its data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class _UnsafeError(Exception):
    """Why a file is refused, as the end of a sentence that names the file."""


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
            except _UnsafeError as refused:
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
    found: dict[str, NDArray[Any]] = {}
    with _opened(path, limits or Limits()) as archive:
        for name, info, chunks in _arrays(archive):
            data, filled = bytearray(info.nbytes), 0
            for chunk in chunks:
                data[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
            # A type of no width, '<U0', has no count that frombuffer could find out.
            flat = np.frombuffer(data, info.dtype) if info.nbytes else np.empty(math.prod(info.shape), info.dtype)
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


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, ArrayInfo, Iterator[bytes]]]:
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        with archive.open(member) as stream:
            head = stream.read(12 + _HEADER_MAX)
            if len(head) == member.file_size and _is_pickled_none(head):
                continue
            info, offset = _header(head, name, member.file_size)
            yield name, info, _chunks(stream, head[offset:], name, info.nbytes)


def _is_pickled_none(member: bytes) -> bool:
    """Whether a whole npy member is what NumPy writes for ``numpy.array(None)``."""
    start = len(npy.MAGIC_PREFIX) + 4
    end = start + int.from_bytes(member[start - 2 : start], "little")
    if member[: start - 2] != npy.magic(1, 0) or member[start:end].rstrip() != _NONE_HEADER:
        return False
    return _instructions(member[end:]) in _pickles_of_none()


@functools.cache
def _pickles_of_none() -> tuple[object, ...]:
    value = np.array(None)
    return tuple(_instructions(pickle.dumps(value, protocol=protocol)) for protocol in (2, 3, 4, 5))


def _instructions(data: bytes) -> object:
    """Return the instructions of a pickle, without executing any; None if it is none or has something behind it."""
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


def _header(head: bytes, name: str, size: int) -> tuple[ArrayInfo, int]:
    """Parse a member's npy header.

    Args:
        head: The member's first bytes.
        name: The array's name, for messages.
        size: The member's unpacked size in bytes, as the zip declares it.

    Returns:
        What the array is, and how many bytes of header there are before its data.
    """
    stream = io.BytesIO(head)
    try:
        version = npy.read_magic(stream)
    except ValueError:
        version = (0, 0)
    # Version 3.0 only adds field names that are not Latin-1.
    if version not in ((1, 0), (2, 0)):
        raise _UnsafeError(f"its member {name[:60]!r} is not an array")
    width, parse = (2, npy.read_array_header_1_0) if version == (1, 0) else (4, npy.read_array_header_2_0)
    if int.from_bytes(head[8 : 8 + width], "little") > _HEADER_MAX:
        raise _UnsafeError(f"the header of {name[:60]!r} is too long")
    try:
        with warnings.catch_warnings():
            # NumPy warns of long integers as Python 2 wrote them, and of types and literals that are going away.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = parse(stream)
    except Exception as error:  # a Python literal and a type's description, of anyone's making, raise anything
        raise _UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text") from error
    if dtype.hasobject:
        raise _UnsafeError(f"its array {name[:60]!r} holds pickled Python objects, which can run code")
    if dtype.kind not in _KINDS or any(type(side) is not int or side < 0 for side in shape):
        raise _UnsafeError(f"the header of {name[:60]!r} does not describe an array of numbers or text")
    # Empty arrays too: their other dimensions must still be ones that NumPy can multiply.
    if len(shape) > _DIMENSIONS_MAX or math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) > 1 << 48:
        raise _UnsafeError(f"the shape of {name[:60]!r} is absurd")
    info, offset = ArrayInfo(dtype, shape, fortran_order), stream.tell()
    if offset + info.nbytes != size:
        than = "more" if offset + info.nbytes > size else "less"
        raise _UnsafeError(f"the header of {name[:60]!r} promises {info.nbytes:,} bytes, {than} data than it has")
    return info, offset


def _chunks(stream: IO[bytes], first: bytes, name: str, nbytes: int) -> Iterator[bytes]:
    """Yield a member's data; its CRC is checked where it ends, and zipfile gives no more than the declared size."""
    chunk = first or stream.read(_CHUNK)
    while chunk:
        nbytes -= len(chunk)
        yield chunk
        chunk = stream.read(_CHUNK)
    if nbytes:
        raise _UnsafeError(f"its array {name[:60]!r} has another size than declared")


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
                raise _UnsafeError("it is not a regular file")
            bounded = _BoundedDirectory(stream)
            with zipfile.ZipFile(bounded) as archive:
                bounded.lift()
                _check_directory(archive.infolist(), status.st_size, limits)
                yield archive
        except zlib.error as error:
            raise _refusal(path, f"its compressed data is damaged ({error})") from error
        except (_UnsafeError, zipfile.BadZipFile, EOFError, OSError) as error:
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
        raise _UnsafeError(f"it unpacks to {total:,} bytes; the limit is {limits.total:,}")
    if total > limits.unsuspicious and total > limits.ratio * size:
        raise _UnsafeError(f"it unpacks to {total:,} bytes from {size:,}, as a zip bomb does")


def _check_name(name: str) -> str:
    if len(name) > _NAME_MAX:
        raise _UnsafeError(f"a member's name has {len(name)} characters; the limit is {_NAME_MAX}")
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise _UnsafeError(f"a member is named {name[:60]!r}")
    if not name.endswith(".npy"):
        raise _UnsafeError(f"its member {name[:60]!r} is not an array")
    return name
