"""Copies of files that share their blocks where the file system can do that, as Btrfs, XFS and ZFS can.

A clone takes no time and no space, and what is written to one of the two is not seen in the other. Hard links would
be as cheap, but a job that writes into a file of its working directory would change the snapshot that its record
vouches for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import IO

# <linux/fs.h>: _IOW(0x94, 9, int)
_FICLONE = 0x40049409


def clone(source: IO[bytes], target: IO[bytes]) -> bool:
    """Make ``target``, an empty file, share the blocks of ``source``.

    Returns:
        Whether it does; if not, ``target`` is as it was.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:  # another file system, or one that can't
        return False
    return True


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Copy a file with its permissions and times; a clone where that is possible. For ``shutil.copytree``.

    Raises:
        OSError: It can't be read or written.
    """
    with Path(source).open("rb") as read, Path(target).open("wb") as write:
        cloned = clone(read, write)
    if cloned:
        shutil.copystat(source, target)
        return target
    return shutil.copy2(source, target)  # within the kernel, too
