"""Locks between processes, which the kernel frees when their holder dies, however it dies.

They are advisory ``flock(2)`` locks on a file or a directory. Every call opens the path anew, so the threads of one
process exclude each other as well. Nothing here tells a living holder on another machine from a dead one: a run
belongs to one machine (:mod:`trainer.host`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import NoLocksError

# What file systems answer that have no locks, or whose lock service is away.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_LOOK_SECONDS = 0.001


@contextmanager
def locked(path: Path, *, blocking: bool = True, create: bool = True) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: The file that is locked. It stays when the lock is freed.
        blocking: Wait until it is free.
        create: Make the file if it is missing. If false, ``path`` may also be a directory.

    Raises:
        BlockingIOError: It is held, and ``blocking`` is false.
        NoLocksError: The file system has no locks.
        OSError: The file can't be opened or made.
    """
    # Writable, for file systems that allow no exclusive lock on a file that is open for reading alone.
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        if blocking:
            _flock(descriptor, fcntl.LOCK_EX, path)
        else:
            _take_at_once(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process on this machine holds a lock. A path that doesn't exist is not locked.

    Raises:
        NoLocksError: The file system has no locks.
        OSError: The file can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once don't take each other for the holder.
        _flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take_at_once(descriptor: int, path: Path) -> None:
    """Take a lock that nobody holds; whoever just looks (:func:`is_locked`) has it for a moment, and is waited for.

    Raises:
        BlockingIOError: Another holds it.
    """
    while True:
        with suppress(BlockingIOError):
            _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            return
        # A holder's lock is exclusive, and keeps this one out; a look's is shared, as this one.
        _flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
        _flock(descriptor, fcntl.LOCK_UN, path)
        time.sleep(_LOOK_SECONDS)


def _flock(descriptor: int, operation: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NoLocksError(path, os.strerror(error.errno)) from error
        raise
