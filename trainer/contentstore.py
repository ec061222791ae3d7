"""Large files of snapshots, stored once: ``.trainer/store/<sha256>``, linked into every snapshot that holds them.

A link shares the file's bytes, so nothing may write through it: files here are read-only, a job works on a copy of its
snapshot, and a file is compared with its name again whenever it is linked. One that was changed all the same is
replaced, and its copies in older snapshots are found out when they are used (:func:`trainer.submission.resume`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

LEAST = 1 << 20
"""Files smaller than this, in bytes, are not worth a link."""
_CHUNK = 1 << 20


def link(store: Path, sha256: str, target: Path) -> bool:
    """Make ``target`` a link to the stored file, if it is there and sound.

    Args:
        store: The directory.
        sha256: The file's digest.
        target: Does not exist yet; its directory does.

    Returns:
        Whether it was made. False too where the file system has no such links.
    """
    stored = store / sha256
    try:
        target.hardlink_to(stored)
    except OSError:
        return False
    if _digest(target) == sha256:
        return True
    target.unlink()
    with contextlib.suppress(OSError):
        stored.unlink()
    return False


def add(store: Path, sha256: str, file: Path) -> None:
    """Store a file that was just written and digested, by a link to it, and make it read-only.

    Where that can't be done the file simply stays the only one.
    """
    with contextlib.suppress(OSError):
        store.mkdir(exist_ok=True)
        # By another name first: of two at once the later one replaces the earlier, which has the same bytes.
        temporary = Path(tempfile.mkdtemp(prefix=".add-", dir=store))
        try:
            file.chmod(0o444)
            (temporary / sha256).hardlink_to(file)
            (temporary / sha256).replace(store / sha256)
        finally:
            with contextlib.suppress(OSError):
                (temporary / sha256).unlink(missing_ok=True)
                temporary.rmdir()


def collect(store: Path) -> int:
    """Remove the files that no snapshot holds any more.

    Returns:
        Their bytes.
    """
    freed = 0
    try:
        entries = list(os.scandir(store))
    except OSError:
        return 0
    for entry in entries:
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            if entry.is_file(follow_symlinks=False) and status.st_nlink == 1:
                Path(entry.path).unlink()
                freed += status.st_size
    return freed


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
