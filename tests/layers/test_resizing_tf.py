"""Resizing by TensorFlow's rules, and Resize, with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.layers.build import apply, assert_rejected

X = np.array([1.0, 3, 7]).reshape(1, 1, 1, 3)
ROW = 'data_format: "NCHW" output_height: 1 output_width: '


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (f"{ROW} 6", [1, 2, 3, 5, 7, 7]),
        (f"{ROW} 5 align_corners: true", [1, 2, 3, 5, 7]),
        (f"{ROW} 6 half_pixel_centers: true", [1, 1.5, 2.5, 4, 6, 7]),
        (f"{ROW} 1 pytorch_half_pixel: true", [1]),
        (f"{ROW} 1 align_corners: true", [1]),
        ('data_format: "NCHW" scale_width: 2', [1, 2, 3, 5, 7, 7]),
    ],
)
def test_bilinear(options, wanted):
    made = apply("ResizeBilinear", f"resize_bilinear_param {{ {options} }}", X)
    np.testing.assert_allclose(made.flatten(), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (f"{ROW} 6", [1, 1, 3, 3, 7, 7]),
        (f"{ROW} 5 align_corners: true", [1, 3, 3, 7, 7]),
        (f"{ROW} 2 half_pixel_centers: true", [1, 7]),
        (f"{ROW} 2", [1, 3]),
    ],
)
def test_nearest(options, wanted):
    made = apply("ResizeNearestNeighbor", f"resize_nearest_neighbor_param {{ {options} }}", X)
    np.testing.assert_array_equal(made.flatten(), wanted)


def test_channels_may_be_last():
    x = np.random.default_rng(1).normal(size=(2, 4, 5, 3))
    for kind, field in (
        ("ResizeBilinear", "resize_bilinear_param"),
        ("ResizeNearestNeighbor", "resize_nearest_neighbor_param"),
    ):
        last = apply(kind, f"{field} {{ output_height: 7 output_width: 3 }}", x)
        first = apply(
            kind, f'{field} {{ output_height: 7 output_width: 3 data_format: "NCHW" }}', x.transpose(0, 3, 1, 2)
        )
        np.testing.assert_array_equal(last, first.permute(0, 2, 3, 1))


def test_resize_of_square_maps():
    x = np.arange(1.0, 17).reshape(1, 1, 4, 4)
    options = "resize_param {{ function_type: {} intepolation_type: {} {} }}"
    made = apply("Resize", options.format("FACTOR_GIVEN", "NEAREST", "resize_factor: 0.5"), x)
    np.testing.assert_array_equal(made[0, 0], x[0, 0, ::2, ::2])
    made = apply("Resize", options.format("SIZE_GIVEN", "BILINEAR", "output_size: 8"), x)
    np.testing.assert_allclose(made[0, 0, 2, 1], x[0, 0, 1, 1] * 0.5)  # the first cell does not count at 0.5
    np.testing.assert_allclose(made[0, 0, 2, 3], (x[0, 0, 1, 1] + x[0, 0, 1, 2]) / 2)
    np.testing.assert_allclose(made[0, 0, 7, 7], x[0, 0, 3, 3] / 4)
    aligned = apply("Resize", options.format("BLOB_ALIGN", "BILINEAR", ""), x, np.zeros((1, 2, 8, 3)))
    np.testing.assert_array_equal(aligned, made)


def test_what_resizing_refuses():
    options = "resize_param { function_type: SIZE_GIVEN intepolation_type: NEAREST output_size: 3 %s }"
    assert_rejected("Resize", options % "", (1, 2, 3, 4), says="takes square maps, not 3 x 4 cells")
    assert_rejected("Resize", options % "height: 3", (1, 2, 3, 3), says="height is an option of xiaolonw's RESIZE")
    assert_rejected("Resize", "", (1, 2, 3, 3), says="function_type must be given")
    assert_rejected("Resize", options % "", (1, 2, 3, 3), (1, 2, 3, 3), says="BLOB_ALIGN needs two bottoms")
    options = "resize_bilinear_param { align_corners: true half_pixel_centers: true }"
    assert_rejected("ResizeBilinear", options, (1, 2, 3, 3), says="contradict each other")
    options = 'resize_nearest_neighbor_param { data_format: "NCHWD" }'
    assert_rejected("ResizeNearestNeighbor", options, (1, 2, 3, 3), says="expected NHWC or NCHW")
    assert_rejected("ResizeBilinear", "resize_bilinear_param { output_height: 0 }", (1, 2, 3, 3), says="would be 0 x 3")
