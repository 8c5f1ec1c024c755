"""Traces: layers by name, forward and backward."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from caffe.errors import FileError
from caffe.net import Net
from caffe.net.measure.trace import trace
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 dim: 7 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "left" type: "InnerProduct" bottom: "conv" top: "left" inner_product_param { num_output: 3 } }
layer { name: "right" type: "InnerProduct" bottom: "conv" top: "right" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "left" bottom: "right" top: "loss" loss_weight: 2 }
"""


@pytest.fixture
def net():
    return Net(text.parse(NET, caffe_pb2.NetParameter()), caffe_pb2.TRAIN)


def ranges(path):
    """Return the named ranges of a trace in the order of their start, and its other events."""
    events = json.loads(path.read_text())["traceEvents"]
    named = sorted((event for event in events if event.get("cat") == "user_annotation"), key=lambda event: event["ts"])
    return named, [event for event in events if event.get("cat") == "cpu_op"]


def end(event):
    return event["ts"] + event["dur"]


def test_layers_are_ranges_in_both_directions(net, tmp_path, capfd):
    trace(net.module, net.forward_backward, tmp_path / "trace.json", steps=2)
    named, operators = ranges(tmp_path / "trace.json")
    forward = ["data", "conv", "relu", "left", "right", "loss"]
    backward = [f"{name} backward" for name in ("loss", "right", "left", "relu", "conv")]
    assert [event["name"] for event in named] == ["step 1", *forward, *backward, "step 2", *forward, *backward]
    inside = {
        "conv": "aten::convolution",
        "conv backward": "aten::convolution_backward",
        "relu backward": "ReluBackward0",
    }
    for name, operator in inside.items():
        found = [event for event in operators if event["name"] == operator]
        around = [event for event in named if event["name"] == name]
        assert len(found) == len(around) == 2
        for inner, outer in zip(found, around, strict=True):
            assert outer["ts"] <= inner["ts"] <= end(inner) <= end(outer)
            assert outer["tid"] == inner["tid"]
    layers = [event for event in named if "step" not in event["name"]]
    assert all(end(one) <= other["ts"] for one, other in pairwise(layers))
    nodes = [event for event in operators if event["name"].startswith("autograd::engine")]
    first = min(nodes, key=lambda event: event["ts"])  # the product with the loss weight, which belongs to no layer
    assert not any(layer["ts"] <= first["ts"] <= end(layer) for layer in layers)
    assert capfd.readouterr() == ("", "")


def test_evaluation_has_no_backward(net, tmp_path):
    trace(net.module, net.evaluate, tmp_path / "trace.json", steps=1)
    assert not any("backward" in event["name"] for event in ranges(tmp_path / "trace.json")[0])


def test_the_net_is_as_before(net, tmp_path):
    calls = net.module.plan.calls

    def fail():
        raise RuntimeError("in the run")

    with pytest.raises(RuntimeError, match="in the run"):
        trace(net.module, fail, tmp_path / "trace.json")
    assert net.module.plan.calls is calls
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(net, tmp_path):
    with pytest.raises(FileError, match=r"cannot write: there is no folder"):
        trace(net.module, net.evaluate, tmp_path / "none" / "trace.json", steps=1)
