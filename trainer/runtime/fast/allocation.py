"""Keeps freed memory in the process, for the next batch's arrays of the same sizes.

glibc gives arrays above a threshold back to the operating system as soon as they are freed, and takes
them from it again for the next batch; each page is then zeroed and mapped anew. For a convolutional
network that is a quarter of the time. Both thresholds are documented in mallopt(3).
"""

from __future__ import annotations

import ctypes
import os

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# The largest that glibc accepts on 64-bit machines: DEFAULT_MMAP_THRESHOLD_MAX.
_LARGEST_MMAP_THRESHOLD = 4 * 1024 * 1024 * ctypes.sizeof(ctypes.c_long)
_KEPT = 1 << 30
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Raises both thresholds, unless the user has set some or the C library is another one.

    Returns:
        Whether they were raised.
    """
    if any(os.environ.get(name) for name in _USERS_OWN):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    )
