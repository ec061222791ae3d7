"""Copies of files that share their blocks where the file system can do that, as Btrfs, XFS and ZFS can.

A clone takes no time and no space, and what is written to one of the two is not seen in the other. Hard links would
be as cheap, but a job that writes into a file of its working directory would change the snapshot that its record
vouches for.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
from typing import IO

# <linux/fs.h>: _IOW(0x94, 9, int)
_FICLONE = 0x40049409
_CHUNK = 1 << 20


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


def copy_writable(source: str, target: str) -> str:
    """Copy a file with its times and permissions, and let its owner write to it. For ``shutil.copytree``.

    It is a clone where that is possible.

    Raises:
        OSError: It can't be read or written.
    """
    # A run's snapshot is a hundred small files: without buffers, each takes half as long.
    with open(source, "rb", buffering=0) as read, open(target, "wb") as write:  # noqa: PTH123
        if not clone(read, write):
            shutil.copyfileobj(read, write, _CHUNK)
            write.flush()
        status = os.fstat(read.fileno())
        os.fchmod(write.fileno(), stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
        os.utime(write.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return target
