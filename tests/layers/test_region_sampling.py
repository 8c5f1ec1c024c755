"""Layers that interpolate between cells, compared with plain loops over regions, bins and samples."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import pytest
import torch

from tests.layers.build import apply, assert_rejected, build
from tests.layers.test_regions import regions

ALIGN = "roi_align_param {{ pooled_h: 2 pooled_w: 3 spatial_scale: 0.25 {} }}"


def bilinear(x: np.ndarray, row: float, column: float) -> np.ndarray:
    """Interpolate x (C, H, W), with positions clamped to the map."""
    row, column = min(max(row, 0), x.shape[1] - 1), min(max(column, 0), x.shape[2] - 1)
    i, j = floor(row), floor(column)
    below, right = min(i + 1, x.shape[1] - 1), min(j + 1, x.shape[2] - 1)
    u, v = row - i, column - j
    upper = (1 - v) * x[:, i, j] + v * x[:, i, right]
    return (1 - u) * upper + u * ((1 - v) * x[:, below, j] + v * x[:, below, right])


def align(x: np.ndarray, rois: np.ndarray, ratio: int) -> np.ndarray:
    y = np.zeros((len(rois), x.shape[1], 2, 3))
    for r, (image, *roi) in enumerate(rois):
        x1, y1, x2, y2 = np.array(roi) * 0.25
        height, width = max(y2 - y1, 1) / 2, max(x2 - x1, 1) / 3
        n, m = ratio or ceil(height), ratio or ceil(width)
        for i, j, k, q in np.ndindex(2, 3, n, m):
            row, column = y1 + i * height + (k + 0.5) * height / n, x1 + j * width + (q + 0.5) * width / m
            if -1 <= row <= x.shape[2] and -1 <= column <= x.shape[3]:
                y[r, :, i, j] += bilinear(x[int(image)], row, column) / (n * m)
    return y


def corners(x: np.ndarray, rois: np.ndarray) -> np.ndarray:
    y = np.zeros((len(rois), x.shape[1], 3, 4))
    for r, (image, *roi) in enumerate(rois):
        x1, y1, x2, y2 = np.array(roi) * 0.25 - 0.5
        for i, j in np.ndindex(3, 4):
            row, column = y1 + i * (y2 - y1) / 2, x1 + j * (x2 - x1) / 3
            if -0.5 < row < x.shape[2] - 0.5 and -0.5 < column < x.shape[3] - 0.5:
                y[r, :, i, j] = bilinear(x[int(image)], row, column)
    return y


@pytest.mark.parametrize("ratio", [0, 2, 3])
@pytest.mark.parametrize("images", [1, 2])
def test_roi_align_of_mask_rcnn_is_the_mean_of_samples(images, ratio):
    rng = np.random.default_rng(ratio)
    x, rois = rng.normal(size=(images, 3, 11, 14)), regions(rng, 30, images, 60)
    made = apply("ROIAlign", ALIGN.format(f"sampling_ratio: {ratio}" if ratio else ""), x, rois)
    np.testing.assert_allclose(made, align(x, rois, ratio), rtol=1e-11, atol=1e-11)


def test_roi_align_of_cascade_samples_the_corners_of_bins():
    rng = np.random.default_rng(5)
    x, rois = rng.normal(size=(2, 3, 11, 14)), regions(rng, 30, 2, 60)
    made = apply("ROIAlign", ALIGN.format("").replace("align", "pooling"), x, rois)
    np.testing.assert_allclose(made, corners(x, rois), rtol=1e-11, atol=1e-11)


def test_which_roi_align_is_meant_must_be_clear():
    x, rois = (1, 2, 5, 5), (3, 5)
    both = ALIGN.format("") + ALIGN.format("").replace("align", "pooling")
    assert_rejected("ROIAlign", both, x, rois, says="keep one")
    assert_rejected("ROIAlign", "", x, rois, says="pooled_h and pooled_w must both be given")
    assert_rejected("ROIAlign", ALIGN.format("roi_end_mode: 1"), x, rois, says="roi_end_mode other than 0")
    sized = ALIGN.format("pooled_size: 2").replace("align", "pooling")
    assert_rejected("ROIAlign", sized, x, rois, says="pooled_size comes from Intel's Caffe")


def test_mask_resize_reads_at_a_share_of_the_place():
    x = np.random.default_rng(6).normal(size=(2, 3, 4, 6))
    made = apply("MaskResize", "mask_resize_param { output_height: 5 output_width: 3 }", x)
    for n, i, j in np.ndindex(2, 5, 3):
        np.testing.assert_allclose(made[n, :, i, j], bilinear(x[n], i * 4 / 5, j * 6 / 3), rtol=1e-12)
    assert_rejected("MaskResize", "mask_resize_param { factor_height: 2 }", x.shape, says="factor_height")
    assert_rejected("MaskResize", "", x.shape, says="output_height and output_width must both")


def test_mask_pooling_multiplies_each_channel():
    rng = np.random.default_rng(7)
    x, mask = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 1, 4, 5))
    np.testing.assert_array_equal(apply("MaskPooling", "", x, mask), x * mask)
    assert_rejected("MaskPooling", "", (2, 3, 4, 5), (2, 3, 4, 5), says="expected (N, C, H, W) and (N, 1, H, W)")


DEFORM = "num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2"


def test_deformable_convolution_without_offsets_is_convolution():
    x = torch.from_numpy(np.random.default_rng(8).normal(size=(2, 4, 9, 8)))
    layer = build("DeformableConvolution", f"deformable_convolution_param {{ {DEFORM} }}", (2, 4, 9, 8), (2, 72, 4, 3))
    plain = build("Convolution", f"convolution_param {{ {DEFORM} }}", (2, 4, 9, 8))
    made = layer(x, torch.zeros(2, 72, 4, 3, dtype=torch.float64))
    torch.testing.assert_close(made, plain(x)[0], rtol=1e-12, atol=1e-12)
    single = layer.float()(x.float(), torch.zeros(2, 72, 4, 3))
    torch.testing.assert_close(single.double(), plain(x)[0], rtol=1e-5, atol=1e-5)


def test_deformable_convolution_reads_where_the_offsets_point():
    rng = np.random.default_rng(9)
    x, offsets = rng.normal(size=(2, 4, 9, 8)), rng.normal(size=(2, 36, 4, 3)) * 2
    options = f"deformable_convolution_param {{ {DEFORM} deformable_group: 2 bias_term: false }}"
    layer = build("DeformableConvolution", options, x.shape, offsets.shape)
    made = layer(torch.from_numpy(x), torch.from_numpy(offsets)).detach().numpy()
    weight = layer.weight.detach().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (40, 40), (40, 40)))  # far enough for every sample
    expected = np.zeros(made.shape)
    for n, o, i, j, c, a, b in np.ndindex(*made.shape, 2, 3, 3):
        channel = o // 2 * 2 + c
        dy, dx = offsets[n, channel // 2 * 18 + 2 * (3 * a + b) :][:2, i, j]
        row, column = 2 * i - 1 + 2 * a + dy + 40, 2 * j - 1 + 2 * b + dx + 40
        expected[n, o, i, j] += weight[o, c, a, b] * bilinear(padded[n, channel : channel + 1], row, column)[0]
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-9)


def test_what_deformable_convolution_refuses():
    def refused(options: str, x: tuple[int, ...], offsets: tuple[int, ...], says: str) -> None:
        options = f"deformable_convolution_param {{ kernel_size: 3 {options} }}"
        assert_rejected("DeformableConvolution", options, x, offsets, says=says)

    refused("num_output: 2 deformable_group: 1", (1, 4, 5, 5), (1, 18, 5, 5), "expected 1 18 3 3 (162)")
    refused("num_output: 2", (1, 6, 5, 5), (1, 72, 3, 3), "6 channels of the bottom into deformable_group: 4")
    refused("num_output: 2 axis: 2", (1, 4, 5, 5), (1, 72, 3, 3), "axis is 2, expected 1")
    refused("", (1, 4, 5, 5), (1, 72, 3, 3), "num_output")
    refused("num_output: 2", (1, 4, 2, 5), (1, 72, 1, 3), "does not fit")


def test_regions_that_are_no_numbers_and_empty_batches():
    nan, inf = float("nan"), float("inf")
    rois = torch.tensor([[0, nan, 0, 9, 9], [0, 0, 0, inf, 9], [0, -inf, 0, 9, 9]], dtype=torch.float64)
    x = torch.ones(1, 2, 5, 5, dtype=torch.float64)
    assert apply("ROIAlign", ALIGN.format(""), x, rois).isfinite().all()
    none = torch.zeros(0, 5, dtype=torch.float64)
    options = "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 3 }"
    assert apply("PSROIPooling", options, torch.zeros(0, 18, 4, 4), none.float()).shape == (0, 2, 3, 3)
    assert apply("ROIAlign", ALIGN.format(""), x, none).shape == (0, 2, 2, 3)
    options = f"deformable_convolution_param {{ {DEFORM} }}"
    layer = build("DeformableConvolution", options, (0, 4, 9, 8), (0, 72, 4, 3))
    assert layer(torch.zeros(0, 4, 9, 8).double(), torch.zeros(0, 72, 4, 3).double()).shape == (0, 4, 4, 3)
    options = "box_output_param { field_h: 8 field_w: 8 downsample_rate: 4 }"
    assert apply("BoxOutput", options, torch.zeros(0, 6, 2, 2)).tolist() == [[0, 1, 1, 10, 10]]
