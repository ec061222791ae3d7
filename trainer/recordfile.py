"""The one reader of records: small JSON files that this or an earlier process wrote, or a script, or a failing disk.

Whatever lies in a record's place, reading it ends at once: with the record, with ``FileNotFoundError``, or with a
:class:`~trainer.errors.DamagedRecordError` that names the file and what is wrong with it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from trainer.errors import DamagedRecordError
from trainer.runtime.atomic import make_directory, sync_directory

LARGEST_RECORD = 4 << 20
"""Bytes. Ours have a few kilobytes."""

# O_NONBLOCK: opening a pipe must not wait for its writer. O_NOFOLLOW: no record of ours is a link.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}
_T = TypeVar("_T")


def read_bytes(path: str | Path, limit: int = LARGEST_RECORD) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: There is none.
        DamagedRecordError: Something else is in its place, it is larger, or it can't be read.
    """
    with opened(path) as (descriptor, status):
        if status.st_size > limit:
            raise DamagedRecordError(path, f"it has {status.st_size:,} bytes; the limit is {limit:,}")
        # One read of what is there; a file that grows meanwhile is taken as it was.
        parts, left = [], status.st_size
        while left and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file to read from it; what is in its place instead is never waited for, and no link is followed.

    Yields:
        A descriptor, and the file's status.

    Raises:
        FileNotFoundError: There is none.
        DamagedRecordError: Something else is in its place, or it can't be read.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        reasons = {errno.ELOOP: "it is a link, not a file", errno.ENXIO: "it is a socket, not a file"}
        raise DamagedRecordError(path, reasons.get(error.errno or 0, _text(error))) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedRecordError(path, f"it is {kind_of(status.st_mode)}, not a file")
        yield descriptor, status
    except OSError as error:
        raise DamagedRecordError(path, _text(error)) from error
    finally:
        os.close(descriptor)


def decode(data: bytes, decoder: msgspec.json.Decoder[_T], path: str | Path) -> _T:
    """Decode a record.

    Args:
        data: JSON.
        decoder: Of the record's type.
        path: The file it came from.

    Raises:
        DamagedRecordError: It is not what it should be.
    """
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError, OverflowError, MemoryError, msgspec.MsgspecError) as error:
        raise DamagedRecordError(path, explain(error, data)) from error


def read(path: str | Path, decoder: msgspec.json.Decoder[_T], limit: int = LARGEST_RECORD) -> _T:
    """Read and decode a record; errors as :func:`read_bytes` and :func:`decode`."""
    return decode(read_bytes(path, limit), decoder, path)


def set_aside(home: Path, path: Path) -> Path | None:
    """Move something damaged to ``damaged/<time>/`` in the home, under its path in the home. Nothing is deleted.

    Args:
        home: ``.trainer/``.
        path: A file or a directory in it.

    Returns:
        Where it is now; None if there is nothing at ``path``.

    Raises:
        OSError: It can't be moved.
    """
    if not os.path.lexists(path):
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for count in range(1_000_000):
        target = home / "damaged" / (f"{stamp}-{count}" if count else stamp) / path.relative_to(home)
        if not os.path.lexists(target):
            break
    make_directory(target.parent)
    path.rename(target)
    sync_directory(target.parent)
    sync_directory(path.parent)
    return target


def explain(error: Exception, data: bytes) -> str:
    """Say in a few words why ``data`` is no record."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        try:
            data.decode()
        except UnicodeDecodeError as whole:  # the decoder's own counts from the beginning of a string
            return f"byte {whole.start} is not UTF-8"
    return str(error).rstrip(".") or type(error).__name__


def kind_of(mode: int) -> str:
    """Say what a file's mode makes it: ``a directory``, ``a named pipe``, ..."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _text(error: OSError) -> str:
    return f"it can't be read ({error.strerror or error})"
