"""Zeros that take no memory until they are written."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["zeros"]

_LARGE = 2**20


def zeros(shape: Sequence[int]) -> Tensor:
    """A float32 tensor of zeros. The system hands out a large one's pages one by one as they are first written.

    To touch memory for the first time takes several times as long as to write it again. What will be loaded from a file
    is thus touched once, and by all the threads that load it.
    """
    size = 4 * math.prod(shape)
    if size < _LARGE:
        return torch.zeros(tuple(shape))
    if sys.platform == "win32":
        memory = mmap.mmap(-1, size)
    else:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.float32).view(tuple(shape))
