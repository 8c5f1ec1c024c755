"""BatchNorm, LRN and MVN: their statistics, and the positions of eps and k in the equations."""

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TEST
from tests.layers.build import apply, assert_rejected, build


def test_batch_norm_keeps_the_unbiased_variance_and_uses_the_biased_one():
    x = torch.randn(5, 3, 2, dtype=torch.float64)
    layer = build("BatchNorm", "batch_norm_param { moving_average_fraction: 0.5 eps: 0.25 }", (5, 3, 2))
    mean, variance, factor = (blob.clone() for blob in layer.tensors)
    y = layer(x)
    flat = x.movedim(1, 0).flatten(1)
    expected = (x - flat.mean(1)[:, None]) / (flat.var(1, correction=0)[:, None] + 0.25).sqrt()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(layer.mean, 0.5 * mean + flat.mean(1))
    torch.testing.assert_close(layer.variance, 0.5 * variance + flat.var(1))
    torch.testing.assert_close(layer.factor, 0.5 * factor + 1)


def test_batch_norm_of_one_cell_a_channel_has_variance_zero():
    layer = build("BatchNorm", "batch_norm_param { moving_average_fraction: 0 }", (1, 3))
    assert layer(torch.randn(1, 3, dtype=torch.float64)).abs().max() < 1e-12
    assert layer.variance.tolist() == [0, 0, 0]


def test_batch_norm_with_factor_zero_divides_by_the_root_of_eps():
    layer = build("BatchNorm", "batch_norm_param { eps: 0.25 }", (2, 3), phase=TEST)
    layer.factor.zero_()
    x = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x / 0.5)


def test_batch_norm_statistics_are_never_trained():
    layer = build("BatchNorm", "param { lr_mult: 0 } param { lr_mult: 0 }", (2, 3))
    assert list(layer.parameters()) == []
    assert [tuple(blob.shape) for blob in layer.tensors] == [(3,), (3,), (1,)]
    assert_rejected("BatchNorm", "param { lr_mult: 1 }", (2, 3), says="set lr_mult: 0 in its param blocks")
    assert_rejected("BatchNorm", "param { lr_mult: 0 } param { }", (2, 3), says="set lr_mult: 0 in its param blocks")


def test_batch_norm_rejects_a_bottom_of_one_axis_and_other_channels():
    assert_rejected("BatchNorm", "", (11,), says="expected (N, C, ...)")
    with pytest.raises(LayerError, match="has 5 channels, the layer was set up for 3"):
        build("BatchNorm", "", (2, 3))(torch.zeros(2, 5, dtype=torch.float64))


def test_batch_norm_scales_and_shifts_in_the_same_pass():
    layer = build("BatchNorm", "", (4, 3), phase=TEST)
    x, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (3,), (3,)))
    torch.testing.assert_close(layer.normalize(x, weight, bias), layer(x) * weight + bias)


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn_across_channels_is_the_formula(beta):
    x = torch.randn(2, 7, 3, 5, dtype=torch.float64)
    y = apply("LRN", f"lrn_param {{ local_size: 3 alpha: 0.5 beta: {beta} k: 2 }}", x)
    for c in range(7):
        energy = x[:, max(c - 1, 0) : c + 2].square().sum(1)
        torch.testing.assert_close(y[:, c], x[:, c] * (2 + 0.5 / 3 * energy) ** -np.float32(beta).item())


def test_lrn_works_through_a_batch_larger_than_its_part():
    x = torch.randn(3, 8, 160, 160, dtype=torch.float64, requires_grad=True)
    whole = apply("LRN", "", x)
    each = torch.cat([apply("LRN", "", x[i : i + 1]) for i in range(3)])
    assert torch.equal(whole, each)
    one, other = (torch.autograd.grad((y * x.detach().roll(1)).sum(), x)[0] for y in (whole, each))
    assert torch.equal(one, other)


def test_lrn_within_channel_ignores_k():
    x = np.random.default_rng(1).normal(size=(2, 3, 7, 5))
    options = "local_size: 3 alpha: 0.9 norm_region: WITHIN_CHANNEL"
    y = apply("LRN", f"lrn_param {{ {options} k: 7 }}", x)
    assert torch.equal(y, apply("LRN", f"lrn_param {{ {options} }}", x))
    energy = np.square(x[:, :, :2, :2]).sum((2, 3)) * np.float32(0.9) / 9
    np.testing.assert_allclose(y[:, :, 0, 0], x[:, :, 0, 0] * (1 + energy) ** -0.75)


def test_lrn_rejects_an_even_window_and_other_axes():
    assert_rejected("LRN", "lrn_param { local_size: 4 }", (2, 3, 5, 7), says="local_size 4 must be odd")
    assert_rejected("LRN", "", (2, 3, 5), says="expected (N, C, H, W)")


def test_mvn_adds_eps_to_the_standard_deviation():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    y = apply("MVN", "mvn_param { eps: 0.5 }", x)
    mean = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(y, (x - mean) / (x.std((2, 3), correction=0, keepdim=True) + 0.5))


def test_mvn_gradient_takes_sigma_plus_eps_for_sigma():
    x = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(2, 12, dtype=torch.float64)
    y = apply("MVN", "mvn_param { across_channels: true eps: 0.5 }", x)
    (dx,) = torch.autograd.grad(y, x, dy)
    sigma = x.std(1, correction=0, keepdim=True) + 0.5
    expected = (dy - dy.mean(1, keepdim=True) - y * (y * dy).mean(1, keepdim=True)) / sigma
    torch.testing.assert_close(dx, expected)


def test_mvn_of_equal_values_is_zero():
    x = torch.full((2, 3, 5), 4.0, dtype=torch.float64, requires_grad=True)
    y = apply("MVN", "", x)
    assert not y.any()
    assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_lrn_over_more_cells_than_there_are_takes_no_longer(region):
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    options = "lrn_param {{ norm_region: {} local_size: {} alpha: {} }}"
    for size in (15, 4294967295):
        power = 1 if region == "ACROSS_CHANNELS" else 2
        y = apply("LRN", options.format(region, size, 0.5 * float(size) ** power), x)
        total = x.square().sum(1 if power == 1 else (2, 3), keepdim=True)
        torch.testing.assert_close(y, x * (1 + 0.5 * total) ** -0.75)
        y.sum().backward()
