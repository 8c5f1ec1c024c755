"""Crops of boxes and warped or deformed regions, compared with loops over cells."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected

RNG = np.random.default_rng(7)


def bilinear(x: np.ndarray, y: float, across: float) -> np.ndarray:
    """Interpolate x (C, H, W) at a position inside it."""
    i, j = min(int(y), x.shape[1] - 1), min(int(across), x.shape[2] - 1)
    k, m = min(i + 1, x.shape[1] - 1), min(j + 1, x.shape[2] - 1)
    f, g = y - i, across - j
    return (1 - f) * ((1 - g) * x[:, i, j] + g * x[:, i, m]) + f * ((1 - g) * x[:, k, j] + g * x[:, k, m])


def crop(x: np.ndarray, box: np.ndarray, size: tuple[int, int], beyond: float) -> np.ndarray:
    made = np.full((len(x), *size), float(beyond))
    ends = [(box[0], box[2]), (box[1], box[3])]
    for i, j in np.ndindex(*size):
        at = [
            (a * (1 - k / (n - 1)) + b * k / (n - 1) if n > 1 else (a + b) / 2) * (cells - 1)
            for (a, b), k, n, cells in zip(ends, (i, j), size, x.shape[1:], strict=True)
        ]
        if all(0 <= p <= n - 1 for p, n in zip(at, x.shape[1:], strict=True)):
            made[:, i, j] = bilinear(x, *at)
    return made


def test_crop_and_resize():
    x, index = RNG.normal(size=(2, 3, 6, 5)), np.array([1.0, 0, 1])
    boxes = np.array([[0.1, 0.2, 0.8, 0.9], [-0.2, 0, 1.2, 0.5], [0.5, 0.7, 0.5, 1]])
    for size in ((3, 4), (1, 2)):
        options = f"crop_h: {size[0]} crop_w: {size[1]} extrapolation_value: 0.25"
        made = apply("CropAndResize", f'crop_and_resize_param {{ {options} data_format: "NCHW" }}', x, index, boxes)
        wanted = [crop(x[int(n)], box, size, 0.25) for n, box in zip(index, boxes, strict=True)]
        np.testing.assert_allclose(made, wanted, rtol=1e-9)
        last = apply("CropAndResize", f"crop_and_resize_param {{ {options} }}", x.transpose(0, 2, 3, 1), index, boxes)
        np.testing.assert_allclose(last, np.transpose(wanted, (0, 2, 3, 1)), rtol=1e-9)


def test_a_pyramid_gives_each_box_its_level():
    maps = [RNG.normal(size=(1, 2, n, n)) for n in (16, 8, 4, 2)]
    sides = np.array([0.05, 0.2, 0.4, 0.9])
    boxes = np.stack([sides * 0 + 0.05, sides * 0 + 0.05, sides + 0.05, sides + 0.05], 1)[None]
    meta = np.array([[0, 0, 0, 0, 500.0, 600]])
    options = 'pyramid_roi_align_param { crop_height: 3 crop_width: 3 data_format: "NCHW" }'
    made = apply("PyramidROIAlign", options, boxes, meta, *maps)
    assert made.shape == (1, 4, 2, 3, 3)
    for k, (side, box) in enumerate(zip(sides, boxes[0], strict=True)):
        level = min(5, max(2, round(math.log2(side * math.sqrt(500 * 600) / 224)) + 4))
        np.testing.assert_allclose(made[0, k], crop(maps[level - 2][0], box, (3, 3), 0), rtol=1e-9)


def test_roi_warping_takes_the_largest_sample():
    x = RNG.normal(size=(1, 2, 9, 8))
    rois = np.array([[0, 1.2, 2, 6, 7.9], [0, -4, -3, 3, 2], [0, 5, 5, 2, 2], [0, 30, 30, 40, 40]])
    made = apply("ROIWarping", "roi_warping_param { pooled_h: 2 pooled_w: 3 }", x, rois)
    for r, roi in enumerate(rois):
        left, top, right, bottom = np.floor(np.abs(roi[1:]) + 0.5) * np.sign(roi[1:])
        height, width = max(bottom - top, 0) / 2, max(right - left, 0) / 3
        n, m = math.ceil(height), math.ceil(width)
        for i, j in np.ndindex(2, 3):
            found = []
            for k in range(n + 1):
                for q in range(m + 1):
                    y, a = top + (i + k / max(n, 1)) * height, left + (j + q / max(m, 1)) * width
                    if -0.5 <= y <= 8.5 and -0.5 <= a <= 7.5:
                        found.append(bilinear(x[0], min(max(y, 0), 8), min(max(a, 0), 7)))
            wanted = np.max(found, 0) if found else np.zeros(2)
            np.testing.assert_allclose(made[r, :, i, j], wanted, rtol=1e-9)


@pytest.mark.parametrize(("pooled", "classes"), [(2, 1), (3, 2), (2, 0)])
def test_deformable_psroi_pooling(pooled, classes):
    g, outputs, part, s, scale, std = 2, 2, 2, 3, 0.25, 0.3
    x, rois = RNG.normal(size=(1, outputs * g * g, 9, 8)), np.array([[0, 3.0, 5, 22, 27], [0, -9, 0, 40, 3]])
    offsets = RNG.normal(size=(2, 2 * classes, part, part))
    options = f"spatial_scale: {scale} output_dim: {outputs} group_size: {g} pooled_size: {pooled} part_size: {part} "
    options += f"sample_per_part: {s} trans_std: {std} no_trans: {str(not classes).lower()}"
    bottoms = (x, rois, offsets) if classes else (x, rois)
    made = apply("DeformablePSROIPooling", f"deformable_psroi_pooling_param {{ {options} }}", *bottoms)
    for r, k, i, j in np.ndindex(2, outputs, pooled, pooled):
        left, top, right, bottom = np.floor(np.abs(rois[r, 1:]) + 0.5) * np.sign(rois[r, 1:])
        left, top, right, bottom = (v * scale - 0.5 for v in (left, top, right + 1, bottom + 1))
        width, height = max(right - left, 0.1), max(bottom - top, 0.1)
        dx = dy = 0.0
        if classes:
            which = k // (outputs // classes)
            dx, dy = (offsets[r, 2 * which + q, i * part // pooled, j * part // pooled] * std for q in (0, 1))
        c, found = (k * g + i * g // pooled) * g + j * g // pooled, []
        for a, b in np.ndindex(s, s):
            y = top + i * height / pooled + dy * height + a * height / pooled / s
            w = left + j * width / pooled + dx * width + b * width / pooled / s
            if -0.5 <= y <= 8.5 and -0.5 <= w <= 7.5:
                found.append(bilinear(x[0, c : c + 1], min(max(y, 0), 8), min(max(w, 0), 7))[0])
        np.testing.assert_allclose(made[r, k, i, j], np.mean(found) if found else 0, rtol=1e-5, atol=1e-6)


def test_what_crops_refuse():
    x, index, boxes = (2, 3, 6, 5), (4,), (4, 4)
    assert_rejected("CropAndResize", "", x, index, boxes, says="must be given and positive")
    options = "crop_and_resize_param { crop_h: 2 crop_w: 2 %s }"
    assert_rejected("CropAndResize", options % "", x, (3,), boxes, says="expected (R) and (R, 4)")
    assert_rejected("CropAndResize", options % 'data_format: "NCHWD"', x, index, boxes, says="expected NHWC or NCHW")
    with pytest.raises(LayerError, match="image index 2, expected 0 to 1"):
        apply("CropAndResize", options % "", np.zeros(x), [0.0, 2], np.zeros((2, 4)))
    options = "deformable_psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 %s }"
    x, rois = (1, 8, 4, 4), (3, 5)
    assert_rejected("DeformablePSROIPooling", options % "", x, rois, says="unless no_trans is true")
    assert_rejected("DeformablePSROIPooling", options % "", x, rois, (3, 2, 3, 2), says="2 x 2 cells, for 3 regions")
    assert_rejected("ROIWarping", "", x, rois, says="pooled_h and pooled_w")
    options = "pyramid_roi_align_param { crop_height: 2 crop_width: 2 }"
    maps = ((1, 4, 4, 2),) * 4
    assert_rejected("PyramidROIAlign", options, (1, 3, 4), (1, 5), *maps, says="expected (N, R, 4) and (N, 6 or more)")
