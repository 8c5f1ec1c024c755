"""Zeros that use no memory until they are written."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from caffe import lazy_zeros

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the resident memory of the process in bytes."""
    return int(STATM.read_text().split()[1]) * 4096


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (3, 1000, 1001)])
def test_are_zeros_like_any_other(shape):
    x = lazy_zeros.zeros(shape)
    assert (x.shape, x.dtype, x.is_contiguous(), x.data_ptr() % 64) == (shape, torch.float32, True, 0)
    assert not x.any()
    x.add_(2)
    assert (copy.deepcopy(x) == 2).all()
    assert (x.numpy() == 2).all()


@pytest.mark.skipif(not STATM.exists(), reason="the system does not report the memory of a process")
def test_take_memory_when_they_are_written():
    before, size = resident(), 2**26
    x = lazy_zeros.zeros((size // 4,))
    assert resident() - before < size / 4
    x.fill_(1)
    assert resident() - before > size / 2
    del x
    assert resident() - before < size / 4
