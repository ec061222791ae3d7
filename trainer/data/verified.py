"""The SHA-256 of a data file's decompressed content, computed once while the file stays the same.

A stamp holds the path, size, modification time and inode of the file that was read, as git's index and
make do. It says that nobody replaced or rewrote the file in the ordinary way since. It does not notice bytes
that rotted on disk or were changed under a restored modification time: ``trainer data verify``
reads every byte again, and gzip's own checksum is compared whenever a file is decompressed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from trainer.runtime.atomic import write_bytes

_CHUNK = 1 << 20


class _Stamp(msgspec.Struct, frozen=True):
    path: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str


class Stamps:
    """The stamps in one folder.

    Args:
        folder: Made when the first stamp is written; one that can't be written costs time only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest(self, path: Path, *, largest: int, afresh: bool = False) -> str:
        """SHA-256 of the file's decompressed content, in hexadecimal.

        Args:
            path: The file, gzipped or not.
            largest: Read no more decompressed bytes than this; a longer file has no digest.
            afresh: Read it even if a stamp speaks for it.

        Raises:
            RuntimeFault: It can't be read, its gzip stream is damaged, or it is too long.
        """
        stamp_path = self._folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
        before = _stamp(path, "")
        if not afresh and before is not None:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                known = msgspec.json.decode(stamp_path.read_bytes(), type=_Stamp)
                if msgspec.structs.replace(known, sha256="") == before:
                    return known.sha256
        sha256 = content_digest(path, largest)
        after = _stamp(path, sha256)
        if before is not None and after == msgspec.structs.replace(before, sha256=sha256):
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                write_bytes(stamp_path, msgspec.json.encode(after))
        return sha256


def content_digest(path: Path, largest: int) -> str:
    """SHA-256 of a file's decompressed content, in hexadecimal.

    Args:
        path: The file, gzipped or not.
        largest: In bytes; a bomb is left after this many.

    Raises:
        RuntimeFault: It can't be read, its gzip stream is damaged, or it is longer than ``largest``.
    """
    from trainer.runtime.datasets.idx import open_content
    from trainer.runtime.faults import RuntimeFault

    digest, size = hashlib.sha256(), 0
    with open_content(path) as content:
        while chunk := content.read(_CHUNK):
            size += len(chunk)
            if size > largest:
                raise RuntimeFault(f"{path} has more than the expected {largest:,} bytes.")
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path, sha256: str) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino, sha256)
