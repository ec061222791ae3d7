"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes ``path``'s place when the block ends without an error.

    The temporary file lies in the same directory: a rename across file systems would be a copy.

    Args:
        path: The file to write. Its directory must exist.
        mode: Permission bits of the new file.
        durable: Write the data to disk before the name (fsync, then rename), so that a crash of the machine too
            leaves the old content or the new. False for what is written several times per second or can be made
            again: readers see the old content or the new all the same.

    Raises:
        OSError: It can't be written; the old file is still there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def write_bytes(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write ``data`` to ``path`` atomically; see :func:`replacing`."""
    with replacing(path, durable=durable) as stream:
        stream.write(data)


def make_directory(path: Path) -> None:
    """Make a directory and those above it that are missing, durably: their names are on the disk afterwards.

    Raises:
        OSError: It can't be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
