"""Keeps memory that a step frees for the next step, instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import functools
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep freed blocks of any size; returns whether it took that. Nothing elsewhere.

    A training step allocates and frees the same large blocks each time. By default glibc returns them to the system,
    and every step pays for fresh pages. The price is that the process keeps its peak of memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
