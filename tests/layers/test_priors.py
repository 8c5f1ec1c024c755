"""PriorBox and PriorBoxClustered, with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import caffe
from caffe.layers import Layer
from tests.layers.alone import alone
from tests.layers.build import assert_rejected

MAP, IMAGE = (1, 2, 1, 2), (1, 3, 20, 40)


def made(layer: Layer, shape: tuple[int, ...] = MAP) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (H, W, P, 4) in pixels of the image, and the variances."""
    top = layer(torch.zeros(shape), torch.zeros(IMAGE)).numpy()
    boxes, variances = top[0].reshape(2, *shape[2:], -1, 4)
    return boxes * (40, 20, 40, 20), variances


def test_sizes_and_ratios_of_each_cell_in_order():
    options = "min_size: 4 max_size: 9 aspect_ratio: 4 aspect_ratio: 1 aspect_ratio: 0.25 variance: [1, 2, 3, 4]"
    boxes, variances = made(alone("PriorBox", [MAP, IMAGE], f"prior_box_param {{ {options} }}"))
    sizes = [(4, 4), (6, 6), (8, 2), (2, 8)]  # the ratio 1 / 4 follows from flip, and is also given explicitly
    for column, x in enumerate((10, 30)):
        expected = [(x - w / 2, 10 - h / 2, x + w / 2, 10 + h / 2) for w, h in sizes]
        np.testing.assert_allclose(boxes[0, column], expected, rtol=1e-6)
    np.testing.assert_array_equal(variances, np.broadcast_to([1, 2, 3, 4], variances.shape))


def test_given_step_offset_image_and_clip():
    options = "min_size: 10 step_h: 4 step_w: 6 offset: 0 img_h: 20 img_w: 40 clip: true flip: false aspect_ratio: 2"
    boxes, variances = made(alone("PriorBox", [MAP, IMAGE], f"prior_box_param {{ {options} }}"))
    assert boxes.shape == (1, 2, 2, 4)
    half = 5 * math.sqrt(2)
    expected = [[(0, 0, 5, 5), (0, 0, half, half / 2)], [(1, 0, 11, 5), (0, 0, 6 + half, half / 2)]]
    np.testing.assert_allclose(boxes[0], expected, rtol=1e-6)
    np.testing.assert_allclose(variances, 0.1)


def test_sizes_lose_their_fraction_as_in_ssd(caplog):
    whole, fraction = (
        made(alone("PriorBox", [MAP, IMAGE], f"prior_box_param {{ min_size: {size} max_size: 8 }}"))
        for size in (4, 4.75)
    )
    np.testing.assert_array_equal(whole[0], fraction[0])
    assert "min_size is truncated to whole pixels, 4.75 to 4" in caplog.text


def test_clustered_boxes_have_the_sizes_given():
    layer = alone("PriorBoxClustered", [MAP, IMAGE], "prior_box_param { width: [4, 3.5] height: [2, 5] }")
    expected = [(8, 9, 12, 11), (8.25, 7.5, 11.75, 12.5)]
    np.testing.assert_allclose(made(layer)[0][0, 0], expected, rtol=1e-6)


def test_priors_are_made_once_a_shape():
    layer = alone("PriorBox", [MAP, IMAGE], "prior_box_param { min_size: 4 }")
    x, image = torch.zeros(MAP), torch.zeros(IMAGE)
    assert layer(x, image) is layer(x, image)
    assert layer(torch.zeros(1, 2, 3, 2), image).shape == (1, 2, 24)


@pytest.mark.parametrize("optimize", [False, True])
def test_a_user_who_writes_into_the_priors_does_not_change_the_next_run(tmp_path, optimize):
    (tmp_path / "net.prototxt").write_text(NET)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    if optimize:
        net.optimize()
    net.forward()
    first = net.blobs["p"].data.copy()
    net.blobs["p"].data[...] = 7
    net.forward()
    np.testing.assert_array_equal(net.blobs["p"].data, first)
    net.blobs["x"].reshape(1, 2, 4, 4)
    net.forward()
    assert net.blobs["p"].data.shape == (1, 2, 64)


NET = """
layer { name: "x" type: "Input" top: "x" top: "image"
        input_param { shape { dim: [1, 2, 1, 2] } shape { dim: [1, 3, 20, 40] } } }
layer { name: "p" type: "PriorBox" bottom: "x" bottom: "image" top: "p" prior_box_param { min_size: 4 } }
"""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "needs min_size"),
        ("min_size: 4 max_size: 4", "max_size 4 must be above"),
        ("min_size: [4, 5] max_size: 9", "1 max_size for 2 min_size"),
        ("min_size: 0.5", "min_size is 0.5"),
        ("min_size: 4 variance: [1, 2]", "has 2 variances"),
        ("min_size: 4 variance: 0", "variance 0 must be above 0"),
        ("min_size: 4 aspect_ratio: 0", "aspect_ratio is 0"),
        ("min_size: 4 step: 3 step_h: 3", "give step alone, or step_h and step_w"),
        ("min_size: 4 img_h: 3", "give img_size alone, or img_h and img_w"),
        ("min_size: 4 step: 0", "step is 0"),
        ("min_size: 4 width: 3", "has width, which this layer does not have"),
        ("min_size: 4 faceboxes: true", "has faceboxes"),
    ],
)
def test_wrong_options_of_prior_box(options, says):
    assert_rejected("PriorBox", f"prior_box_param {{ {options} }}", MAP, IMAGE, says=says)


def test_wrong_options_of_clustered_priors_and_wrong_bottoms():
    assert_rejected("PriorBoxClustered", "prior_box_param { width: 3 }", MAP, IMAGE, says="1 width and 0 height")
    assert_rejected("PriorBoxClustered", "", MAP, IMAGE, says="no prior box")
    assert_rejected("PriorBox", "prior_box_param { min_size: 4 }", (2, 3), IMAGE, says="expected (N, C, H, W)")


def test_denser_boxes_have_a_second_one_half_a_step_below():
    options = "min_size: 4 max_size: 9 aspect_ratio: 4 step: 10 denser_prior_boxes: true variance: [1, 2, 3, 4]"
    boxes, variances = made(alone("PriorBox", [MAP, IMAGE], f"prior_box_param {{ {options} }}"))
    plain, _ = made(
        alone("PriorBox", [MAP, IMAGE], "prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 4 step: 10 }")
    )
    np.testing.assert_allclose(boxes[:, :, ::2], plain, rtol=1e-6)
    np.testing.assert_allclose(boxes[:, :, 1::2], plain + np.array([0, 5, 0, 5]), rtol=1e-6)
    np.testing.assert_array_equal(variances, np.broadcast_to([1, 2, 3, 4], variances.shape))
