"""Freed memory stays allocated for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import platform

import pytest
import torch

import caffe
from caffe.net import Net
from caffe.net.run.allocator import keep_freed_memory, large_blocks_apart
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept_where_the_c_library_is_glibc():
    assert keep_freed_memory()


NAME, VERSION = platform.libc_ver()[0], [int(part) for part in platform.libc_ver()[1].split(".") if part]


class Counts(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = (
        ("begin", ctypes.c_size_t * 4),
        ("apart", ctypes.c_size_t),  # hblkhd: bytes in blocks taken from the system one by one
        ("middle", ctypes.c_size_t * 3),
        ("free", ctypes.c_size_t),  # fordblks
        ("end", ctypes.c_size_t),
    )


def counts() -> Counts:
    call = ctypes.CDLL(None).mallinfo2
    call.restype = Counts
    found = call()
    assert isinstance(found, Counts)
    return found


@pytest.mark.skipif(NAME != "glibc" or VERSION < [2, 33], reason="no glibc that tells")
def test_large_blocks_are_allocated_separately_within_the_block():
    assert keep_freed_memory()
    before, size = counts().apart, counts().free + 2**23  # no freed block is large enough
    with large_blocks_apart():
        large = torch.empty(size, dtype=torch.uint8)
        assert counts().apart >= before + size
        small = torch.empty(2**10)
        assert counts().apart < before + size + 2**20
    del large, small
    assert counts().apart == before
    large = torch.empty(size, dtype=torch.uint8)
    assert counts().apart == before, "the former way again"
    assert len(large) == size


def test_only_the_first_pass_of_a_net_allocates_large_blocks_separately(monkeypatch):
    passes = []

    @contextlib.contextmanager
    def noted():
        passes.append("begun")
        yield
        passes.append("done")

    monkeypatch.setattr("caffe.net.run.module.large_blocks_apart", noted)
    net = Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TRAIN)
    net.forward_backward()
    net.forward_backward()
    assert passes == ["begun", "done"]
