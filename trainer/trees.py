"""Directories from anyone's hand: removed and listed whatever is in them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, however deep it is nested and whatever permissions it has.

    Links are removed, never followed.

    Raises:
        OSError: Something can't be removed.
    """
    if not os.path.lexists(path):
        return
    with suppress(OSError, RecursionError):
        shutil.rmtree(path)
        return
    # A path has at most 4,096 bytes, and rmtree an open file per level: pull every directory up to the top instead.
    count = 0
    path.chmod(0o700)
    waiting = [path]
    while waiting:
        directory = waiting.pop()
        directory.chmod(0o700)
        for entry in list(os.scandir(directory)):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108  # entry.path may hold bytes that are no UTF-8
                continue
            count += 1
            raised = path / f".removing-{count}"
            while os.path.lexists(raised):
                count += 1
                raised = path / f".removing-{count}"
            with suppress(OSError):
                os.chmod(entry.path, 0o700)  # noqa: PTH101  # moving a directory writes to it: its ".." changes
            os.rename(entry.path, raised)  # noqa: PTH104
            waiting.append(raised)
        if directory != path:
            directory.rmdir()
    path.rmdir()


def walk(top: Path, problem: Callable[[str, OSError], None] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yield every entry below a directory, each directory before what is in it; links are not followed.

    Args:
        top: The directory.
        problem: Called with the path of a directory that can't be read, as where a path becomes too long.
    """
    waiting = [str(top)]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if problem is not None:
                problem(directory, error)
            continue
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def open_up(top: Path) -> None:
    """Give this process back the permissions that it needs to read and empty its own directories."""

    def chmod(path: str) -> None:
        with suppress(OSError):
            os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) | stat.S_IRWXU)  # noqa: PTH101

    chmod(str(top))
    for entry in walk(top):
        if entry.is_dir(follow_symlinks=False):
            chmod(entry.path)


def described(path: str | Path) -> str:
    """Return a path as text that any record can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
