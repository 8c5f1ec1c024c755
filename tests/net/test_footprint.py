"""Peak memory of a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe.errors import CaffeError
from caffe.net import Net
from caffe.net.measure.footprint import Footprint, footprint, held
from caffe.net.run.allocator import keep_freed_memory
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 5 dim: 7 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }
layer { name: "flat" type: "Flatten" bottom: "b" top: "flat" }
layer { name: "sum" type: "Reduction" bottom: "flat" top: "sum" loss_weight: 1 }
"""
MB = 1 << 20


@pytest.fixture
def net():
    return Net(text.parse(NET, caffe_pb2.NetParameter()), caffe_pb2.TRAIN)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot reset the peak")
def test_the_peak_is_that_of_the_run(net):
    keep_freed_memory()
    np.ones(100 * MB, np.int8).sum()  # an earlier, higher peak, and memory that stays allocated: neither must count

    def run():
        np.ones(40 * MB, np.int8).sum()

    found = footprint(net, run)
    assert 36 * MB < found.peak - found.before < 70 * MB
    assert found.source.startswith("resident memory, VmHWM")


def test_where_the_peak_cannot_be_reset_it_is_the_process_s(net, monkeypatch):
    def refuse(self, content):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    runs = []
    found = footprint(net, lambda: runs.append(1))
    assert found.before is None
    assert found.peak > 50 * MB
    assert "since the process began" in found.source
    assert len(runs) == 3


def test_systems_that_report_no_memory(net, monkeypatch):
    monkeypatch.setattr("caffe.net.measure.footprint.resource", None)
    monkeypatch.setattr("caffe.net.measure.footprint._status", lambda name: {}[name])
    assert footprint(net, net.forward_backward) == Footprint(None, None, "")


def test_on_a_gpu_it_is_what_torch_has_given_out(net, monkeypatch):
    calls = []
    for name, value in (("reset_peak_memory_stats", None), ("memory_allocated", 7), ("max_memory_allocated", 11)):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name, value=value: (calls.append(name), value)[1])
    net.device = torch.device("cuda", 0)
    assert footprint(net, lambda: calls.append("run")) == Footprint(11, 7, "torch.cuda.max_memory_allocated")
    assert calls == ["run", "reset_peak_memory_stats", "memory_allocated", "run", "run", "max_memory_allocated"]


def test_gradients_of_blobs_are_given_back(net):
    net.forward()
    net.backward()
    diff = net.blobs["a"].diff.copy()
    footprint(net, lambda: None)
    with pytest.raises(CaffeError, match="its diff was freed"):
        _ = net.blobs["a"].diff
    net.clear_param_diffs()
    net.forward()
    net.backward()
    np.testing.assert_array_equal(net.blobs["a"].diff, diff)


def test_what_a_net_holds(net):
    net.clear_param_diffs()
    count = (3 * 7 + 3) + (2 * 3 + 2)
    assert held(net)["their gradients"] == 0
    net.forward_backward()
    assert held(net) == {
        "parameters": 4 * count,
        "their gradients": 4 * count,
        "blobs": 4 * (35 + 15 + 10 + 1),  # "flat" is a view of "b"
    }
