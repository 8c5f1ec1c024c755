"""Unknown names and settings in pycaffe's API are errors, and every given setting has an effect."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.errors import CaffeError, NetError
from caffe.net.engines import Eager
from caffe.proto import caffe_pb2

TEXT = """
name: "n" force_backward: true
layer { name: "in" type: "Input" top: "data" top: "more"
  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 5 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "b" type: "TanH" bottom: "a" top: "b" }
layer { name: "c" type: "Eltwise" bottom: "b" bottom: "more" top: "c" }
layer { name: "sum" type: "Reduction" bottom: "c" top: "sum" loss_weight: 1 }
"""


def build(phase: int = caffe.TRAIN, **kwargs) -> caffe.Net:
    net = caffe.Net(text_format.Parse(TEXT, caffe_pb2.NetParameter()), phase, **kwargs)
    net.blobs["data"].data[...] = 1
    return net


class Plain(Eager):
    """Replaces a compiled net in tests, because compiling takes too long."""


@pytest.mark.parametrize("order", ["compile slim", "slim compile", "slim slim", "compile compile"])
def test_every_call_adds_to_the_blobs_that_a_step_fills(order, monkeypatch):
    monkeypatch.setattr("caffe.net.run.runners.Compiled", Plain)
    net, (first, second) = build(), order.split()
    getattr(net, first)(keep=["a"])
    getattr(net, second)(keep=["b"])
    assert isinstance(net.module.engine, Plain) == ("compile" in order)
    net.forward_backward()
    assert net.blobs["a"].data.shape == net.blobs["b"].data.shape == (2, 5)
    with pytest.raises(CaffeError, match="computed only what the outputs need"):
        _ = net.blobs["c"].data
    net.slim()
    net.forward_backward()
    assert net.blobs["b"].data.any()
    net.stepwise()
    net.forward_backward()
    assert net.blobs["c"].data.any()
    assert type(net.module.engine) is not Plain


def test_slim_after_compile_keeps_what_was_compiled(monkeypatch):
    monkeypatch.setattr("caffe.net.run.runners.Compiled", Plain)
    net = build()
    net.compile(keep=["a"])
    module = net.module
    net.slim(keep=["a"])
    assert net.module is module
    with pytest.raises(NetError, match='no blob "bb"'):
        net.slim(keep=["bb"])
    assert net.module is module


def test_optimize_keeps_what_it_was_told_before():
    net = build(caffe.TEST)
    net.optimize(keep=["a"])
    net.optimize(keep=["b"])
    net.forward()
    assert net.blobs["a"].data.any()
    assert net.blobs["b"].data.any()
    net.stepwise()
    net.optimize(keep=["b"])
    net.forward()
    with pytest.raises(CaffeError, match="computed only what the outputs need"):
        _ = net.blobs["a"].data


@pytest.mark.parametrize("how", ["", "slim"])
def test_inputs_of_the_module_must_be_inputs_of_the_net(how):
    net = build()
    if how:
        net.slim()
    module = net.module
    with pytest.raises(
        NetError, match=re.escape('net "n" has no input "dta"; did you mean "data"? (inputs: data, more)')
    ):
        module(dta=torch.ones(2, 3))
    with pytest.raises(NetError, match='no input "a"'):
        module(a=torch.ones(2, 5))
    for wrong in (torch.ones(2, 4), torch.ones(3), torch.ones(2, 3, 1), torch.ones(2, 1), np.ones((2, 3))):
        with pytest.raises(NetError, match=r'input "data" is .*; expected a tensor of shape \(2, 3\)'):
            module(data=wrong)
    with pytest.raises(NetError, match='value of input "more"'):
        module(more=torch.ones(2, 1))
    loss, _ = module(data=torch.ones(4, 3), more=torch.zeros(4, 5))
    assert loss.shape == ()


def test_a_run_that_ends_before_it_starts_is_refused():
    net = build()
    with pytest.raises(NetError, match=r'forward: start is layer "b" \(number 2\) and end is layer "a" \(number 1\)'):
        net.forward(start="b", end="a")
    with pytest.raises(NetError, match=r'backward: start is layer "a" \(number 1\) and end is layer "b" \(number 2\)'):
        net.backward(start="a", end="b")
    assert net.forward(start="a", end="a")["a"].shape == (2, 5)
    net.forward()
    assert "a" in net.backward(start="b", end="b")


def test_unknown_names_are_found_before_anything_runs():
    net, ran = build(), []
    net.before_forward(ran.append)
    net.before_backward(ran.append)
    before = net.blobs["data"].data.copy()
    inputs = {"data": np.zeros((2, 3)), "more": np.zeros((2, 5))}
    for names in ({"blobs": ["bb"]}, {"start": "bb"}, {"end": "bb"}, {"start": "b", "end": "a"}):
        with pytest.raises(NetError):
            net.forward(**names, **inputs)
    with pytest.raises(NetError, match=re.escape('name each; did you mean "data"?')):
        net.forward(dat=inputs["data"], more=inputs["more"])
    for names in ({"diffs": ["bb"]}, {"start": "bb"}, {"start": "a", "end": "b"}):
        with pytest.raises(NetError):
            net.backward(**names, sum=np.zeros(()))
    np.testing.assert_array_equal(net.blobs["data"].data, before)
    assert not ran


def test_runs_over_all_rows_need_rows():
    net = build()
    for call in (net.forward_all, net.forward_backward_all):
        with pytest.raises(NetError, match="was given no rows"):
            call()
        with pytest.raises(NetError, match="was given no rows"):
            call(data=np.zeros((0, 3)), more=np.zeros((0, 5)))


def test_settings_out_of_range_are_refused():
    with pytest.raises(NetError, match="phase is 7, expected"):
        build(7)
    with pytest.raises(CaffeError, match="phase is 7, expected"):
        caffe.draw.draw_net(text_format.Parse(TEXT, caffe_pb2.NetParameter()), "LR", "dot", phase=7)
    with pytest.raises(CaffeError, match=r"new_dims is \(2, 2, 3\); expected"):
        caffe.io.resize_image(np.zeros((4, 4, 3)), (2, 2, 3))


def test_one_stage_as_a_string_is_that_stage():
    import caffe.torch

    param = text_format.Parse(TEXT, caffe_pb2.NetParameter())
    param.layer.add(name="d", type="TanH", bottom=["c"], top=["d"]).include.add(stage=["deploy"])
    assert caffe.torch.load(param, stages="deploy").outputs[0] == "d"
