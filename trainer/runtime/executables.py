"""Give the job's files back the permission to be executed, which SDK v2's upload takes from them.

A snapshot names its executable files in :data:`trainer.runtime.layout.EXECUTABLES_FILE`, a list of paths in JSON.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath

from trainer.runtime import layout

_LARGEST = 8 << 20


def restore() -> None:
    """Let the files that the snapshot names be executed by whoever may read them; nothing else is touched."""
    job = layout.job_dir()
    if job is None:
        return
    manifest = job / layout.EXECUTABLES_FILE
    with suppress(OSError, ValueError, RecursionError):
        if manifest.stat().st_size <= _LARGEST:
            found = json.loads(manifest.read_bytes())
            for name in found if isinstance(found, list) else ():
                if isinstance(name, str):
                    _allow(job.parent, name)


def _allow(top: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return
    with suppress(OSError):
        # Neither the file nor a folder above it may be a link to elsewhere.
        if (top / path).resolve() != top.resolve() / path:
            return
        descriptor = os.open(top / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode) and not mode & 0o100:
                os.fchmod(descriptor, stat.S_IMODE(mode) | (mode & 0o444) >> 2)
        finally:
            os.close(descriptor)
