"""Buffers are reused, but never while an array of the user still refers to one."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch

from caffe.data.pipeline import buffers


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_nobody_refers_to_it():
    first = buffers.empty((5, 3, 300, 301), np.float32)
    assert (first.shape, first.dtype, first.flags.writeable, first.flags.c_contiguous) == (
        (5, 3, 300, 301),
        np.float32,
        True,
        True,
    )
    place = address(first)
    second = buffers.empty(first.shape, np.float32)
    assert address(second) != place
    del first
    gc.collect()
    assert address(buffers.empty((5, 3, 300, 301), np.float32)) == place


def test_memory_is_kept_while_a_view_or_a_tensor_refers_to_it():
    shape = (7, 2, 300, 301)
    for view in (
        lambda array: array[3:5, :, ::2],
        lambda array: array.reshape(-1).view(np.uint8),
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[2].view(-1).detach(),
        memoryview,
    ):
        array = buffers.empty(shape, np.float32)
        array.fill(3)
        kept = view(array)
        place = address(array)
        del array
        gc.collect()
        others = [buffers.empty(shape, np.float32) for _ in range(12)]
        assert place not in [address(other) for other in others]
        del kept, others


def test_small_arrays_and_the_number_of_blocks_kept():
    assert buffers.empty((3, 5), np.uint8).base is None
    arrays = [buffers.empty(((1 << 20) + 7,), np.uint8) for _ in range(buffers._KEPT + 5)]
    del arrays
    gc.collect()
    assert len(buffers._UNUSED[(1 << 20) + 7]) == buffers._KEPT


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of a fork where there are threads
def test_memory_is_private_to_a_process():
    array = buffers.empty((3, 1 << 20), np.uint8)
    array.fill(5)
    child = os.fork()
    if child == 0:
        array.fill(7)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 5).all()
