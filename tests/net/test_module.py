"""A run of the whole net gives the same results as a run layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffe.errors import CaffeError
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.solver.rules import Update, rule_class
from tests.devices import OneDevice, fake_cuda

BRANCHED = """
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 5 dim: 3 dim: 7 dim: 7 } shape { dim: 5 } } }
layer { name: "conv.a" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 } param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "left" type: "InnerProduct" bottom: "c" top: "l"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } param { name: "w" } }
layer { name: "right" type: "InnerProduct" bottom: "c" top: "r" propagate_down: false
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } param { name: "w" } }
layer { name: "tanh" type: "TanH" bottom: "l" top: "l" }
layer { name: "sum" type: "Eltwise" bottom: "l" bottom: "r" top: "s" }
layer { name: "side" type: "Power" bottom: "s" top: "p" power_param { scale: 0.5 } loss_weight: 0.25 }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "t" top: "loss" loss_weight: 2 }
layer { name: "accuracy" type: "Accuracy" bottom: "s" bottom: "t" top: "accuracy" }
"""


def parse(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    net = Net(parse(BRANCHED), caffe_pb2.TRAIN)
    rng = np.random.default_rng(5)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = rng.integers(0, 6, 5)
    return net


def test_one_piece_equals_layer_by_layer(net):
    loss = net.forward_loss()
    net.backward()
    data = {name: blob.data.copy() for name, blob in net.blobs.items()}
    grads = [entry.tensor.grad.clone() if entry.tensor.grad is not None else None for entry in net.learnable]
    net.clear_param_diffs()

    assert net.forward_backward() == pytest.approx(loss, rel=1e-6)
    for name, blob in net.blobs.items():
        np.testing.assert_allclose(blob.data, data[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for entry, grad in zip(net.learnable, grads, strict=True):
        if grad is not None:
            np.testing.assert_allclose(entry.tensor.grad, grad, rtol=1e-4, atol=1e-6, err_msg=entry.layer)
    assert net.evaluate() == pytest.approx(loss, rel=1e-6)


def test_frozen_parameters_get_no_gradient(net):
    net.forward_backward()
    frozen = next(entry for entry in net.learnable if entry.layer == "conv.a" and entry.index == 1)
    assert frozen.lr_mult == 0
    assert frozen.tensor.grad is None or not frozen.tensor.grad.any()


def test_diff_that_was_not_kept_is_an_error_not_a_stale_value(net):
    net.forward_loss()
    net.backward()
    assert net.blobs["c"].diff.any()
    net.forward_backward()
    with pytest.raises(CaffeError, match="keep_diffs"):
        _ = net.blobs["c"].diff
    net.keep_diffs = True
    net.forward_backward()
    assert net.blobs["c"].diff.any()


def test_backward_after_a_run_in_one_piece_asks_for_a_forward(net):
    net.forward_backward()
    with pytest.raises(CaffeError, match=r"net\.forward"):
        net.backward()
    net.forward()
    net.backward()
    assert net.blobs["l"].diff.any()


@pytest.mark.parametrize("name", ["evaluate", "plan", "forward", "training", "name"])
def test_a_layer_may_have_the_name_of_an_attribute(name):
    net = Net(parse(BRANCHED.replace('name: "tanh"', f'name: "{name}"')), caffe_pb2.TRAIN)
    assert np.isfinite(net.forward_backward())
    assert net.evaluate() is not None


def test_module_has_the_layers_as_submodules(net):
    names = dict(net.module.named_parameters())
    assert {"conv_a.weight", "conv_a.bias", "left.weight", "left.bias", "right.bias"} == set(names)
    assert names["left.weight"] is net.module.right.weight


def test_module_takes_tensors_and_differentiates(net):
    x = torch.randn(net.blobs["x"].shape, requires_grad=True)
    loss, values = net.module(x=x, t=torch.zeros(5))
    assert loss.requires_grad
    assert values["s"].shape == (5, 6)


def test_held_view_shows_the_next_run(net):
    net.forward()
    view = net.blobs["s"].data
    before = view.copy()
    net.blobs["x"].data[...] *= -1
    net.forward()
    assert net.blobs["s"].data is view
    assert not np.allclose(view, before)


def test_edited_parameter_takes_effect(net):
    net.forward()
    net.params["left"][0].data[...] = 0
    net.params["left"][1].data[...] = 0
    net.params["right"][1].data[...] = 2
    net.forward()
    np.testing.assert_allclose(net.blobs["s"].data, 2)


def test_training_step_on_another_device_mixes_no_devices():
    with OneDevice():
        net = Net(parse(BRANCHED), caffe_pb2.TRAIN, device="meta")
        loss, values = net.module()
        loss.backward()
    assert {value.device.type for value in [loss, *values.values()]} == {"meta"}
    trained = [entry.tensor for entry in net.learnable if entry.tensor.requires_grad]
    assert {tensor.grad.device.type for tensor in trained} == {"meta"}


def test_forward_and_update_on_a_fake_gpu(net, monkeypatch):
    module, state = net.module, {name: x.shape for name, x in net.module.named_parameters()}
    with fake_cuda():
        there = {name: torch.empty(shape, device="cuda") for name, shape in state.items()}
        given = {name: torch.empty(net.blobs[name].shape, device="cuda") for name in net.inputs}
        loss, values = torch.func.functional_call(module, there, (), given)
        assert {value.device.type for value in [loss, *values.values()]} == {"cuda"}
        assert {name: value.shape for name, value in values.items()} == {n: net.blobs[n].shape for n in values}
        for kind in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
            rule = rule_class(kind)(caffe_pb2.SolverParameter(momentum=0.9 if kind in ("SGD", "Adam") else 0))
            updates = [
                Update(x, torch.empty_like(x), [torch.empty_like(x) for _ in range(rule.history)], 0.1, 0.01)
                for x in there.values()
            ]
            monkeypatch.setattr(type(rule), "kernel", None)  # torch's kernels do not accept fake tensors
            rule.apply(updates, 1, 0.5)


def test_options_of_another_type_are_warned_of(caplog):
    stray = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    stray += 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" relu_param { } pooling_param { kernel_size: 3 } }'
    with caplog.at_level("WARNING", "caffe"):
        Net(parse(stray), caffe_pb2.TEST)
        Net(parse(BRANCHED), caffe_pb2.TRAIN)
    assert caplog.messages == ['layer "r" (ReLU): pooling_param has no effect on this type']
