"""The losses of MS-CNN and Cascade R-CNN, compared with loops over cells, and enlarged regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected, build
from tests.layers.cases.mined import Maps

ONE = "cls_num: 3 field_h: 20 field_w: 24 downsample_rate: 8 bg_threshold: 0.6 bg_multiple: 2"
GROUP = "cls_num: 3 field_h: [20, 24] field_w: [24, 18] stride: 8 bg_threshold: 0.6 bg_multiple: 2"


def smooth(d: float) -> float:
    return d * d / 2 if abs(d) < 1 else abs(d) - 0.5


def goal(truth: np.ndarray, h: int, w: int, field: tuple[float, float]) -> np.ndarray:
    """Return the target deltas of the cell (h, w) of 8 pixels, for a field (width, height)."""
    x, y, width, height = truth[1:5, h, w]
    near = (x - (w + 0.5) * 8) / field[0], (y - (h + 0.5) * 8) / field[1]
    return np.array([*near, np.log(width / field[0]), np.log(height / field[1])])


def loss(x: np.ndarray, truth: np.ndarray, chosen: np.ndarray, fields: list, bound: bool = True) -> list[float]:
    """Return the loss of the chosen cells (N, H, W): the means of cross entropy and smooth L1."""
    costs, far = [], []
    ends = np.array([0.5, 0.5, np.log(2), np.log(2)])
    for n, h, w in zip(*np.nonzero(chosen), strict=True):
        label = int(truth[n, 0, h, w])
        scores = x[n, :3, h, w]
        costs.append(np.log(np.exp(scores).sum()) - scores[label])
        if label:
            deltas = np.clip(x[n, 3:, h, w], -ends, ends) if bound else x[n, 3:, h, w]
            far += [smooth(d) for d in deltas - goal(truth[n], h, w, fields[n % len(fields)])]
    part = np.mean(far)
    return [np.mean(costs) + part, part]


def test_detection_takes_the_hardest_background():
    rng = np.random.default_rng(3)
    x, truth = rng.normal(size=(2, 7, 4, 5)), Maps((2, 6, 4, 5)).values(rng)
    free = (truth[:, 0] == 0) & (truth[:, 5] < 0.6)
    everything = apply("Detection", f'detection_param {{ {ONE} sample_mode: "all" }}', x, truth)
    front = truth[:, 0] > 0
    np.testing.assert_allclose(everything.flatten(), loss(x, truth, front | free, [(24, 20)]), rtol=1e-6)
    hard = front.copy()
    for n in range(2):
        for k in (1, 2):
            cells = [(x[n, k, h, w], h, w) for h, w in zip(*np.nonzero(free[n]), strict=True)]
            number = max(4, 2 * int((truth[n, 0] == k).sum()))
            for _, h, w in sorted(cells, reverse=True)[:number]:
                hard[n, h, w] = True
    made = apply("DetectionLoss", f'detection_loss_param {{ {ONE} sample_mode: "bootstrap" }}', x, truth)
    np.testing.assert_allclose(made.flatten(), loss(x, truth, hard, [(24, 20)]), rtol=1e-6)


def test_background_is_drawn_below_the_threshold():
    rng = np.random.default_rng(4)
    x, truth = rng.normal(size=(2, 7, 4, 5)), Maps((2, 6, 4, 5)).values(rng)
    tensor = torch.tensor(x, requires_grad=True)
    layer = build("Detection", f"detection_param {{ {ONE} }}", x.shape, truth.shape)
    layer(tensor, torch.tensor(truth))[0, 0, 0, 0].backward()
    touched = tensor.grad[:, :3].abs().sum(1).numpy() > 0
    front, free = truth[:, 0] > 0, (truth[:, 0] == 0) & (truth[:, 5] < 0.6)
    assert touched[front].all()
    assert not touched[~front & ~free].any()
    assert 0 < touched[free].sum() < free.sum()
    assert not tensor.grad[:, 3:][~np.broadcast_to(front[:, None], (2, 4, 4, 5))].any()


def test_the_group_loss_counts_an_images_rows_together():
    rng = np.random.default_rng(5)
    x, truth = rng.normal(size=(4, 7, 4, 5)), Maps((4, 6, 4, 5)).values(rng)
    front, free = truth[:, 0] > 0, (truth[:, 0] == 0) & (truth[:, 5] < 0.6)
    options = f"{GROUP} batch_size: 1000 bg_multiple: 1"
    options = options.replace("bg_multiple: 2 ", "")
    every = apply("DetectionGroupLoss", f"detection_group_loss_param {{ {options} }}", x[:, :3], x[:, 3:], truth)
    wanted = loss(x, truth, front | free, [(24, 20), (18, 24)], bound=False)
    np.testing.assert_allclose(every.flatten(), wanted, rtol=1e-6)
    hard = front.copy()
    for n in (0, 2):
        cells = [
            (1 - np.exp(x[m, 0, h, w]) / np.exp(x[m, :3, h, w]).sum(), m, h, w)
            for m in (n, n + 1)
            for h, w in zip(*np.nonzero(free[m]), strict=True)
        ]
        for _, m, h, w in sorted(cells, reverse=True)[: 2 * int(front[n : n + 2].sum())]:
            hard[m, h, w] = True
    options = f'{GROUP} neg_mining_type: "bootstrap" neg_ranking_type: "conf_prob" field_xyr: 2 field_whr: 2'
    made = apply("DetectionGroupLoss", f"detection_group_loss_param {{ {options} }}", x[:, :3], x[:, 3:], truth)
    np.testing.assert_allclose(made.flatten(), loss(x, truth, hard, [(24, 20), (18, 24)]), rtol=1e-6)


def test_accuracy_by_hand():
    truth = np.zeros((1, 6, 1, 3))
    truth[0, :, 0, 0] = [2, 4, 4, 24, 20, 0.9]  # exactly its field
    truth[0, 5, 0, 1] = 0.5  # its overlap with an object is too large for background
    x = np.zeros((1, 7, 1, 3))
    x[0, :3, 0, 0], x[0, :3, 0, 2] = [0, 1, 2], [0, 3, 1]
    options = ONE.replace(" bg_threshold: 0.6 bg_multiple: 2", "")
    shares, share = apply("DetectionAccuracy", f"detection_accuracy_param {{ {options} }}", x, truth, tops=2)
    assert shares.flatten().tolist() == [0.5, 1]
    assert share.item() == pytest.approx(1)
    none = apply("DetectionAccuracy", f"detection_accuracy_param {{ {options} }}", x, truth * 0, tops=2)
    assert [y.flatten().tolist() for y in none] == [[0, -1], [-1]]  # among equal scores, the last class comes first


def test_what_these_layers_refuse():
    x, truth = (2, 7, 4, 5), (2, 6, 4, 5)
    assert_rejected("Detection", "", x, truth, says="cls_num is 0")
    assert_rejected("Detection", f"detection_param {{ {ONE} }}", (2, 8, 4, 5), truth, says="expected (2, 7, H, W)")
    assert_rejected("DetectionLoss", f"detection_loss_param {{ {ONE} side: 3 }}", x, truth, says="side is of YOLO's")
    assert_rejected("DetectionLoss", "detection_loss_param { field_h: 3 }", x, truth, says="field_h is of MS-CNN's")
    rows = ((4, 3, 4, 5), (4, 4, 4, 5), (4, 6, 4, 5))
    wrong = f'detection_group_loss_param {{ {GROUP} neg_mining_type: "best" }}'
    assert_rejected("DetectionGroupLoss", wrong, *rows, says='neg_mining_type is "best", expected random or bootstrap')
    few = f"detection_group_accuracy_param {{ {GROUP.split(' bg')[0]} field_h: 3 }}"
    assert_rejected("DetectionGroupAccuracy", few, *rows, says="3 values of field_h and 2 of field_w")
    labels = np.zeros(truth)
    labels[0, 0] = 7
    with pytest.raises(LayerError, match=r'bottom "b1" holds the label 7, expected 0 to 2 for 3 classes'):
        apply("Detection", f"detection_param {{ {ONE} }}", np.zeros(x), labels)


def test_regions_are_widened_by_pad_ratio():
    rng = np.random.default_rng(6)
    x, rois = rng.normal(size=(1, 2, 12, 12)), np.array([[0, 16.0, 20, 40, 44]])
    wide = np.array([[0, 16 - 6.25, 20 - 6.25, 40 + 6.25, 44 + 6.25]])
    for kind in ("ROIPooling", "ROIAlign"):
        options = "roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 0.25 %s }"
        padded = apply(kind, options % "pad_ratio: 0.25", x, rois)
        assert torch.equal(padded, apply(kind, options % "", x, wide))
        assert not torch.equal(padded, apply(kind, options % "", x, rois))


def test_batch_size_minus_one_keeps_all_regions():
    rois = [[0.0, 0, 0, 9, 9], [0, 0, 0, 9, 4], [0, 40, 40, 49, 49], [0, 0, 0, 9, 6]]
    options = "cls_num: 3 batch_size: -1 fg_thr: 0.6 bg_thr_hg: 0.6 bg_thr_lw: 0.0 num_img_per_batch: 1"
    tops = apply("ProposalTarget", f"proposal_target_param {{ {options} }}", rois, [[0.0, 0, 0, 9, 9, 2, 0]], tops=6)
    assert tops[1].flatten().tolist() == [2, 2, 2, 0, 0]
