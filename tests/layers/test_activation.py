"""Activations: constants, boundary values, and invalid options."""

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.build import apply, assert_rejected, build


@pytest.mark.parametrize(
    ("options", "value"), [("power: 3 shift: 2 scale: 0", 8), ("power: 0 shift: -2 scale: 3", 1), ("power: 0", 1)]
)
def test_power_with_scale_or_power_zero_is_a_constant_with_gradient_zero(options, value):
    x = torch.tensor([-1.0, 0, np.inf], dtype=torch.float64, requires_grad=True)
    y = apply("Power", f"power_param {{ {options} }}", x)
    assert y.tolist() == [value] * 3
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("type_name", "options", "expected"),
    [
        ("ReLU", "", [1, 0, 0]),
        ("ReLU", "relu_param { negative_slope: 0.5 }", [1, 0.5, 0.5]),
        ("ELU", "elu_param { alpha: 0.5 }", [1, 0.5, 0.5 * np.exp(-2)]),
        ("AbsVal", "", [1, 0, -1]),
        ("Clip", "clip_param { min: -2 max: 0 }", [0, 1, 1]),
    ],
)
def test_gradient_at_zero_is_that_of_the_negative_side(type_name, options, expected):
    x = torch.tensor([3.0, 0, -2], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(apply(type_name, options, x).sum(), x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6)


def test_prelu_slopes_start_at_a_quarter_and_count_at_zero():
    layer = build("PReLU", "", (3, 2))
    assert layer.weight.shape == (2,)
    x = torch.tensor([[1.0, 0], [-2, 3], [0, -5]], dtype=torch.float64, requires_grad=True)
    dx, dw = torch.autograd.grad(layer(x).sum(), [x, layer.weight])
    a, b = layer.weight.tolist()
    assert dx.tolist() == [[1, b], [a, 1], [a, b]]
    assert dw.tolist() == [-2, -5]
    from caffe.layers import layer_class
    from caffe.proto import caffe_pb2

    fresh = layer_class("PReLU")(caffe_pb2.LayerParameter(name="p", type="PReLU", bottom=["x"], top=["y"]))
    fresh.setup(torch.empty(3, 2, device="meta"))
    fresh.allocate()
    assert fresh.weight.tolist() == [0.25, 0.25]


def test_dropout_with_ratio_one_is_zero_and_a_ratio_beyond_is_an_error_only_when_training():
    x = torch.ones(3, 5, dtype=torch.float64)
    assert apply("Dropout", "dropout_param { dropout_ratio: 1 }", x).sum() == 0
    layer = build("Dropout", "dropout_param { dropout_ratio: -0.1 }", (3, 5), phase=TRAIN)
    assert layer.infer(torch.empty(3, 5, device="meta"))[0].shape == (3, 5)
    with pytest.raises(LayerError, match=r"dropout_ratio -0\.1 is not a probability"):
        layer(x)
    assert torch.equal(apply("Dropout", "dropout_param { dropout_ratio: -0.1 }", x, phase=TEST), x)


def test_dropout_scales_up_what_it_keeps_and_the_gradient_with_it():
    x = torch.full((100, 70), 3.0, dtype=torch.float64, requires_grad=True)
    y = apply("Dropout", "dropout_param { dropout_ratio: 0.2 }", x)
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / 0.8)
    assert kept.double().mean().item() == pytest.approx(0.8, abs=0.03)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, kept / torch.tensor(0.8, dtype=torch.float64))


def test_clip_with_min_above_max_gives_min():
    assert apply("Clip", "clip_param { min: 2 max: 1 }", [0.0, 1.5, 3]).tolist() == [2, 2, 2]


def test_bnll_does_not_overflow():
    x = torch.tensor([-1000.0, 0, 5, 1000], requires_grad=True)
    y = build("BNLL", "", (4,)).float()(x)
    np.testing.assert_allclose(y.detach(), [0, np.log(2), np.log1p(np.exp(5)), 1000], rtol=1e-6)
    np.testing.assert_allclose(torch.autograd.grad(y.sum(), x)[0], [0, 0.5, 1 / (1 + np.exp(-5)), 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("type_name", "options", "says"),
    [
        ("Exp", "exp_param { base: 0 }", "base 0 must be positive"),
        ("Exp", "exp_param { base: -2 }", "base -2 must be positive"),
        ("Exp", "exp_param { base: inf }", "must be positive and finite"),
        ("Log", "log_param { base: 1 }", "base 1 has no logarithm"),
        ("Log", "log_param { base: -3 }", "base -3 must be positive"),
        ("PReLU", 'prelu_param { filler { type: "magic" } }', 'unknown filler type "magic"'),
    ],
)
def test_bad_options_are_rejected(type_name, options, says):
    assert_rejected(type_name, options, (2, 3), says=says)


def test_prelu_needs_channels_and_keeps_their_count():
    assert_rejected("PReLU", "", (3,), says="has 1 axes, expected at least 2")
    with pytest.raises(LayerError, match="has 5 channels, the layer was set up for 3"):
        build("PReLU", "", (2, 3))(torch.zeros(2, 5, dtype=torch.float64))
