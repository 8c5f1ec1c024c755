"""Pooling of regions, compared with plain loops over regions and bins."""

from __future__ import annotations

from math import ceil, floor, nan

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected, build

POOL = "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }"


def c_round(value: float) -> int:
    return floor(abs(value) + 0.5) * (1 if value >= 0 else -1)


def regions(rng: np.random.Generator, count: int, images: int, size: float) -> np.ndarray:
    corners = np.sort(rng.uniform(-0.2, 1.2, (count, 2, 2)) * size, axis=1).reshape(count, 4)
    return np.concatenate([rng.integers(0, images, (count, 1)), corners], 1)


def roi_pooling(x: np.ndarray, rois: np.ndarray, pooled: tuple[int, int], scale: float) -> np.ndarray:
    y = np.zeros((len(rois), x.shape[1], *pooled))
    for r, (image, *roi) in enumerate(rois):
        x1, y1, x2, y2 = (c_round(value * scale) for value in roi)
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(pooled):
            top, left = floor(i * (height / pooled[0])) + y1, floor(j * (width / pooled[1])) + x1
            below, right = ceil((i + 1) * (height / pooled[0])) + y1, ceil((j + 1) * (width / pooled[1])) + x1
            cells = x[int(image), :, max(top, 0) : max(below, 0), max(left, 0) : max(right, 0)]
            if cells.size:
                y[r, :, i, j] = cells.max((1, 2))
    return y


def psroi_pooling(x: np.ndarray, rois: np.ndarray, g: int, outputs: int, scale: float) -> np.ndarray:
    y = np.zeros((len(rois), outputs, g, g))
    for r, (image, *roi) in enumerate(rois):
        x1, y1 = (c_round(value) * scale for value in roi[:2])
        x2, y2 = ((c_round(value) + 1) * scale for value in roi[2:])
        height, width = max(y2 - y1, 0.1) / g, max(x2 - x1, 0.1) / g
        for k, i, j in np.ndindex(outputs, g, g):
            rows = slice(max(floor(y1 + i * height), 0), max(ceil(y1 + (i + 1) * height), 0))
            columns = slice(max(floor(x1 + j * width), 0), max(ceil(x1 + (j + 1) * width), 0))
            cells = x[int(image), (k * g + i) * g + j, rows, columns]
            y[r, k, i, j] = cells.mean() if cells.size else 0
    return y


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("pooled", [(1, 1), (3, 2), (7, 7)])
def test_roi_pooling_is_the_maximum_of_each_bin(pooled, learns):
    rng = np.random.default_rng(sum(pooled))
    x, rois = rng.normal(size=(2, 3, 13, 17)), regions(rng, 40, 2, 60)
    options = f"roi_pooling_param {{ pooled_h: {pooled[0]} pooled_w: {pooled[1]} spatial_scale: 0.25 }}"
    made = apply("ROIPooling", options, torch.from_numpy(x).requires_grad_(learns), rois)
    np.testing.assert_array_equal(made.detach(), roi_pooling(x, rois, pooled, 0.25))


def test_roi_pooling_by_hand():
    x = torch.arange(16, dtype=torch.float32).view(1, 1, 4, 4).requires_grad_()
    # 1 / 2 and 5 / 2 are rounded away from zero: cells 1 ... 3, in bins of 1.5 cells that overlap
    y = build("ROIPooling", POOL, (1, 1, 4, 4), (1, 5)).float()(x, torch.tensor([[0.0, 1, 1, 5, 5]]))
    assert y.flatten().tolist() == [10, 11, 14, 15]
    y.backward(torch.tensor([1.0, 2, 4, 8]).view_as(y))
    assert x.grad.flatten().nonzero().flatten().tolist() == [10, 11, 14, 15]


def test_roi_pooling_gives_the_gradient_to_the_first_of_equal_cells():
    x = torch.tensor([[0.0, -0.0, 0.0, 0.0], [3, 3, 1, 3]]).view(1, 1, 2, 4)
    for dtype in (torch.float32, torch.float64):
        bottom = x.to(dtype, copy=True).requires_grad_()
        layer = build("ROIPooling", "roi_pooling_param { pooled_h: 2 pooled_w: 1 }", (1, 1, 2, 4), (1, 5)).to(dtype)
        layer(bottom, torch.tensor([[0, 0, 0, 3, 1]], dtype=dtype)).sum().backward()
        assert bottom.grad.flatten().tolist() == [1, 0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("learns", [False, True])
def test_roi_pooling_passes_over_nan_and_regions_outside(learns):
    x = torch.tensor([[nan, 1.0], [nan, nan]]).view(1, 1, 2, 2).requires_grad_(learns)
    layer = build("ROIPooling", "roi_pooling_param { pooled_h: 1 pooled_w: 1 }", (1, 1, 2, 2), (4, 5)).float()
    rois = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 1, 1, 1], [0, 5, 5, 9, 9], [0, nan, nan, nan, nan]])
    assert layer(x, rois).flatten().tolist()[:3] == [1, torch.finfo(torch.float32).min, 0]


def test_psroi_pooling_is_the_mean_of_each_bin():
    rng = np.random.default_rng(3)
    x, rois = rng.normal(size=(2, 2 * 9, 11, 14)), regions(rng, 40, 2, 60)
    made = apply("PSROIPooling", "psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }", x, rois)
    np.testing.assert_allclose(made, psroi_pooling(x, rois, 3, 2, 0.25), rtol=1e-12, atol=1e-12)


def test_regions_of_images_that_are_not_there_are_refused():
    layer = build("ROIPooling", POOL, (2, 1, 4, 4), (3, 5))
    for image in (2, -1, nan):
        rois = torch.zeros(3, 5, dtype=torch.float64)
        rois[1, 0] = image
        with pytest.raises(LayerError, match=r"image index \S+ in row 1, expected 0 to 1 for a batch of 2"):
            layer(torch.zeros(2, 1, 4, 4, dtype=torch.float64), rois)


def test_what_pooling_of_regions_refuses():
    x, rois = (2, 18, 4, 4), (3, 5)
    assert_rejected("ROIPooling", "", x, rois, says="pooled_h and pooled_w must both be given and positive")
    assert_rejected("ROIPooling", POOL, x, (3, 4), says="has shape 3 4 (12), expected (R, 5)")
    assert_rejected("ROIPooling", POOL, (3, 5), rois, says="expected (N, C, H, W)")
    options = "psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 2 }"
    assert_rejected("PSROIPooling", options, x, rois, says="18 channels, expected output_dim x group_size^2 = 8")
    assert_rejected("PSROIPooling", options.replace("output_dim: 2", ""), x, rois, says="output_dim must be given")


def test_no_regions_of_another_shape_are_refused():
    x, rois = (1, 2, 4, 4), (0, 5, 3)
    assert_rejected("ROIPooling", POOL, x, rois, says="expected (R, 5)")
    options = "roi_align_param { pooled_h: 2 pooled_w: 2 sampling_ratio: 2 }"
    assert_rejected("ROIAlign", options, x, rois, says="expected (R, 5)")
