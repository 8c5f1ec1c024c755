"""Loss weights of blobs that other layers read: loss and gradient are as in real Caffe, in every way to run a net.

A blob's diff starts as its loss weight, and the backward pass of a layer that reads the blob overwrites it. The
expected numbers are those of BVLC Caffe 1.0 in the first iteration. Comments describe the differences.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
import caffe.torch
from caffe.proto import caffe_pb2, text
from tests.net.test_compiled import needs_compiler
from tests.net.test_cudagraph import Tape

HEAD = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 1 } shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 bias_term: false weight_filler { value: 0.3 } } }
"""
X, T = [[1.0], [2.0]], [[0.1], [0.2]]


def loss(name: str, more: str = "", of: str = "y") -> str:
    return f'layer {{ name: "{name}_loss" type: "EuclideanLoss" bottom: "{of}" bottom: "t" top: "{name}" {more} }}\n'


def power(bottom: str, top: str, scale: float, more: str = "") -> str:
    ends = f'bottom: "{bottom}" top: "{top}"'
    return f'layer {{ name: "{top}_of" type: "Power" {ends} power_param {{ scale: {scale} }} {more} }}\n'


def tanh(name: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "TanH" bottom: "l" top: "l" {more} }}\n'


ONE, L = "loss_weight: 1", loss("l")
SUM = 'layer { name: "s" type: "Eltwise" bottom: "l1" bottom: "l2" top: "s" loss_weight: 1 MORE }\n'
SILENCE = 'layer { name: "z" type: "Silence" bottom: "l" }\n'
CASES = {  # layers, the loss, the gradient of ip's weight
    "plain": (L, 0.05, 0.5),
    "a sum of two": (loss("l1") + loss("l2") + SUM.replace("MORE", ""), 0.2, 1),
    "one of the two cut off": (
        loss("l1") + loss("l2") + SUM.replace("MORE", "propagate_down: true propagate_down: false"), 0.2, 0.5,
    ),
    "read": (L + power("l", "p", 3, ONE), 0.2, 1.5),
    "read by a layer without weight": (L + power("l", "p", 3), 0.05, 0),
    "read without propagation": (L + power("l", "p", 3, ONE + " propagate_down: false"), 0.2, 0),
    "read by Silence": (L + SILENCE, 0.05, 0),
    "chain of three": (L + power("l", "p", 3, ONE) + power("p", "q", 5, ONE), 0.95, 9),
    "chain of three, weights at its ends": (L + power("l", "p", 3) + power("p", "q", 5, ONE), 0.8, 7.5),
    "two readers": (L + power("l", "p", 3, ONE) + power("l", "q", 5, ONE), 0.45, 4),
    "two readers, one without weight": (L + power("l", "p", 3, ONE) + power("l", "q", 5), 0.2, 1.5),
    "twice in one sum": (L + SUM.replace("MORE", "").replace("l1", "l").replace("l2", "l"), 0.15, 1),
    "weight 0 written, and read": (loss("l", "loss_weight: 0") + power("l", "p", 3, ONE), 0.15, 1.5),
    # if a loss has an explicit weight and its blob has readers, Caffe adds the value once more, with weight 1
    "weight written, and read": (loss("l", ONE) + power("l", "p", 3, ONE), 0.25 - 0.05, 2),
    "weight 2 written, and read": (loss("l", "loss_weight: 2") + power("l", "p", 3, ONE), 0.3 - 0.05, 2.5),
    "weight written, read without propagation": (
        loss("l", ONE) + power("l", "p", 3, ONE + " propagate_down: false"), 0.25 - 0.05, 0.5,
    ),
    "weight written, and Silence": (loss("l", ONE) + SILENCE, 0.1 - 0.05, 0.5),
    "on a layer that is no loss": (power("y", "v", 1, "loss_weight: 2") + loss("l", of="v"), 1.85, 6.5),
    "in place": (L + tanh("tanh"), 0.05, 0),
    "in place, with a weight": (L + tanh("tanh", "loss_weight: 2"), 0.199917, 0.997506),
    "in place twice": (L + tanh("one") + tanh("two", "loss_weight: 2"), 0.199834, 0.995025),
    "in place, and read": (L + tanh("tanh") + power("l", "q", 5, ONE), 0.299792, 2.49377),
    "in place, and read twice": (
        L + tanh("tanh") + power("l", "q", 5, ONE) + power("l", "r", 7, ONE), 0.649501, 5.98504,
    ),
    "beside Accuracy": (
        L + 'layer { name: "a" type: "Accuracy" bottom: "y" bottom: "t" top: "a" }\n', 0.05, 0.5,
    ),
    "forced: without weight": ("force: " + L + power("l", "p", 3), 0.05, 0),
    "forced: without propagation": ("force: " + L + power("l", "p", 3, ONE + " propagate_down: false"), 0.2, 1.5),
    "forced: Silence": ("force: " + L + SILENCE, 0.05, 0),
    "forced: in place": ("force: " + L + tanh("tanh"), 0.05, 0.498753),
}  # fmt: skip
each = pytest.mark.parametrize(("layers", "value", "slope"), CASES.values(), ids=CASES)


def proto(layers: str) -> caffe_pb2.NetParameter:
    forced = layers.startswith("force: ")
    param = text.parse(HEAD + layers.removeprefix("force: "), caffe_pb2.NetParameter())
    param.force_backward = forced
    return param


def net_of(layers: str, **options) -> caffe.Net:
    net = caffe.Net(proto(layers), caffe.TRAIN, **options)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    return net


def check(net: caffe.Net, value: float, slope: float, rel: float = 1e-4) -> None:
    for run in range(3):
        net.clear_param_diffs()
        assert net.forward_backward() == pytest.approx(value, rel=rel), run
        assert net.params["ip"][0].diff[0, 0] == pytest.approx(slope, rel=rel), run


@each
def test_layer_by_layer(layers, value, slope):
    net = net_of(layers)
    assert net.forward_loss() == pytest.approx(value, rel=1e-4)
    net.backward()
    assert net.params["ip"][0].diff[0, 0] == pytest.approx(slope, rel=1e-4)


@each
def test_as_one_piece(layers, value, slope):
    check(net_of(layers), value, slope)


@each
def test_slim(layers, value, slope):
    net = net_of(layers)
    net.slim()
    check(net, value, slope)


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.long
def test_compiled():
    layers, value, slope = CASES["in place, and read"]
    net = net_of(layers)
    net.compile()
    check(net, value, slope)


@each
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_in_16_bits(layers, value, slope, precision, monkeypatch):
    monkeypatch.setattr("caffe.net.net.check_precision", lambda *_: None)  # the CPU stands in for the GPU
    net = net_of(layers, precision=precision)
    if net.loss_scale is not None:
        net.loss_scale.value = 1024  # with this scale, the largest gradient is still in the range of float16
    check(net, value, slope, rel=0.02)


@each
def test_recorded(layers, value, slope, monkeypatch):
    monkeypatch.setattr("caffe.net.run.module.recorded", lambda device: True)
    net, tape = net_of(layers), Tape()
    tape.module = net.module
    net.module.record_on(net.device, tape)
    check(net, value, slope)
    check(net, value, slope)
    assert tape.replays == 3


@each
def test_a_solver_adds_up(layers, value, slope):
    param = caffe_pb2.SolverParameter(
        base_lr=0.1, lr_policy="fixed", iter_size=3, snapshot_after_train=False, net_param=proto(layers)
    )
    solver = caffe.get_solver(param)
    solver.net.blobs["x"].data[...], solver.net.blobs["t"].data[...] = X, T
    solver.step(1)
    assert solver.net.params["ip"][0].data[0, 0] == pytest.approx(0.3 - 0.1 * slope, rel=1e-4)


@each
def test_the_module_of_pytorch(layers, value, slope):
    if layers.startswith("force: "):
        pytest.skip("force_backward is for blobs' diffs, of which a module has none")
    module = caffe.torch.Module(net_of(layers))
    total = module.total_loss(module(torch.tensor(X), torch.tensor(T)))
    assert total.item() == pytest.approx(value, rel=1e-4)
    if total.requires_grad:
        total.backward()
    grad = module.ip.weight.grad
    assert (0.0 if grad is None else grad.item()) == pytest.approx(slope, rel=1e-4)


def test_the_gradient_reaches_what_module_forward_is_given():
    net = net_of(CASES["read"][0])
    total, blobs = net.module(x=torch.tensor(X), t=torch.tensor(T))
    (grad,) = torch.autograd.grad(total, net.layer_dict["ip"].weight)
    assert (total.item(), grad.item()) == pytest.approx((0.2, 1.5))
    assert set(blobs) == {"x", "t", "y", "l", "p"}


def test_unnamed_losses_count_in_the_module_of_pytorch():
    unnamed = 'layer { name: "%s" type: "EuclideanLoss" bottom: "y" bottom: "t" }\n'
    module = caffe.torch.Module(net_of(unnamed % "one" + unnamed % "two"))
    total = module.total_loss(module(torch.tensor(X), torch.tensor(T)))
    total.backward()
    assert (total.item(), module.ip.weight.grad.item()) == pytest.approx((0.1, 1))


def test_unnamed_losses_all_count_as_one_piece():
    unnamed = 'layer { name: "%s" type: "EuclideanLoss" bottom: "y" bottom: "t" }\n'
    check(net_of(unnamed % "one" + unnamed % "two"), 0.1, 1)


def test_the_loss_keeps_its_exact_value():
    net = net_of(CASES["chain of three"][0])
    np.testing.assert_equal(net.forward_backward(), net.evaluate())
