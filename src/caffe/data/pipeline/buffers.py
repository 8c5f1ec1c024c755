"""Memory for batches that is used again: fresh pages from the system cost more than what is written into them."""

from __future__ import annotations

import mmap
import sys
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["empty"]

_LEAST = 1 << 20  # bytes below which numpy's own memory is as good
_KEPT = 8  # unused blocks that are kept, of each size
_UNUSED: defaultdict[int, deque[mmap.mmap]] = defaultdict(lambda: deque(maxlen=_KEPT))


def empty(shape: Sequence[int], kind: Any) -> np.ndarray:
    """As `np.empty`; when nothing refers to the array or a view of it any more, its memory is given out again."""
    kind = np.dtype(kind)
    size = int(np.prod(shape)) * kind.itemsize
    if size < _LEAST:
        return np.empty(shape, kind)
    try:
        block = _UNUSED[size].pop()
    except IndexError:
        block = _block(size)
    # Views of `whole` refer to it and not to the block, as numpy follows only arrays that are views of arrays.
    whole = np.frombuffer(block, kind)
    weakref.finalize(whole, _UNUSED[size].append, block).atexit = False
    return whole.reshape(tuple(shape))


def _block(size: int) -> mmap.mmap:
    """New memory, of this process alone."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
