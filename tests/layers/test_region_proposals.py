"""Proposals and hard examples, compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.proto import caffe_pb2
from tests.layers.build import apply, assert_rejected

OPTIONS = "ratio: [0.5, 1, 2] scale: [8, 16, 32] min_size: 6 pre_nms_topn: 300 post_nms_topn: 60"
PROPOSAL = f"proposal_param {{ {OPTIONS} }}"


def anchors() -> np.ndarray:
    """Return the nine default anchors of py-faster-rcnn."""
    made = []
    for ratio in (0.5, 1, 2):
        width = round((256 / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in (8, 16, 32):
            w, h = width * scale, height * scale
            made.append([7.5 - (w - 1) / 2, 7.5 - (h - 1) / 2, 7.5 + (w - 1) / 2, 7.5 + (h - 1) / 2])
    return np.array(made)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    return common / (sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - common)


def proposals(scores: np.ndarray, deltas: np.ndarray, image: list[float]) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for y, x, a in np.ndindex(*scores.shape[2:], 9):
        x1, y1, x2, y2 = anchors()[a] + [16 * x, 16 * y] * 2
        dx, dy, dw, dh = deltas[0, 4 * a : 4 * a + 4, y, x]
        width, height = x2 - x1 + 1, y2 - y1 + 1
        cx, cy = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
        width, height = width * np.exp(dw), height * np.exp(dh)
        box = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
        box = np.clip(box, 0, [image[1] - 1, image[0] - 1] * 2)
        if min(box[2] - box[0], box[3] - box[1]) + 1 >= 6 * image[2]:
            found.append((scores[0, 9 + a, y, x], box))
    found.sort(key=lambda pair: -pair[0])
    kept: list = []
    for score, box in found[:300]:
        if all(overlap(box, other) <= 0.7 for _, other in kept):
            kept.append((score, box))
    kept = kept[:60]
    return np.array([[0, *box] for _, box in kept]), np.array([[score] for score, _ in kept])


def test_anchors_are_those_of_the_paper():
    np.testing.assert_array_equal(
        anchors()[[0, 3, 8]], [[-84, -40, 99, 55], [-56, -56, 71, 71], [-168, -344, 183, 359]]
    )


def test_proposals_are_the_best_boxes_that_do_not_overlap():
    rng = np.random.default_rng(1)
    scores, deltas = rng.uniform(size=(1, 18, 9, 13)), rng.normal(size=(1, 36, 9, 13)) * 0.4
    image = [140.0, 200.0, 1.6]
    rois, found = apply("Proposal", PROPOSAL, scores, deltas, [image], tops=2)
    expected = proposals(scores, deltas, image)
    assert 10 < len(expected[0]) <= 60
    np.testing.assert_allclose(rois, expected[0], rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(found, expected[1])
    alone = apply("Proposal", PROPOSAL.replace("nms_thresh", "iou_threshold"), scores, deltas, [image])
    assert torch.equal(alone, rois)


def test_a_net_goes_from_proposals_to_scores(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(f"""
        layer {{ name: "data" type: "Input" top: "data" top: "im_info"
          input_param {{ shape {{ dim: [1, 3, 12, 16] }} shape {{ dim: [1, 3] }} }} }}
        layer {{ name: "cls" type: "Convolution" bottom: "data" top: "cls"
          convolution_param {{ num_output: 18 kernel_size: 1 weight_filler {{ type: "gaussian" }} }} }}
        layer {{ name: "box" type: "Convolution" bottom: "data" top: "box"
          convolution_param {{ num_output: 36 kernel_size: 1 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
        layer {{ name: "p" type: "Proposal" bottom: "cls" bottom: "box" bottom: "im_info" top: "rois" {PROPOSAL} }}
        layer {{ name: "pool" type: "ROIPooling" bottom: "data" bottom: "rois" top: "pool"
          roi_pooling_param {{ pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 }} }}
        layer {{ name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param {{ num_output: 4 }} }}
    """)
    caffe.set_random_seed(3)
    net, rng = caffe.Net(path, caffe.TEST), np.random.default_rng(2)
    counts = set()
    for width in (16, 9):
        net.blobs["data"].reshape(1, 3, 12, width)
        net.blobs["data"].data[...] = rng.normal(size=(1, 3, 12, width))
        net.blobs["im_info"].data[...] = [192, 16 * width, 1]
        stepwise = {name: array.copy() for name, array in net.forward(blobs=["rois", "fc"]).items()}
        counts.add(len(stepwise["rois"]))
        assert stepwise["fc"].shape == (len(stepwise["rois"]), 4)
        net.optimize()
        for name, array in net.forward(blobs=["rois", "fc"]).items():
            np.testing.assert_allclose(array, stepwise[name], rtol=1e-5, atol=1e-5)
        net.stepwise()
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("options", "shapes", "says"),
    [
        ("", ((1, 18, 2, 2), (1, 36, 2, 2), (1, 3)), "ratio and scale must each be given"),
        (PROPOSAL, ((2, 18, 2, 2), (2, 36, 2, 2), (1, 3)), "expected (1, 18, H, W)"),
        (PROPOSAL, ((1, 18, 2, 2), (1, 36, 2, 3), (1, 3)), "expected 1 36 2 2 (144)"),
        (PROPOSAL, ((1, 18, 2, 2), (1, 36, 2, 2), (1, 4)), "expected (1, 3): height, width, scale"),
    ],
)
def test_what_proposals_refuse(options, shapes, says):
    assert_rejected("Proposal", options, *shapes, says=says)


def test_the_hardest_regions_of_each_image_count():
    rois = [[0, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    losses, labels = [0.5, 9, 0.7, 0.5, 8, 0.1], [1.0, 2, 3, 4, 5, 6]
    weights = np.arange(1.0, 13).reshape(6, 2)
    options = "box_annotator_ohem_param { roi_per_img: 2 ignore_label: -7 }"
    label, weight = apply("BoxAnnotatorOHEM", options, rois, losses, labels, weights, tops=2)
    assert label.tolist() == [1, 2, 3, -7, 5, -7]  # regions 0 and 3 have equal losses; the first one is chosen
    kept = np.array([1, 1, 1, 0, 1, 0]).reshape(6, 1)
    np.testing.assert_array_equal(weight, weights * kept)


def test_losses_of_each_region():
    rng = np.random.default_rng(4)
    a, b, w = rng.normal(size=(3, 6, 4, 1, 1)) * 2
    loss, items = apply(
        "SmoothL1LossOHEM", "loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 8 }", a, b, w, tops=2
    )
    d = np.abs(w * (a - b))
    cost = np.where(d < 1, d * d / 2, d - 0.5)
    np.testing.assert_allclose(items, cost.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(loss, cost.sum() / 8, rtol=1e-12)
    label = np.array([0, 1, 2, 3, -1, 2]).reshape(6, 1, 1, 1)
    options = "loss_param { ignore_label: -1 }"
    loss, shares, items = apply("SoftmaxWithLossOHEM", options, a, label, tops=3)
    wanted = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, wanted, rtol=1e-12)
    cost = [-np.log(wanted[i, label[i, 0, 0, 0]]).item() if i != 4 else 0 for i in range(6)]
    assert items.shape == (6, 1, 1, 1)
    np.testing.assert_allclose(items.flatten(), cost, rtol=1e-12)
    np.testing.assert_allclose(loss, sum(cost) / 5, rtol=1e-12)
    assert_rejected("SmoothL1LossOHEM", "smooth_l1_loss_param { sigma: 3 }", (6, 4), (6, 4), says="sigma is 3")


def test_hard_example_mining_trains(tmp_path):
    """The net has the layers of R-FCN's training nets, in the same order and with the same options."""
    off = "propagate_down: false propagate_down: false propagate_down: false"
    path = tmp_path / "net.prototxt"
    path.write_text(f"""
        layer {{ name: "in" type: "Input" top: "x" top: "rois" top: "labels" top: "targets" top: "inside"
          input_param {{ shape {{ dim: [1, 12, 6, 7] }} shape {{ dim: [20, 5] }} shape {{ dim: [20, 1, 1, 1] }}
            shape {{ dim: [20, 8, 1, 1] }} shape {{ dim: [20, 8, 1, 1] }} }} }}
        layer {{ name: "a" type: "Convolution" bottom: "x" top: "a"
          convolution_param {{ num_output: 12 kernel_size: 1 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
        layer {{ name: "b" type: "Convolution" bottom: "x" top: "b"
          convolution_param {{ num_output: 32 kernel_size: 1 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
        layer {{ name: "pa" type: "PSROIPooling" bottom: "a" bottom: "rois" top: "pa"
          psroi_pooling_param {{ spatial_scale: 0.0625 output_dim: 3 group_size: 2 }} }}
        layer {{ name: "pb" type: "PSROIPooling" bottom: "b" bottom: "rois" top: "pb"
          psroi_pooling_param {{ spatial_scale: 0.0625 output_dim: 8 group_size: 2 }} }}
        layer {{ name: "cls" type: "Pooling" bottom: "pa" top: "cls"
          pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }} }}
        layer {{ name: "box" type: "Pooling" bottom: "pb" top: "box"
          pooling_param {{ pool: AVE kernel_size: 2 stride: 2 }} }}
        layer {{ name: "lc" type: "SoftmaxWithLossOHEM" bottom: "cls" bottom: "labels" top: "t1" top: "t2" top: "lc"
          loss_weight: 0 loss_weight: 0 loss_weight: 0 propagate_down: false propagate_down: false }}
        layer {{ name: "lb" type: "SmoothL1LossOHEM" bottom: "box" bottom: "targets" bottom: "inside" top: "t3"
          top: "lb" loss_weight: 0 loss_weight: 0 {off} }}
        layer {{ name: "sum" type: "Eltwise" bottom: "lc" bottom: "lb" top: "sum"
          propagate_down: false propagate_down: false }}
        layer {{ name: "hard" type: "BoxAnnotatorOHEM" bottom: "rois" bottom: "sum" bottom: "labels" bottom: "inside"
          top: "l" top: "w" {off} propagate_down: false
          box_annotator_ohem_param {{ roi_per_img: 8 ignore_label: -1 }} }}
        layer {{ name: "silence" type: "Silence" bottom: "t1" bottom: "t2" bottom: "t3" }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "cls" bottom: "l" top: "loss"
          loss_param {{ ignore_label: -1 }} propagate_down: true propagate_down: false }}
        layer {{ name: "loss_box" type: "SmoothL1LossOHEM" bottom: "box" bottom: "targets" bottom: "w" top: "loss_box"
          loss_weight: 1 loss_param {{ normalization: PRE_FIXED pre_fixed_normalizer: 8 }}
          propagate_down: true propagate_down: false propagate_down: false }}
    """)
    solver = caffe_pb2.SolverParameter(net=str(path), base_lr=0.5, lr_policy="fixed", random_seed=1, max_iter=30)
    solver.snapshot_after_train = False
    file = tmp_path / "solver.prototxt"
    file.write_text(str(solver))
    trained, rng = caffe.get_solver(str(file)), np.random.default_rng(3)
    blobs = trained.net.blobs
    blobs["x"].data[...] = rng.normal(size=(1, 12, 6, 7))
    corners = np.sort(rng.uniform(0, 100, (20, 2, 2)), axis=1).reshape(20, 4)
    blobs["rois"].data[...] = np.concatenate([np.zeros((20, 1)), corners], 1)
    blobs["labels"].data[...] = rng.integers(0, 3, (20, 1, 1, 1))
    blobs["targets"].data[...] = rng.normal(size=(20, 8, 1, 1))
    blobs["inside"].data[...] = 1
    trained.net.forward()
    assert (blobs["l"].data != -1).sum() == 8
    assert blobs["w"].data.any((1, 2, 3)).sum() == 8
    first = sum(float(trained.net.forward()[name]) for name in ("loss", "loss_box"))
    trained.step(30)
    assert sum(float(trained.net.forward()[name]) for name in ("loss", "loss_box")) < 0.8 * first
