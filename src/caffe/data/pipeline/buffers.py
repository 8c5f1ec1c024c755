"""Reuses the memory of batches. Writing to freshly allocated pages is slower than writing to memory used before."""

from __future__ import annotations

import mmap
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

__all__ = ["empty", "scratch"]

_LEAST = 1 << 20  # bytes; smaller arrays use numpy's allocator
_OWN = threading.local()
_KEPT = 8  # number of unused blocks that are kept per size
_UNUSED: defaultdict[int, deque[mmap.mmap]] = defaultdict(lambda: deque(maxlen=_KEPT))


def empty(shape: Sequence[int], kind: Any) -> np.ndarray:
    """Like `np.empty`. When the last reference to the array and its views is gone, its memory is reused."""
    kind = np.dtype(kind)
    size = int(np.prod(shape)) * kind.itemsize
    if size < _LEAST:
        return np.empty(shape, kind)
    try:
        block = _UNUSED[size].pop()
    except IndexError:
        block = _block(size)
    # Views refer to `whole` and not to the block, because numpy follows a view's base only through arrays.
    whole = np.frombuffer(block, kind)
    weakref.finalize(whole, _UNUSED[size].append, block).atexit = False
    return whole.reshape(tuple(shape))


def scratch(shape: Sequence[int]) -> np.ndarray:
    """Return this thread's temporary array of bytes. The next call overwrites it."""
    size = int(np.prod(shape))
    held: np.ndarray | None = getattr(_OWN, "held", None)
    if held is None or len(held) < size:
        held = _OWN.held = np.empty(size, np.uint8)
    return held[:size].reshape(tuple(shape))


def _block(size: int) -> mmap.mmap:
    """Allocate new memory that is private to this process."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        with suppress(OSError):  # a kernel without huge pages refuses
            block.madvise(mmap.MADV_HUGEPAGE)
    return block
