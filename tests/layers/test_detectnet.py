"""DetectNet's grid of labels and its image augmentation, with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.build import apply, assert_rejected

GRID = (
    "stride: 4 image_size_x: 16 image_size_y: 12 scale_cvg: 0.5 gridbox_type: GRIDBOX_MIN min_cvg_len: 2 obj_norm: true"
)
CLASSES = "object_class { src: 1 dst: 0 } object_class { src: 8 dst: 1 }"


def truth(*boxes: tuple[float, ...]) -> np.ndarray:
    rows = np.zeros((1, 1, 5, 16))
    rows[0, 0, 0, :2] = len(boxes), 16
    for i, (x, y, width, height, kind) in enumerate(boxes, 1):
        rows[0, 0, i, [0, 1, 2, 3, 5]] = x, y, width, height, kind
    return rows


def run(image: np.ndarray, rows: np.ndarray, more: str = "", phase: int = TEST) -> tuple[np.ndarray, np.ndarray]:
    options = f"detectnet_groundtruth_param {{ {GRID} {CLASSES} }} {more}"
    data, labels = apply("DetectNetTransformation", options, image, rows, tops=2, phase=phase)
    return data.numpy(), labels.numpy()


def test_the_grid_by_hand():
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 12, 16)).astype(float)
    data, labels = run(
        image, truth((2, 1, 8, 6, 8), (-4, 2, 6, 4, 1), (0, 0, 9, 9, 5)), "transform_param { mean_value: 127 }"
    )
    np.testing.assert_allclose(data, image - 127, atol=1e-4)
    assert labels.shape == (1, 10, 3, 4)
    # the first box is covered from (4, 2.5) to (8, 5.5): cells (0, 1) and (1, 1); the second is cut to (0, 2, 2, 4)
    wanted = np.zeros((3, 4))
    wanted[[0, 1], 1] = 1
    np.testing.assert_array_equal(labels[0, 9], wanted)
    wanted = np.zeros((3, 4))
    wanted[[0, 1], 0] = 1
    np.testing.assert_array_equal(labels[0, 8], wanted)
    np.testing.assert_allclose(labels[0, :8, 1, 1], [1, 2 - 4, 1 - 4, 10 - 4, 7 - 4, 1 / 8, 1 / 6, 16 / 12], rtol=1e-6)
    assert not labels[0, :, 2].any()


def test_test_scales_image_and_boxes():
    image = np.full((1, 3, 24, 32), 51.0)
    data, labels = run(image, truth((4, 2, 16, 12, 8)))
    np.testing.assert_allclose(data, np.full((1, 3, 12, 16), 51), rtol=1e-5)
    np.testing.assert_allclose(labels[0, 1:5, 0, 1], [2 - 4, 1, 10 - 4, 7], rtol=1e-6)


def test_a_flip_takes_the_boxes_along():
    image = np.zeros((1, 3, 12, 16))
    image[:, :, 1:7, 2:10] = 255
    data, labels = run(image, truth((2, 1, 8, 6, 8)), "detectnet_augmentation_param { flip_prob: 1 }", TRAIN)
    np.testing.assert_allclose(data[0, 0, 1, 5:15], [0, *[255] * 8, 0], atol=1e-3)
    assert labels[0, 1, 0, 2] == 16 - 2 - 8 - 1 - 8  # one pixel off, as in the source


def test_a_crop_moves_image_and_boxes():
    image = np.zeros((1, 3, 20, 30))
    image[:, :, 8:14, 9:17] = 255
    options = "detectnet_augmentation_param { crop_prob: 1 scale_prob: 1 scale_min: 1 scale_max: 1 }"
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        data, labels = run(image, truth((9, 8, 8, 6, 8)), options, TRAIN)
        rows, columns = np.nonzero(data[0, 0] > 1)
        cells = np.argwhere(labels[0, 0] > 0)
        if len(rows) == 48:
            y, x = cells[0]
            assert (labels[0, 1, y, x] + 4 * x, labels[0, 2, y, x] + 4 * y) == (columns.min(), rows.min())
            seen.add((columns.min(), rows.min()))
    assert len(seen) > 1


def test_a_quarter_turn():
    image = np.zeros((1, 3, 12, 12))
    image[:, :, 2:6, 1:9] = 255
    options = "detectnet_augmentation_param { rotation_prob: 1 max_rotate_degree: 90 }"
    torch.manual_seed(3)
    data, labels = run(image, truth((1, 2, 8, 4, 8)), options, TRAIN)
    assert np.isfinite(data).all()
    assert labels[0, 0].any()
    assert abs(data[0, 0].sum() / 255 - 32) < 16


def test_what_it_refuses():
    options = f"detectnet_groundtruth_param {{ {GRID} }}"
    kind, data, rows = "DetectNetTransformation", (1, 3, 12, 16), (1, 1, 5, 16)
    assert_rejected(kind, options, (1, 1, 12, 16), rows, says="expected (N, 3, H, W)", tops=2)
    assert_rejected(kind, options, data, (1, 1, 5, 7), says="expected (1, 1, boxes + 1, 16)", tops=2)
    assert_rejected(kind, "", data, rows, says="image_size_x must be given", tops=2)
    wrong = truth()
    wrong[0, 0, 0, 0] = 9
    with pytest.raises(LayerError, match="states 9 boxes of 16 numbers, expected up to 4"):
        run(np.zeros(data), wrong)
