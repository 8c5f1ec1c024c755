"""Normalize: one type name for SSD's layer and for that of happynear's fork."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.layers.alone import alone
from tests.layers.build import assert_rejected

X = torch.arange(1.0, 13).reshape(1, 3, 2, 2)


def test_ssd_scales_each_cell_by_the_length_of_its_channels():
    layer = alone("Normalize", [X.shape], "norm_param { across_spatial: false scale_filler { value: 20 } }")
    assert [tuple(blob.shape) for blob in layer.tensors] == [()]
    expected = 20 * X.numpy() / np.sqrt((X.numpy() ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(layer(X).detach().numpy(), expected, rtol=1e-6)


def test_ssd_across_spatial_divides_by_the_length_of_the_item():
    layer = alone("Normalize", [X.shape], "norm_param { channel_shared: false eps: 75 }")
    assert [tuple(blob.shape) for blob in layer.tensors] == [(3,)]
    expected = X.numpy() / np.sqrt((X.numpy() ** 2).sum() + 75)
    np.testing.assert_allclose(layer(X).detach().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "norm"), [("L1", [15 + 1e-6, 18 + 1e-6]), ("L2", [107**0.5, 140**0.5])])
def test_happynear_has_no_blob_and_a_second_top(kind, norm):
    x = X[:, :, 0]
    layer = alone("Normalize", [x.shape], f'normalize_param {{ normalize_type: "{kind}" }}', tops=2)
    assert layer.tensors == []
    y, length = layer(x.requires_grad_())
    np.testing.assert_allclose(length.detach().numpy()[0, 0], norm, rtol=1e-6)
    np.testing.assert_allclose(y.detach().numpy(), x.detach().numpy() / norm, rtol=1e-6)
    assert y.requires_grad
    assert not length.requires_grad


def test_a_layer_without_options_is_happynears():
    assert alone("Normalize", [X.shape]).tensors == []


def test_wrong_options():
    assert_rejected("Normalize", "norm_param { } normalize_param { }", (2, 3), says="keep one")
    assert_rejected("Normalize", "norm_param { }", (2, 3), says="second top", tops=2)
    assert_rejected("Normalize", 'normalize_param { normalize_type: "L3" }', (2, 3), says='expected "L1" or "L2"')
    assert_rejected("Normalize", "normalize_param { fix_gradient: true }", (2, 3), says="fix_gradient")
    assert_rejected("Normalize", "", (2,), says="expected (N, C, ...)")
    assert_rejected("SimpleNormalize", "", (2,), says="expected (N, C, ...)")
