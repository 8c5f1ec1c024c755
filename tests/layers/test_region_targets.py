"""The targets, output and routing of Cascade R-CNN, with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TRAIN
from tests.layers.build import apply, assert_rejected

ROIS = [[0.0, 0, 0, 9, 9], [0, 0, 0, 9, 4], [0, 40, 40, 49, 49], [1, 0, 0, 9, 9]]
TRUTH = [[0.0, 0, 0, 9, 9, 2, 0], [1, 0, 5, 9, 14, 1, 0], [1, 30, 30, 39, 39, 1, 1], [-1, 0, 0, 0, 0, 0, 0]]
OPTIONS = "cls_num: 3 batch_size: 8 fg_fraction: 0.5 pickup_discard: false bg_thr_lw: 0.1 bg_thr_hg: 0.5 fg_thr: 0.6"


def test_targets_by_hand():
    more = "bbox_reg_param { bbox_mean: [0, 0, 0, 0] bbox_std: [0.1, 0.1, 0.2, 0.2] }"
    tops = apply("ProposalTarget", f"proposal_target_param {{ {OPTIONS} }} {more}", ROIS, TRUTH, tops=7)
    rois, label, target, inside, outside, matched, weight = (y[:, :, 0, 0].numpy() for y in tops)
    # region 1 overlaps by 0.5: neither class; the ignored box of image 1 is not a region; region 3 overlaps by a third
    assert label[:, 0].tolist() == [2, 2, 1, 0]
    assert rois.tolist() == [ROIS[0], TRUTH[0][:5], TRUTH[1][:5], ROIS[3]]
    np.testing.assert_allclose(matched[:3, 5], 1)
    assert matched[3].tolist() == [0] * 6
    assert not target.any()
    assert inside[:, 8:].sum(1).tolist() == [4, 4, 0, 0]
    np.testing.assert_array_equal(inside, outside)
    np.testing.assert_allclose(weight[:, 0], [0.5 * 4 / 3] * 3 + [0.5 * 4])
    options = "cls_num: 3 batch_size: 8 fg_fraction: 0.9 bg_thr_hg: 0.3 fg_thr: 0.3"
    tops = apply("ProposalTarget", f"proposal_target_param {{ {options} }}", ROIS, TRUTH, tops=6)
    np.testing.assert_allclose(tops[2][1, 8:, 0, 0], [0, 0.5, 0, np.log(2)])
    torch.testing.assert_close(tops[5][1, :, 0, 0], torch.tensor([2, 0, 0, 9, 9, 0.5], dtype=torch.float64))


def test_a_region_is_drawn_where_none_is_left():
    options = f"{OPTIONS} img_width: 100 img_height: 80 append_gtbox: false num_img_per_batch: 1"
    rois, label, *_ = apply("ProposalTarget", f"proposal_target_param {{ {options} }}", ROIS[2:3], TRUTH[:1], tops=6)
    assert rois.shape == (1, 5, 1, 1)
    assert label.item() == 0
    assert (rois[0, 3:] - rois[0, 1:3] >= 31).all()
    with pytest.raises(LayerError, match="are not given"):
        apply(
            "ProposalTarget", f"proposal_target_param {{ {OPTIONS} append_gtbox: false }}", ROIS[2:3], TRUTH[:1], tops=6
        )


def test_the_overlap_before_and_after():
    deltas = np.zeros((2, 8))
    deltas[0, 5] = 0.5
    truth = [[1.0, 0, 5, 9, 14, 0.3], [1, 0, 0, 9, 9, 1]]
    after, before = apply(
        "BboxAccuracy", "bbox_reg_param { cls_aware: false }", deltas, [ROIS[0], ROIS[0]], truth, tops=2
    )
    assert after.item() == pytest.approx(1)
    assert before.item() == pytest.approx(1 / 3)
    none = apply("BboxAccuracy", "", deltas, [ROIS[0], ROIS[0]], np.zeros((2, 6)))
    assert none.item() == -1


def test_detections_by_class_and_score():
    score = [[0.1, 0.2, 0.7], [0.1, 0.3, 0.6], [0.2, 0.8, 0]]
    rois = [[0.0, 0, 0, 9, 9], [0, 1, 0, 9, 9], [0, 30, 30, 60, 50]]
    options = "frcnn_output_param { conf_thr: 0.25 iou_thr: 0.5 }"
    y = apply("FrcnnOutput", options, score, np.zeros((3, 12)), rois, [[45.0, 50]])[:, :, 0, 0]
    expected = [[0, *[-1] * 6], [0, 30, 30, 50, 45, 1, 0.8], [0, 1, 0, 9, 9, 1, 0.3], [0, 0, 0, 9, 9, 2, 0.7]]
    np.testing.assert_allclose(y, expected)
    best = apply("FrcnnOutput", options.replace("{", "{ max_det_num: 1"), score, np.zeros((3, 12)), rois, [[45.0, 50]])
    np.testing.assert_allclose(best[:, :, 0, 0], expected[:2])


def test_regions_by_scale():
    rois, other = apply("ScaleRoute", "scale_route_param { low_scale: 10 }", ROIS, [[1.0], [2], [3], [4]], tops=2)
    assert other.flatten().tolist() == [1, 3, 4]
    assert rois.shape == (3, 5)
    near = apply("ScaleRoute", "scale_route_param { low_scale: 500 }", ROIS)
    assert near.tolist() == [ROIS[0]]


def test_decoded_boxes_near_the_truth_are_dropped_in_train():
    truth = [[1.0, 0, 0, 9, 9, overlap] for overlap in (0.96, 0.5, 0.1, 0.2)]
    y = apply("DecodeBBox", "", np.zeros((4, 8)), ROIS, truth, phase=TRAIN)
    assert y.tolist() == ROIS[1:]
    with pytest.raises(LayerError, match="no region is left"):
        apply("DecodeBBox", "decode_bbox_param { gt_iou_thr: 0.05 }", np.zeros((4, 8)), ROIS, truth, phase=TRAIN)


def test_errors_for_invalid_input():
    assert_rejected("ProposalTarget", "", (4, 5), (3, 7), tops=6, says="cls_num is 0")
    options = "proposal_target_param { cls_num: 2 fg_thr: 0.3 }"
    assert_rejected("ProposalTarget", options, (4, 5), (3, 7), tops=6, says="expected bg_thr_hg of at most fg_thr")
    assert_rejected("ProposalTarget", "", (4, 6), (3, 7), tops=6, says="expected (R, 5)")
    assert_rejected("BboxAccuracy", "", (4, 8), (3, 5), (4, 6), says="expected (3, 8)")
    assert_rejected("FrcnnOutput", "", (4, 3), (4, 8), (4, 5), (1, 2), says="expected (4, 12)")
    assert_rejected("ScaleRoute", "", (4, 5), (3, 2), tops=2, says="expected 4 rows")
    with pytest.raises(LayerError, match="has the image index 3, expected 0 to 1"):
        apply(
            "ProposalTarget",
            f"proposal_target_param {{ {OPTIONS} num_img_per_batch: 2 }}",
            [[3.0, 0, 0, 1, 1]],
            TRUTH,
            tops=6,
        )
