"""Freed memory stays with the process instead of going back to the system.

glibc gives the large arrays of a step back as they are freed, and asks the system for the same memory in the next step:
thousands of page faults each time, and the system fills every page with zeros before. Kept, the same pages are used
again. Only glibc's allocator is told (mallopt(3)); where it is another, or the environment has settings for it
already, nothing is done.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import cast

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Blocks of this many bytes and more come from the system one by one, and go back to it.
LARGEST_BLOCK = 256 << 20
# The largest value that glibc takes before 2.35.
_OLD_LARGEST_BLOCK = 32 << 20
# Of free memory at the heap's end, as much as this stays.
KEPT = 1 << 30

_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep(_: object = None) -> bool:
    """Tell glibc to keep up to ``KEPT`` bytes of freed memory, of blocks below ``LARGEST_BLOCK`` bytes.

    Returns:
        Whether it was told.
    """
    if any(name in os.environ for name in _SETTINGS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # of no other library: their numbers may mean something else
        mallopt = cast("Callable[[int, int], int]", library.mallopt)
    except (AttributeError, OSError, TypeError):
        return False
    # The first of the two turns off that glibc moves both by itself.
    if not mallopt(_M_TRIM_THRESHOLD, KEPT):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_BLOCK) or mallopt(_M_MMAP_THRESHOLD, _OLD_LARGEST_BLOCK))
