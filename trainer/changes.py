"""Waiting for a run's record to change, by inotify(7) where the system has it and by the clock elsewhere.

A record is replaced by a rename, which the kernel tells at once; a folder on another machine's disk, say, tells
nothing, and whoever waits looks again when the time is over.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from pathlib import Path

# <sys/inotify.h>
_IN_MOVED_TO = 0x80
_IN_ONLYDIR = 0x01000000
_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000
# struct inotify_event: watch descriptor, mask, cookie, length of the name that follows.
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


class Changes:
    """Tells when a file of a folder is replaced.

    Args:
        folder: The folder; it may be gone.
        name: The file's name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._name = os.fsencode(name)
        self._descriptor = _watch(folder)

    def wait(self, seconds: float) -> bool:
        """Wait until the file is replaced, or was since the last call; say whether it was within that time."""
        seconds = max(seconds, 0.0)
        deadline = time.monotonic() + seconds
        while self._descriptor is not None:
            left = deadline - time.monotonic()
            if not select.select([self._descriptor], [], [], max(left, 0.0))[0]:
                return False
            if self._replaced():
                return True
            if left <= 0:
                return False
        time.sleep(seconds)
        return False

    def close(self) -> None:
        """Stop watching; waiting is by the clock from now on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Changes:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def _replaced(self) -> bool:
        assert self._descriptor is not None
        try:
            events = os.read(self._descriptor, _BUFFER)
        except OSError:
            self.close()
            return False
        found, at = False, 0
        while at < len(events):
            mask, _, length = _EVENT.unpack_from(events, at)[1:]
            at += _EVENT.size + length
            found |= bool(mask & _IN_MOVED_TO) and events[at - length : at].rstrip(b"\0") == self._name
        return found


def _watch(folder: Path) -> int | None:
    """Return a descriptor that gets the folder's renames; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    descriptor: int = library.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if descriptor < 0:  # a user has 128 of them
        return None
    if library.inotify_add_watch(descriptor, os.fsencode(folder), _IN_MOVED_TO | _IN_ONLYDIR) < 0:
        os.close(descriptor)
        return None
    return descriptor
