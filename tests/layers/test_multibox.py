"""MultiBoxLoss, compared with its definition, which is computed for one prior and one true box at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.errors import LayerError
from caffe.layers.support.boxes import CENTER_SIZE, decode, overlaps
from tests.layers.alone import alone
from tests.layers.build import assert_rejected
from tests.layers.cases.detection import PRIORS, TRUTH, grid


def area(box: np.ndarray) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    common = area(np.r_[np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])])
    return common / (area(a) + area(b) - common) if common else 0.0


@dataclass
class Plain:
    """The options of the layer, and its loss computed by plain loops."""

    code: str = "CENTER_SIZE"
    variance_in_target: bool = False
    bipartite: bool = False
    mining: str = "MAX_NEGATIVE"
    logistic: bool = False
    l2: bool = False
    by_prior: bool = True
    ignore_cross: bool = False
    bp_inside: bool = False
    difficult: bool = True
    agnostic: bool = False
    nms: float = 0
    nms_prior: bool = False
    normalization: str = "VALID"
    classes: int = 3

    @property
    def options(self) -> str:
        nms = f"nms_param {{ nms_threshold: {self.nms} top_k: 6 }}" if self.nms else ""
        return f"""multibox_loss_param {{ num_classes: {self.classes} code_type: {self.code} sample_size: 5
            encode_variance_in_target: {str(self.variance_in_target).lower()} loc_weight: 0.5 neg_pos_ratio: 1.6
            match_type: {"BIPARTITE" if self.bipartite else "PER_PREDICTION"} overlap_threshold: 0.3 neg_overlap: 0.35
            mining_type: {self.mining} conf_loss_type: {"LOGISTIC" if self.logistic else "SOFTMAX"}
            loc_loss_type: {"L2" if self.l2 else "SMOOTH_L1"} use_prior_for_matching: {str(self.by_prior).lower()}
            ignore_cross_boundary_bbox: {str(self.ignore_cross).lower()} bp_inside: {str(self.bp_inside).lower()}
            use_difficult_gt: {str(self.difficult).lower()} map_object_to_agnostic: {str(self.agnostic).lower()}
            use_prior_for_nms: {str(self.nms_prior).lower()} {nms} }}
            loss_param {{ normalization: {self.normalization} }}"""

    def encoded(self, box: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
        width = np.r_[prior[2:] - prior[:2]]
        if self.code == "CENTER_SIZE":
            centre = ((box[:2] + box[2:]) - (prior[:2] + prior[2:])) / 2 / width
            target = np.r_[centre, np.log((box[2:] - box[:2]) / width)]
        else:
            target = (box - prior) / (np.r_[width, width] if self.code == "CORNER_SIZE" else 1)
        return target if self.variance_in_target else target / variance

    def decoded(self, t: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
        t = t if self.variance_in_target else t * variance
        width = prior[2:] - prior[:2]
        if self.code == "CENTER_SIZE":
            centre, half = t[:2] * width + (prior[:2] + prior[2:]) / 2, np.exp(t[2:]) * width / 2
            return np.r_[centre - half, centre + half]
        return prior + t * (np.r_[width, width] if self.code == "CORNER_SIZE" else 1)

    def matches(self, cells: np.ndarray, truth: list[np.ndarray]) -> tuple[list[int], list[float]]:
        found, most = [-1] * len(cells), [0.0] * len(cells)
        table = np.array([[overlap(cell, box[3:7]) for box in truth] for cell in cells])
        for i, cell in enumerate(cells):
            if self.ignore_cross and (cell.min() < 0 or cell.max() > 1):
                found[i], table[i] = -2, 0
            most[i] = max(table[i])
        left = list(range(len(truth)))
        while left:
            free = [
                (table[i, j], -i, -j) for i in range(len(cells)) if found[i] == -1 for j in left if table[i, j] > 1e-6
            ]
            if not free:
                break
            _, i, j = max(free)
            found[-i] = -j
            left.remove(-j)
        for i in range(len(cells)):
            if found[i] == -1 and not self.bipartite and max(table[i]) >= 0.3:
                found[i] = int(np.argmax(table[i]))
        return found, most

    def conf_cost(self, scores: np.ndarray, label: int) -> float:
        if not self.logistic:
            return float(np.log(np.exp(scores).sum()) - scores[label])
        return sum(math.log1p(math.exp(-x if c == label else x)) for c, x in enumerate(scores))

    def loc_cost(self, t: np.ndarray, box: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> float:
        error = t - self.encoded(box, prior, variance)
        error = error / variance if self.variance_in_target else error
        cell = prior if self.by_prior else self.decoded(t, prior, variance)
        if self.bp_inside:
            error = np.where((cell < 0) | (cell > 1), 0, error)
        size = np.abs(error)
        return float(np.where((size < 1) | self.l2, error**2 / 2, size - 0.5).sum())

    def picked(self, cost: list[float], places: list[int], boxes: np.ndarray, count: int) -> list[int]:
        order = sorted(places, key=lambda i: -cost[i])
        if self.nms:
            kept: list[int] = []
            for i in order[:6]:
                if area(boxes[i]) >= 1e-5 and all(overlap(boxes[i], boxes[k]) <= self.nms for k in kept):
                    kept.append(i)
            order = kept
        return order[:count]

    def loss(self, loc: np.ndarray, conf: np.ndarray, priors: np.ndarray, rows: np.ndarray) -> float:
        boxes, variances = priors.reshape(2, -1, 4)
        loc, conf = loc.reshape(len(loc), -1, 4), conf.reshape(len(conf), -1, self.classes)
        loc_sum = conf_sum = matched = 0.0
        for n in range(len(loc)):
            truth = [row for row in rows if row[0] == n and (self.difficult or not row[7])]
            if not truth:
                conf_sum += sum(self.conf_cost(x, 0) for x in conf[n]) if self.mining == "NONE" else 0
                continue
            label = [1 if self.agnostic else int(row[1]) for row in truth]
            own = np.array([self.decoded(*each) for each in zip(loc[n], boxes, variances, strict=True)])
            found, most = self.matches(boxes if self.by_prior else own, truth)
            near = [
                self.loc_cost(loc[n, i], truth[j][3:7], boxes[i], variances[i]) if j >= 0 else 0.0
                for i, j in enumerate(found)
            ]
            cost = [self.conf_cost(conf[n, i], label[j] if j >= 0 else 0) for i, j in enumerate(found)]
            places, count = [i for i, j in enumerate(found) if j == -1 and most[i] < 0.35], 0
            if self.mining == "MAX_NEGATIVE":
                count = min(int(sum(j >= 0 for j in found) * 1.6), len(places))
            elif self.mining == "HARD_EXAMPLE":
                places, count = list(range(len(found))), 5
            total = [a + b for a, b in zip(cost, near, strict=True)] if self.mining == "HARD_EXAMPLE" else cost
            chosen = self.picked(total, places, boxes if self.nms_prior else own, count)
            for i, j in enumerate(found):
                positive = j >= 0 and (self.mining != "HARD_EXAMPLE" or i in chosen)
                matched += positive
                loc_sum += near[i] * positive
                conf_sum += cost[i] * (positive or self.mining == "NONE" or (j == -1 and i in chosen))
        divisor = {"VALID": matched, "FULL": len(loc) * len(boxes), "BATCH_SIZE": len(loc), "NONE": 1}
        return (0.5 * loc_sum + conf_sum) / max(1, divisor[self.normalization])


def batch(seed: int, images: int = 4, size: int = 4, classes: int = 3) -> list[np.ndarray]:
    """Return predictions, and up to 5 true boxes for each image; the last image has none."""
    rng = np.random.default_rng(seed)
    priors = np.concatenate([grid(size, 0.3), grid(size, 0.55)], 2)
    count = priors.shape[2] // 4
    rows = []
    for n in range(images - 1):
        for _ in range(rng.integers(1, 6)):
            near, extent = rng.uniform(0, 0.7, 2), rng.uniform(0.1, 0.5, 2)
            rows.append([n, rng.integers(1, classes), 0, *near, *(near + extent), rng.random() < 0.3])
    rows.append([-1.0] * 8)
    loc, conf = rng.normal(0, 0.8, (images, count * 4)), rng.normal(0, 2, (images, count * classes))
    return [loc, conf, priors, np.array(rows)]


PLAINS = [
    Plain(),
    Plain(code="CORNER", bipartite=True, normalization="NONE"),
    Plain(code="CORNER_SIZE", variance_in_target=True, normalization="BATCH_SIZE"),
    Plain(variance_in_target=True, l2=True, normalization="FULL"),
    Plain(logistic=True),
    Plain(mining="NONE", normalization="FULL"),
    Plain(mining="HARD_EXAMPLE"),
    Plain(mining="HARD_EXAMPLE", nms=0.2),
    Plain(nms=0.3, nms_prior=True, logistic=True),
    Plain(by_prior=False, bp_inside=True),
    Plain(ignore_cross=True, mining="HARD_EXAMPLE"),
    Plain(ignore_cross=True, bp_inside=True, difficult=False),
    Plain(agnostic=True, classes=2),
]


@pytest.mark.parametrize("plain", PLAINS, ids=range(len(PLAINS)))
def test_the_loss_is_that_of_the_definition(plain):
    for seed in range(4):
        arrays = batch(seed, classes=plain.classes)
        if plain.agnostic:
            arrays[3][:-1, 1] += 4
        shapes = [*(array.shape for array in arrays[:3]), (1, 1, *arrays[3].shape)]
        layer = alone("MultiBoxLoss", shapes, plain.options)
        bottoms = [torch.from_numpy(array).reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
        assert layer(*bottoms).item() == pytest.approx(plain.loss(*arrays), rel=1e-6), seed


def options(text: str = "") -> str:
    return f"multibox_loss_param {{ num_classes: 3 {text} }}"


SHAPES = ((3, 36), (3, 27), PRIORS.shape, (1, 1, *TRUTH.shape))


def test_a_batch_without_truth_costs_nothing_and_has_gradients_of_zero():
    layer = alone("MultiBoxLoss", SHAPES, options())
    loc, conf = torch.randn(3, 36, requires_grad=True), torch.randn(3, 27, requires_grad=True)
    loss = layer(loc, conf, torch.from_numpy(PRIORS).float(), torch.full(SHAPES[3], -1.0))
    loss.backward()
    assert loss.item() == 0
    assert not loc.grad.any()
    assert not conf.grad.any()


@pytest.mark.parametrize("by_prior", [True, False])
def test_each_class_has_offsets_of_its_own(by_prior):
    """If the offsets of all classes are equal and no box is matched twice, the loss equals that with shared offsets."""
    torch.manual_seed(0)
    loc, conf, priors = 0.1 * torch.randn(3, 9, 4), torch.randn(3, 27), torch.from_numpy(PRIORS).float()
    truth = torch.from_numpy(TRUTH[[0, 3]]).float()[None, None]
    text = "mining_type: NONE match_type: BIPARTITE code_type: CENTER_SIZE"
    text += f" use_prior_for_matching: {str(by_prior).lower()}"
    shared = alone("MultiBoxLoss", ((3, 36), *SHAPES[1:3], truth.shape), options(text))
    own = alone("MultiBoxLoss", ((3, 108), *SHAPES[1:3], truth.shape), options(text + " share_location: false"))
    spread = loc.unsqueeze(2).expand(-1, -1, 3, -1).reshape(3, -1).clone().requires_grad_()
    loss = own(spread, conf, priors, truth)
    torch.testing.assert_close(loss, shared(loc.reshape(3, -1), conf, priors, truth))
    loss.backward()
    used = spread.grad.reshape(3, 9, 3, 4).abs().sum((1, 3)) > 0
    assert used.tolist() == [[False, True, False], [False] * 3, [False, False, True]]


def test_priors_and_truth_need_no_gradient(tmp_path):
    """SSD also disables propagate_down for these bottoms. If it is disabled for loc, the loss of loc does not count."""
    net = """layer { name: "in" type: "Input" top: "loc" top: "conf" top: "map" top: "truth" input_param {
        shape { dim: [1, 16] } shape { dim: [1, 12] } shape { dim: [1, 1, 2, 2] } shape { dim: [1, 1, 1, 8] } } }
      layer { name: "s" type: "Scale" bottom: "map" top: "map2" }
      layer { name: "l" type: "Scale" bottom: "loc" top: "loc2" }
      layer { name: "prior" type: "PriorBox" bottom: "map2" bottom: "map" top: "prior" prior_box_param { min_size: 1 } }
      layer { name: "loss" type: "MultiBoxLoss" bottom: "loc2" bottom: "conf" bottom: "prior" bottom: "truth"
              top: "loss" multibox_loss_param { num_classes: 3 } %s }"""
    losses = []
    for extra in ("", "propagate_down: [false, true, false, false]"):
        (tmp_path / "net.prototxt").write_text(net % extra)
        made = caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN)
        made.blobs["loc"].data[...] = 1
        made.blobs["truth"].data[...] = [0, 1, 0, 0, 0, 0.5, 0.5, 0]
        losses.append(float(made.forward()["loss"]))
        made.backward()
        assert made.params["l"][0].diff.any() == (not extra)
    assert losses[1] < losses[0]


def test_wrong_truth():
    layer = alone("MultiBoxLoss", SHAPES, options())
    for place, value, says in (
        (1, 0, "label 0, which is background"),
        (1, 3, "label 3, expected 0 to 2"),
        (0, 3, "images"),
    ):
        rows = TRUTH.copy()
        rows[0, place] = value
        with pytest.raises(LayerError, match=says):
            layer(torch.zeros(3, 36), torch.zeros(3, 27), torch.from_numpy(PRIORS), torch.from_numpy(rows)[None, None])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("do_neg_mining: false mining_type: MAX_NEGATIVE", "contradict"),
        ("share_location: false", "write mining_type: NONE"),
        ("neg_pos_ratio: 0", "neg_pos_ratio is 0"),
        ("mining_type: HARD_EXAMPLE sample_size: 0", "sample_size is 0"),
        ("nms_param { nms_threshold: 0.3 }", "no top_k"),
        ("background_label_id: 3", "must be below num_classes"),
        ("map_object_to_agnostic: true", "num_classes: 2"),
        ("ignore_difficult_gt: true", "ignore_difficult_gt comes from NVCaffe"),
    ],
)
def test_wrong_options(text, says):
    assert_rejected("MultiBoxLoss", options(text), *SHAPES, says=says)


def test_wrong_shapes():
    assert_rejected("MultiBoxLoss", "", *SHAPES, says="needs num_classes")
    assert_rejected("MultiBoxLoss", options(), (3, 35), *SHAPES[1:], says="expected 4 numbers an item for each")
    assert_rejected("MultiBoxLoss", options(), SHAPES[0], (3, 26), *SHAPES[2:], says="of the 9 prior boxes, 27")
    assert_rejected("MultiBoxLoss", options(), (2, 36), *SHAPES[1:], says="2 items")
    assert_rejected("MultiBoxLoss", options(), *SHAPES[:2], (1, 3, 36), SHAPES[3], says="expected (1, 2, 4 x prior")
    assert_rejected("MultiBoxLoss", options(), *SHAPES[:3], (1, 1, 5, 7), says="expected (1, 1, boxes, 8)")


def test_the_second_stage_of_refinedet():
    """The loc of the first stage moves the priors of each image; its objectness excludes negatives."""
    text = "code_type: CENTER_SIZE neg_pos_ratio: 100"
    loc, conf, priors, rows = (torch.from_numpy(array) for array in batch(0))
    truth = rows[rows[:, 0] == 0][None, None]
    loc, conf, first = loc[:1], conf[:1], torch.from_numpy(batch(1)[0])[:1] / 4
    shapes = [tuple(x.shape) for x in (loc, conf, priors, truth, torch.empty(1, 64), first)]
    boxes, variances = priors.reshape(2, -1, 4)
    moved = torch.stack([decode(first.reshape(-1, 4), boxes, variances, CENTER_SIZE), variances]).reshape(priors.shape)
    plain = alone("MultiBoxLoss", shapes[:4], options(text + " loc_weight: 0"))
    full = plain(loc, conf, moved, truth)
    sure = torch.tensor([0.0, 1.0]).to(loc).repeat(1, 32)
    both = alone("MultiBoxLoss", shapes, options(text))(loc, conf, priors, truth, sure, first)
    torch.testing.assert_close(both, alone("MultiBoxLoss", shapes[:4], options(text))(loc, conf, moved, truth))
    assert not torch.isclose(both, alone("MultiBoxLoss", shapes[:4], options(text))(loc, conf, priors, truth))
    cells = overlaps(moved[0, 0].reshape(-1, 4), truth[0, 0, :, 3:7].to(moved)).amax(1)
    negative = int((cells < 0.1).nonzero()[0])
    unsure = sure.clone()
    unsure[0, 2 * negative + 1] = 0.009
    layer = alone("MultiBoxLoss", shapes, options(text + " loc_weight: 0"))
    cost = -F.log_softmax(conf.reshape(32, 3)[negative], 0)[0]
    matches = layer(loc, conf, priors, truth, sure, first), layer(loc, conf, priors, truth, unsure, first)
    torch.testing.assert_close(matches[0], full)
    count = cost / (matches[0] - matches[1])
    torch.testing.assert_close(count, count.round())  # the loss is divided by the number of matches
    assert count >= 1


def test_the_first_stage_must_fit():
    two = ((3, 18), (3, 36))
    assert_rejected("MultiBoxLoss", options(), *SHAPES, (3, 17), says="expected 2 numbers per prior")
    assert_rejected("MultiBoxLoss", options(), *SHAPES, two[0], (3, 35), says="expected 4 numbers per prior")
    by_class = options("share_location: false mining_type: NONE")
    assert_rejected("MultiBoxLoss", by_class, (3, 108), *SHAPES[1:], two[0], (3, 108), says="share_location: true")


def test_the_older_do_neg_mining_says_whether_there_is_mining():
    arrays = batch(0)
    shapes = [*(array.shape for array in arrays[:3]), (1, 1, *arrays[3].shape)]
    bottoms = [torch.from_numpy(array).reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
    old, new, other = (
        alone("MultiBoxLoss", shapes, options(text))(*bottoms).item()
        for text in ("do_neg_mining: false", "mining_type: NONE", "do_neg_mining: true")
    )
    assert old == new != other


def test_smooth_l1_by_hand():
    a, b = torch.tensor([[0.0, 2.0], [0.25, -3.0]]), torch.zeros(2, 2)
    inside, outside = torch.tensor([[1.0, 1], [2, 0]]), torch.tensor([[1.0, 3], [4, 5]])
    plain = alone("SmoothL1Loss", [(2, 2)] * 2)
    assert plain(a, b).item() == pytest.approx((1.5 + 0.25**2 / 2 + 2.5) / 2)
    weighted = alone("SmoothL1Loss", [(2, 2)] * 3)
    assert weighted(a, b, inside).item() == pytest.approx((1.5 + 0.5**2 / 2) / 2)
    rcnn = alone("SmoothL1Loss", [(2, 2)] * 4, "smooth_l1_loss_param { sigma: 2 }")
    assert rcnn(a, b, inside, outside).item() == pytest.approx((3 * (2 - 1 / 8) + 4 * (0.5 - 1 / 8)) / 2)
    assert_rejected("SmoothL1Loss", "smooth_l1_loss_param { sigma: 0 }", (2, 2), (2, 2), says="sigma is 0")
    assert_rejected("SmoothL1Loss", "smooth_l1_loss_param { } smoothl1_param { }", (2, 2), (2, 2), says="keep one")
    assert_rejected("SmoothL1Loss", "", (2, 2), (2, 2), (2, 3), says="expected equal counts")


@pytest.mark.long
def test_torch_compile_runs_the_loss_as_it_is():
    arrays = batch(1)
    shapes = [*(array.shape for array in arrays[:3]), (1, 1, *arrays[3].shape)]
    bottoms = [torch.from_numpy(array).reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
    layer = alone("MultiBoxLoss", shapes, options())
    assert torch.compile(layer, backend="eager")(*bottoms) == layer(*bottoms)
