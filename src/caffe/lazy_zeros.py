"""Zeros that use no memory until they are written."""

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
    """A float32 tensor of zeros. For a large tensor, the system allocates each page at the first write to it.

    The first write to newly allocated memory is several times slower than later writes. Weights that will be loaded
    from a file are therefore written only once, by all loading threads.
    """
    size = 4 * math.prod(shape)
    if size < _LARGE:
        return torch.zeros(tuple(shape))
    if sys.platform == "win32":
        memory = mmap.mmap(-1, size)
    else:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.float32).view(tuple(shape))
