"""FocalLoss, RReLU, SpaceToDepth and DepthToSpace, compared with explicit values."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.proto.caffe_pb2 import TEST
from tests.layers.build import apply, assert_rejected


def test_focal_loss_is_the_softmax_loss_weighed():
    x = np.log(np.array([[0.9, 0.1], [0.25, 0.75]]))
    label = np.array([0.0, 0.0])
    items = np.array([0.1**2 * -np.log(0.9), 0.75**2 * -np.log(0.25)])
    np.testing.assert_allclose(apply("FocalLoss", "", x, label), 0.25 * items.mean(), rtol=1e-6)
    plain = apply("FocalLoss", "focal_loss_param { alpha: 1 gamma: 0 }", x, label)
    np.testing.assert_allclose(plain, apply("SoftmaxWithLoss", "", x, label), rtol=1e-6)


def test_focal_loss_is_finite_for_a_sure_item():
    loss = apply("FocalLoss", "", np.array([[200.0, -200.0]]), np.array([0.0]))
    assert float(loss) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("type: LINEAR", "LINEAR and beta are not implemented"),
        ("alpha: 0", "alpha is 0, expected a number above 0"),
        ("gamma: -1", "gamma is -1, expected 0 or more"),
    ],
)
def test_focal_loss_refuses(options, says):
    assert_rejected("FocalLoss", f"focal_loss_param {{ {options} }}", (2, 3), (2,), says=says)


def test_rrelu_divides_by_the_mean_of_its_bounds_in_test():
    options = "rrelu_param { negative_slope_lower: 3 negative_slope_upper: 8 }"
    y = apply("RReLU", options, np.array([[-11.0, 2.0]]), phase=TEST)
    np.testing.assert_allclose(y, [[-2.0, 2.0]])
    drawn = apply("RReLU", options, np.full((1, 500), -24.0))
    assert -8 <= drawn.min() < -7.5
    assert -3.5 < drawn.max() <= -3


def test_rrelu_needs_its_bounds():
    assert_rejected("RReLU", "", (1, 2), says="negative_slope_lower must be given")


def test_space_to_depth_takes_the_cells_of_a_block_in_order():
    x = np.arange(2 * 2 * 4).reshape(1, 2, 2, 4)
    y = apply("SpaceToDepth", "space_to_depth_param { block_size: 2 }", x)
    assert y.shape == (1, 8, 1, 2)
    assert y[0, :, 0, 0].tolist() == [0, 8, 1, 9, 4, 12, 5, 13]
    back = apply("DepthToSpace", "depth_to_space_param { block_size: 2 }", y)
    np.testing.assert_array_equal(back, x)


def test_blocks_must_fit():
    options = "{ block_size: 2 }"
    x = (1, 3, 3, 4)
    assert_rejected("SpaceToDepth", f"space_to_depth_param {options}", x, says="3 x 4 cells cannot be divided")
    assert_rejected("DepthToSpace", f"depth_to_space_param {options}", x, says="3 channels are not a multiple")
    assert_rejected("SpaceToDepth", "", x, says="block_size must be given")
