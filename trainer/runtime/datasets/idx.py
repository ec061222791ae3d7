"""Read IDX files of unsigned bytes or floats, gzipped or not; every byte is hostile until checked.

The format (the MNIST distribution's own description): two zero bytes, a type code (8: unsigned byte,
13: float), the number of dimensions, one big-endian 32-bit length per dimension, then the values in C order.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainer.runtime.faults import RuntimeFault

MAX_BYTES = 2 << 30
"""Largest decompressed file that is read, in bytes."""

_UNSIGNED_BYTE = 0x08
_FLOAT = 0x0D
_TYPES: dict[int, np.dtype[Any]] = {_UNSIGNED_BYTE: np.dtype(np.uint8), _FLOAT: np.dtype(">f4")}
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate's best ratio (zlib.net/zlib_tech.html); a header that promises more than this lies.
_MAX_RATIO = 1032
_CHUNK = 1 << 20
_MOST_DIMENSIONS = 5
_GET_IT_AGAIN = "Get the file again, or take another data set."


@dataclass(frozen=True)
class Header:
    """The shape that an IDX file declares.

    Attributes:
        shape: The length of each dimension.
        code: The type of the values.
    """

    shape: tuple[int, ...]
    code: int = _UNSIGNED_BYTE

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values in the file, whose floats are big-endian."""
        return _TYPES[self.code]

    @property
    def length(self) -> int:
        """Bytes before the first value."""
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole decompressed file."""
        return self.length + math.prod(self.shape) * self.dtype.itemsize

    def encode(self) -> bytes:
        """Return the header's bytes."""
        return struct.pack(f">BBBB{len(self.shape)}I", 0, 0, self.code, len(self.shape), *self.shape)


@dataclass(frozen=True)
class Content:
    """An open file and its decompressed bytes.

    Attributes:
        path: Where it lies, for messages.
        stream: Gives the decompressed bytes.
        file: The file itself.
        stored_size: Its size on disk in bytes.
        compressed: Whether it is gzipped, judged by its first bytes and not by its name.
    """

    path: Path
    stream: IO[bytes]
    file: io.BufferedReader
    stored_size: int
    compressed: bool

    def read(self, size: int) -> bytes:
        """Up to ``size`` decompressed bytes; fewer only at the end.

        Raises:
            RuntimeFault: The gzip stream is cut off or damaged.
        """
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer``; the number of bytes, fewer than its length only at the end of the file.

        Raises:
            RuntimeFault: The gzip stream is cut off or damaged.
        """
        filled = 0
        try:
            while filled < len(buffer):
                # A bound on each read bounds the copy that gzip makes.
                count = self.stream.readinto(buffer[filled : filled + _CHUNK])  # type: ignore[attr-defined]
                if not count:
                    break
                filled += count
        except EOFError:
            raise RuntimeFault(f"{self.path} is cut off: its gzip stream has no end.", _GET_IT_AGAIN) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise RuntimeFault(f"{self.path} is damaged: {error}.", _GET_IT_AGAIN) from None
        except OSError as error:
            raise RuntimeFault(f"Can't read {self.path}: {error.strerror or error}.") from None
        return filled


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """Open a file for its decompressed bytes.

    Raises:
        RuntimeFault: It is missing, unreadable or no regular file.
    """
    try:
        # Not blocking: a named pipe in place of the file must be an error, not a hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFault(f"Can't open {path}: {error.strerror}.") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RuntimeFault(f"{path} is not a regular file.")
    with os.fdopen(descriptor, "rb") as file:
        compressed = file.peek(2)[:2] == _GZIP_MAGIC
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[assignment]
        yield Content(path, stream, file, status.st_size, compressed)


def read_header(content: Content, dimensions: int | None) -> Header:
    """Read and check the header, before anything of its size is allocated.

    Args:
        content: A file at its start.
        dimensions: How many dimensions it must have: 1 for labels, which are bytes; None for two or more.

    Raises:
        RuntimeFault: It is no IDX file of that kind, or declares a size that can't be.
    """
    path = content.path
    start = content.read(4)
    if len(start) < 4:
        raise RuntimeFault(f"{path} has a short header: {len(start)} bytes, and an IDX file starts with 4.")
    if start[:2] != b"\0\0":
        raise RuntimeFault(f"{path} has the wrong magic number 0x{start.hex()}: it is not an IDX file.")
    code, count = start[2], start[3]
    if code != _UNSIGNED_BYTE and (code != _FLOAT or dimensions == 1):
        read_ones = "unsigned bytes (0x08)" if dimensions == 1 else "unsigned bytes (0x08) and floats (0x0d)"
        raise RuntimeFault(f"{path} holds values of type 0x{code:02x}; only {read_ones} are read.")
    if count != dimensions if dimensions else not 2 <= count <= _MOST_DIMENSIONS:
        wanted = "labels have 1" if dimensions == 1 else f"images have {dimensions or f'2 to {_MOST_DIMENSIONS}'}"
        raise RuntimeFault(f"{path} has the wrong magic number 0x{start.hex()}: {count} dimensions, and {wanted}.")
    lengths = content.read(4 * count)
    if len(lengths) < 4 * count:
        takes = 4 + 4 * count
        raise RuntimeFault(f"{path} has a short header: {4 + len(lengths)} bytes, and it takes {takes}.")
    header = Header(struct.unpack(f">{count}I", lengths), code)
    if 0 in header.shape:
        raise RuntimeFault(f"{path} is empty: its shape is {header.shape}.")
    if header.size > MAX_BYTES:
        raise RuntimeFault(
            f"{path} declares {header.shape}, {header.size:,} bytes; at most {MAX_BYTES:,} are read.",
            "Split the data set, or write it as something that is not read whole.",
        )
    if content.compressed and header.size > _MAX_RATIO * content.stored_size:
        raise RuntimeFault(
            f"{path} is cut off: its {content.stored_size:,} bytes can't hold the declared {header.shape}.",
            _GET_IT_AGAIN,
        )
    if not content.compressed and content.stored_size != header.size:
        raise _wrong_size(path, header, content.stored_size)
    return header


def read(path: Path, dimensions: int | None) -> NDArray[Any]:
    """Return the values of one IDX file.

    A plain file of bytes is mapped into memory and not read; a gzipped one is decompressed, and no further
    than its header says.

    Args:
        path: The file.
        dimensions: As :func:`read_header` takes it.

    Returns:
        uint8 or float32, C-contiguous, read-only, of the declared shape.

    Raises:
        RuntimeFault: The file is malformed; the message names it and says how.
    """
    with open_content(path) as content:
        header = read_header(content, dimensions)
        if not content.compressed:
            return memory_map(content.file, header)
        values = np.empty(header.shape, header.dtype)
        fill(content, header, _bytes_of(values))
        values = _native(values)
    values.flags.writeable = False
    return values


def fill(content: Content, header: Header, buffer: memoryview) -> None:
    """Read exactly the declared values into ``buffer`` and see that the file ends there.

    Raises:
        RuntimeFault: There are fewer or more, or the gzip stream's own check fails.
    """
    filled = content.readinto(buffer)
    # Reading past the last value also makes gzip compare its checksum.
    if filled < len(buffer) or content.read(1):
        raise _wrong_size(content.path, header, header.length + filled if filled < len(buffer) else None)


def memory_map(file: IO[bytes], header: Header) -> NDArray[Any]:
    """Return the values of a plain IDX file whose size has been checked, read-only: bytes mapped, floats copied."""
    mapped = np.memmap(file, header.dtype, "r", offset=header.length, shape=header.shape)
    values = _native(mapped.view(np.ndarray))
    values.flags.writeable = False
    return values


def encode(values: NDArray[Any]) -> bytes:
    """Return the bytes of a plain IDX file.

    Args:
        values: uint8 or float32.
    """
    code = _UNSIGNED_BYTE if values.dtype == np.uint8 else _FLOAT
    header = Header(values.shape, code)
    return header.encode() + np.ascontiguousarray(values, header.dtype).tobytes()


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype == np.uint8 else values.astype(np.float32)


def _wrong_size(path: Path, header: Header, size: int | None) -> RuntimeFault:
    has = f"{size:,} bytes" if size is not None else "more"
    what = "is cut off" if size is not None and size < header.size else "has bytes after its end"
    return RuntimeFault(
        f"{path} {what}: its header {header.shape} takes {header.size:,} bytes, and it has {has}.", _GET_IT_AGAIN
    )
