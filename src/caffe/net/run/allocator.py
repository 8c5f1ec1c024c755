"""Keeps memory that a step frees for the next step, instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_freed_memory", "large_blocks_apart"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's mallopt
_LARGE = 2**20
_USUAL_MMAP_MAX = 65536


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


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Take large blocks from the system one by one meanwhile: for a net's first pass.

    What that pass makes and leaves for good (oneDNN's kernels, torch's and Python's caches) would come to lie between
    its large blocks, and part the memory that is kept into pieces too small for the next pass.
    """
    if not keep_freed_memory():
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
    try:
        yield
    finally:
        mallopt(_MMAP_MAX, 0)
