"""The box layers of Cascade R-CNN and MS-CNN, compared with plain loops over maps, fields and cells."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from caffe.proto.caffe_pb2 import TEST
from tests.layers.build import apply, assert_rejected
from tests.layers.test_region_proposals import overlap

GROUPS = """box_group_output_param { fg_thr: 0.3 iou_thr: 0.4 max_nms_num: 40 max_post_nms_num: 12 min_size: 6
  box_group_param { field_h: [10, 14] field_w: [12, 8] stride: 8 }
  box_group_param { field_h: 24 field_w: 20 stride: 16 } }"""
NORMAL = "bbox_reg_param { bbox_mean: [0, 0.125, 0, -0.125] bbox_std: [0.125, 0.125, 0.25, 0.25] }"


def boxes(deltas: np.ndarray, fields: list[tuple[int, int]], stride: int) -> list[tuple[tuple, list[float]]]:
    """Yield (image, field, row, column) and the box for deltas (N G, 4, H, W), with the options of NORMAL."""
    found = []
    height, width = deltas.shape[2:]
    for batch, i, j in np.ndindex(len(deltas), height, width):
        image, field = divmod(batch, len(fields))
        tall, wide = fields[field]
        d = deltas[batch, :, i, j] * [0.125, 0.125, 0.25, 0.25] + [0, 0.125, 0, -0.125]
        d = [*np.clip(d[:2], -0.5, 0.5), *np.clip(d[2:], -log(2), log(2))]
        w, h = wide * exp(d[2]), tall * exp(d[3])
        x, y = d[0] * wide + (j + 0.5) * stride - w / 2, d[1] * tall + (i + 0.5) * stride - h / 2
        box = [x, y, x + w - 1, y + h - 1]
        edge = [width * stride - 1, height * stride - 1] * 2
        found.append(((image, batch, i, j), [min(max(a, 0), b) for a, b in zip(box, edge, strict=True)]))
    return found


def chosen(found: list, least: float) -> np.ndarray:
    """Return rows [image, box, score] for the options of GROUPS, from (image, score, box)."""
    rows = []
    for image in range(2):
        mine = [
            (score, box)
            for number, score, box in found
            if number == image and score >= least and min(box[2] - box[0], box[3] - box[1]) + 1 >= 6
        ]
        kept: list = []
        for score, box in sorted(mine, key=lambda pair: -pair[0])[:40]:
            if all(overlap(np.array(box), np.array(other)) <= 0.4 for _, other in kept):
                kept.append((score, box))
        rows += [[image, *box, score] for score, box in kept[:12]]
    return np.array(rows)


def test_box_group_output_finds_the_best_boxes_of_all_maps():
    rng = np.random.default_rng(1)
    probability = [rng.dirichlet([1, 1, 1], shape).transpose(0, 3, 1, 2) for shape in ((4, 4, 5), (2, 2, 3))]
    deltas = [rng.normal(size=(4, 4, 4, 5)) * 4, rng.normal(size=(2, 4, 2, 3)) * 4]
    found = [
        (place[0], 1 - p[place[1], 0, place[2], place[3]], box)
        for p, d, fields, stride in zip(probability, deltas, ([(10, 12), (14, 8)], [(24, 20)]), (8, 16), strict=True)
        for place, box in boxes(d, fields, stride)
    ]
    bottoms = [x for pair in zip(probability, deltas, strict=True) for x in pair]
    rois, scored = apply("BoxGroupOutput", GROUPS + NORMAL, *bottoms, tops=2)
    expected = chosen(found, 0.3)
    assert len(expected) == 24
    np.testing.assert_allclose(scored, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(rois, scored[:, :5])


def test_box_output_scores_the_best_class_against_the_background():
    rng = np.random.default_rng(2)
    maps = [rng.normal(size=(2, 7, 4, 5)) * 3, rng.normal(size=(2, 7, 2, 3)) * 3]
    options = """box_output_param { fg_thr: 1.5 iou_thr: 0.4 max_nms_num: 40 max_post_nms_num: 12 min_size: 6
      field_h: [10, 24] field_w: [12, 20] downsample_rate: [8, 16] }"""
    found = [
        (place[0], x[place[1], 1:3, place[2], place[3]].max() - x[place[1], 0, place[2], place[3]], box)
        for x, field, rate in zip(maps, ((10, 12), (24, 20)), (8, 16), strict=True)
        for place, box in boxes(x[:, 3:], [field], rate)
    ]
    _, scored = apply("BoxOutput", options + NORMAL, *maps, tops=2)
    np.testing.assert_allclose(scored, chosen(found, 1.5), rtol=1e-12, atol=1e-12)


def test_no_box_at_all_is_one_small_box():
    shapes = ((4, 3, 4, 5), (4, 4, 4, 5), (2, 3, 2, 3), (2, 4, 2, 3))
    low = [torch.full(shape, 1 / 3, dtype=torch.float64) for shape in shapes]
    rois = apply("BoxGroupOutput", GROUPS.replace("fg_thr: 0.3", "fg_thr: 0.9"), *low)
    assert rois.tolist() == [[0, 1, 1, 10, 10]]


def test_decoded_boxes_by_hand():
    deltas, rois = np.zeros((2, 8)), [[1, 10, 20, 19, 39], [0, 0, 0, 4, 4]]
    deltas[:, :4] = 9  # of the background
    deltas[0, 4:] = [1, -2, log(2) * 5, 0]
    made = apply("DecodeBBox", "bbox_reg_param { bbox_std: [0.1, 0.1, 0.2, 0.2] }", deltas, rois, phase=TEST)
    # 10 x 20 pixels around (14.5, 29.5), moved by 0.1 * 10 and -0.2 * 20, twice as wide
    np.testing.assert_allclose(made, [[1, 15.5 - 9.5, 25.5 - 9.5, 15.5 + 9.5, 25.5 + 9.5], [0, 0, 0, 4, 4]], atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options", "shapes", "says"),
    [
        ("BoxGroupOutput", GROUPS, ((4, 3, 4, 5), (4, 4, 4, 5)), "2 bottoms and 2 box_group_param"),
        ("BoxGroupOutput", GROUPS, ((3, 3, 4, 5), (3, 4, 4, 5), (2, 3, 2, 3), (2, 4, 2, 3)), "expected (N 2, 4, H, W)"),
        ("BoxGroupOutput", GROUPS, ((2, 3, 4, 5), (2, 4, 4, 5), (2, 3, 2, 3), (2, 4, 2, 3)), "batches of [1, 2]"),
        (
            "BoxOutput",
            "box_output_param { field_w: 8 field_h: 8 }",
            ((1, 6, 2, 2),),
            "downsample_rate is given 0 times",
        ),
        ("BoxOutput", 'box_output_param { nms_type: "IOMU" }', ((1, 6, 2, 2),), 'nms_type is "IOMU"'),
        ("BoxOutput", "bbox_reg_param { bbox_std: 1 }", ((1, 6, 2, 2),), "1 values of bbox_std, expected 4"),
    ],
)
def test_what_the_layers_of_cascades_refuse(kind, options, shapes, says):
    assert_rejected(kind, options, *shapes, says=says)
