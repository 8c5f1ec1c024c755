"""Layers that move and sum elements: the position of each element in the top."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.alone import alone

X = np.arange(2 * 3 * 5).reshape(2, 3, 5)


def applied(kind: str, options: str, *arrays: np.ndarray, tops: int = 1) -> list[np.ndarray]:
    layer = alone(kind, [array.shape for array in arrays], options, tops)
    made = layer(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))
    return [top.numpy() for top in (made if isinstance(made, tuple) else (made,))]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("Reduction", "reduction_param { axis: 1 }", X.sum((1, 2))),
        ("Reduction", "reduction_param { axis: -1 operation: MEAN coeff: 2 }", 2 * X.mean(2)),
        ("Reduction", "reduction_param { operation: SUMSQ }", (X**2).sum()),
        ("Flatten", "", X.reshape(2, 15)),
        ("Flatten", "flatten_param { axis: 0 end_axis: -2 }", X.reshape(6, 5)),
        ("Tile", "tile_param { axis: 1 tiles: 2 }", np.concatenate([X, X], 1)),
        ("Permute", "permute_param { order: 1 }", X.swapaxes(0, 1)),
        ("Reshape", "reshape_param { axis: 1 shape { dim: 0 dim: 1 dim: -1 } }", X.reshape(2, 3, 1, 5)),
        ("Reshape", "reshape_param { axis: 1 num_axes: 1 shape { dim: 1 dim: 3 } }", X.reshape(2, 1, 3, 5)),
    ],
)
def test_one_bottom(kind, options, expected):
    (top,) = applied(kind, options, X)
    np.testing.assert_allclose(top, expected)


def test_concat_keeps_the_order_of_its_bottoms():
    for axis in (0, 1, -1):
        (top,) = applied("Concat", f"concat_param {{ axis: {axis} }}", X, X + 100, X + 200)
        np.testing.assert_array_equal(top, np.concatenate([X, X + 100, X + 200], axis))


def test_fused_concat_permutes_and_flattens_maps_of_different_sizes():
    x, y = np.arange(24.0).reshape(1, 2, 3, 4), 100 + np.arange(6.0).reshape(1, 3, 1, 2)
    (top,) = applied("Concat", "concat_param { per_fla_fuse: true }", x, y)
    expected = np.concatenate([each.transpose(0, 2, 3, 1).reshape(1, -1) for each in (x, y)], 1)
    np.testing.assert_array_equal(top, expected.reshape(1, 30, 1, 1))
    with pytest.raises(LayerError, match="per_fla_fuse and axis 2"):
        applied("Concat", "concat_param { per_fla_fuse: true axis: 2 }", x, y)


def test_slice_cuts_at_its_points():
    tops = applied("Slice", "slice_param { axis: 2 slice_point: 1 slice_point: 3 }", X, tops=3)
    for top, expected in zip(tops, (X[..., :1], X[..., 1:3], X[..., 3:]), strict=True):
        np.testing.assert_array_equal(top, expected)


def test_crop_takes_one_offset_or_one_for_each_axis():
    reference = np.zeros((2, 2, 3))
    for options, expected in (("offset: 1", X[:, 1:3, 1:4]), ("offset: 0 offset: 2", X[:, :2, 2:])):
        (top,) = applied("Crop", f"crop_param {{ axis: 1 {options} }}", X, reference)
        np.testing.assert_array_equal(top, expected)
