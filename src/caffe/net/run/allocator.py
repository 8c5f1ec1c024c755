"""Keeps freed memory in the process for the next step, instead of returning it to the system."""

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
    """Make glibc's allocator keep freed blocks of any size. Returns False if it does not support this.

    A training step allocates and frees the same large blocks each time. By default glibc returns them to the system,
    and every step must map new pages, which is slow. The cost is that the process never shrinks below its peak memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """A context, for a net's first pass, in which large blocks are allocated from the system separately.

    The first pass creates permanent objects (oneDNN's kernels, caches of torch and Python). Between large blocks, they
    would fragment the kept memory into pieces that are too small for the next pass.
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
