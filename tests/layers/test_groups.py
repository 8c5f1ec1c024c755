"""GroupNorm, LayerNorm, piecewise linear sigmoids and layers with margins, each compared with its equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TEST
from tests.layers.build import apply, assert_rejected, build

RNG = np.random.default_rng(1)


def normal(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_group_norm_of_three_forks():
    x = RNG.normal(size=(2, 6, 3, 5))
    wanted = normal(x.reshape(2, 3, 2, 3, 5), (2, 3, 4), 1e-5).reshape(x.shape)
    for name in ("group_num", "group_ratio"):
        layer = build("GroupNorm", f"group_norm_param {{ {name}: 3 }}", x.shape)
        assert not layer.tensors
        np.testing.assert_allclose(layer(torch.tensor(x)).numpy(), wanted, rtol=1e-6)
    layer = build("GroupNorm", "group_norm_param { group: 3 }", x.shape)
    scale, bias = (blob.detach().numpy() for blob in layer.tensors)
    assert scale.shape == bias.shape == (1, 6, 1, 1)
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), wanted * scale + bias, rtol=1e-6)


def test_group_norm_refuses_what_is_of_two_forks():
    x = (2, 6, 3, 5)
    assert_rejected("GroupNorm", "", x, says="cannot divide the 6 channels")
    assert_rejected("GroupNorm", "group_norm_param { group: 3 group_num: 3 }", x, says="group_num and group, which are")
    assert_rejected("GroupNorm", "group_norm_param { group_num: 3 scale_filler { } }", x, says="use that name")
    assert_rejected("GroupNorm", "", (6,), says="expected (N, C, ...)")


def test_layer_norm_and_instance_norm():
    x = RNG.normal(size=(2, 3, 4, 5))
    np.testing.assert_allclose(apply("InstanceNorm", "", x), normal(x, (2, 3), 1e-4), rtol=1e-10)
    plain = apply("LayerNorm", "layer_norm_param { elementwise_affine: false eps: 0.1 }", x)
    np.testing.assert_allclose(plain, normal(x, (1, 2, 3), 0.1), rtol=1e-6)
    layer = build("LayerNorm", "", x.shape)
    scale, bias = (blob.detach().numpy() for blob in layer.tensors)
    assert scale.shape == (3, 4, 5)
    wanted = normal(x, (1, 2, 3), 1e-5) * scale + bias
    np.testing.assert_allclose(layer(torch.tensor(x)).detach(), wanted, rtol=1e-6)
    assert_rejected("InstanceNorm", "", (2, 3), says="expected (N, C, H, W)")


def test_straight_lines_by_hand():
    x = np.array([[-4.0, -1, 0.5, 2, 4]])
    np.testing.assert_allclose(apply("HardSigmoid", "", x), [[0, 0.3, 0.6, 0.9, 1]], rtol=1e-6)
    np.testing.assert_allclose(apply("HardSwish", "", x), [[0, -1 / 3, 1.75 / 6, 10 / 6, 4]], rtol=1e-6)


def test_selu_dropout_keeps_mean_and_variance():
    x = torch.randn(400, 500, dtype=torch.float64)
    for kind in ("SELUDropout", "SeLUDropout"):
        y = apply(kind, "selu_dropout_param { dropout_ratio: 0.1 }", x)
        assert abs(y.mean()) < 0.02
        assert abs(y.var() - 1) < 0.02
        low, times = y.unique(return_counts=True)
        alpha = -1.75809934
        a = (0.9 * (1 + alpha**2 * 0.1)) ** -0.5
        assert low[times.argmax()].item() == pytest.approx(a * alpha - a * 0.1 * alpha, rel=1e-6)
        assert torch.equal(apply(kind, "", x, phase=TEST), x)


def test_margins_by_hand():
    x, label = np.array([[0.5, -0.2, 0.9], [0.1, 0.3, -0.95]]), np.array([0.0, 2])
    y = apply("LabelSpecificAdd", "label_specific_add_param { bias: -0.35 }", x, label)
    np.testing.assert_allclose(y, [[0.15, -0.2, 0.9], [0.1, 0.3, -0.95]], rtol=1e-6)  # only values above 0.35
    assert torch.equal(
        apply("LabelSpecificAdd", "label_specific_add_param { bias: -0.35 }", x, label, phase=TEST), torch.tensor(x)
    )
    y = apply("Arcface", "arcface_param { m: 0.5 }", x, label)
    wanted = x.copy()
    wanted[0, 0] = math.cos(math.acos(0.5) + 0.5)
    wanted[1, 2] = -0.95 - 0.5 * math.sin(math.pi - 0.5)
    np.testing.assert_allclose(y, wanted, rtol=1e-12)
    assert torch.equal(apply("Arcface", "", x, [-1.0, -1]), torch.tensor(x))
    with pytest.raises(LayerError, match="holds the label 3"):
        apply("Arcface", "", x, [0.0, 3])
    assert_rejected("Arcface", "arcface_param { m: 4 }", (2, 3), (2,), says="m is 4")
    assert_rejected("LabelSpecificAdd", "", (2, 3, 4), (2,), says="expected (N, C)")
