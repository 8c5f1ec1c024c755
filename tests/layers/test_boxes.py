"""Boxes: overlaps, non-maximum suppression and encoding, compared with plain loops and numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caffe.layers.support import boxes as b
from caffe.layers.support.boxes import CENTER_SIZE, CORNER, CORNER_SIZE


def scene(count: int, seed: int = 0, size: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return boxes of all sizes, and scores with many ties."""
    generator = torch.Generator().manual_seed(seed)
    centre, half = (
        torch.rand(count, 2, generator=generator),
        torch.rand(count, 2, generator=generator) * size / 2 + 0.01,
    )
    return torch.cat([centre - half, centre + half], 1), torch.rand(count, generator=generator).mul(50).round() / 50


def overlap(one: np.ndarray, other: np.ndarray, offset: float) -> np.float32:
    zero, more = np.float32(0), np.float32(offset)
    width = max(zero, min(one[2], other[2]) - max(one[0], other[0]) + more)
    height = max(zero, min(one[3], other[3]) - max(one[1], other[1]) + more)
    size = [(box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (one, other)]
    return width * height / (size[0] + size[1] - width * height)


def greedy(boxes: Tensor, scores: Tensor, threshold: float, offset: float, top_k: int | None, eta: float) -> list[int]:
    """Compute non-maximum suppression by its definition, one box at a time."""
    rows, kept, limit = boxes.numpy(), [], threshold
    for i in np.argsort(-scores.numpy(), kind="stable")[:top_k]:
        if all(overlap(rows[i], rows[k], offset) <= limit for k in kept):
            kept.append(int(i))
            limit = limit * eta if eta < 1 and limit > 0.5 else limit
    return kept


@pytest.mark.parametrize("top_k", [None, 7, 150])
@pytest.mark.parametrize(("threshold", "offset", "eta"), [(0.45, 0, 1.0), (0.3, 1, 1.0), (0.9, 0, 0.9), (0.6, 0, 0.99)])
def test_nms_keeps_what_the_definition_keeps(threshold, offset, eta, top_k):
    boxes, scores = scene(300)
    if offset:
        boxes = (boxes * 100).round()
    assert b.nms(boxes, scores, threshold, offset, top_k, eta).tolist() == greedy(
        boxes, scores, threshold, offset, top_k, eta
    )


def test_a_long_chain_of_boxes_that_each_cover_the_next_keeps_every_other_one():
    start = torch.arange(200.0)[:, None] * 0.4
    boxes = torch.cat([start, start * 0, start + 1, start * 0 + 1], 1)
    assert b.nms(boxes, -torch.arange(200.0), 0.4).tolist() == list(range(0, 200, 2))


def test_nms_of_nothing_and_of_boxes_without_area():
    assert b.nms(torch.empty(0, 4), torch.empty(0), 0.5).tolist() == []
    assert b.nms(torch.zeros(3, 4), torch.ones(3), 0.5).tolist() == [0, 1, 2]
    assert b.nms(torch.zeros(3, 4), torch.ones(3), 0.5, top_k=0).tolist() == []
    empty = torch.empty(0)
    assert b.batched_nms(torch.empty(0, 4), empty, empty.long(), 0.5).tolist() == []


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("few", [0, 50, 512])
def test_batched_nms_is_nms_of_each_class(few, ordered, monkeypatch):
    """This also holds if some classes, or all, have too many boxes to be processed together."""
    monkeypatch.setattr(b, "_FEW", few)
    monkeypatch.setattr(b, "_BLOCK", 16)
    monkeypatch.setattr(b, "_BLOCK_OF_MANY", 16)
    boxes, scores = scene(300)
    classes = torch.tensor([0, 1, 2, 1, 1]).repeat(60)
    classes = classes.sort().values if ordered else classes
    found = b.batched_nms(boxes, scores, classes, 0.3, top_k=150)
    expected = []
    for label in range(3):
        places = (classes == label).nonzero().flatten()
        expected += places[greedy(boxes[places], scores[places], 0.3, 0, 150, 1.0)].tolist()
    assert found.tolist() == expected


@pytest.mark.parametrize("few", [0, 512])
def test_classes_can_share_boxes_by_their_places(few, monkeypatch):
    monkeypatch.setattr(b, "_FEW", few)
    boxes, _ = scene(150)
    scores, classes = scene(300, seed=1)[1], torch.tensor([0, 1]).repeat(150)
    places = torch.arange(150).flip(0).repeat_interleave(2)
    found = b.batched_nms(boxes, scores, classes, 0.3, top_k=99, places=places)
    assert found.equal(b.batched_nms(boxes[places], scores, classes, 0.3, top_k=99))


@pytest.mark.parametrize("equal", [False, True])
def test_the_best_are_sorted_and_of_equal_scores_the_first_comes_first(equal):
    scores = torch.randperm(50, generator=torch.Generator().manual_seed(0)).float()
    scores = scores.div(7).floor() if equal else scores
    assert b.best(scores, 20).equal(torch.sort(scores, descending=True, stable=True).indices[:20])


def test_overlaps_are_shares_of_the_union():
    one = torch.tensor([[0.0, 0, 2, 2], [1, 1, 1, 1]])
    other = torch.tensor([[1.0, 1, 3, 3], [5, 5, 6, 6], [1, 1, 1, 1]])
    torch.testing.assert_close(b.overlaps(one, other), torch.tensor([[1 / 7, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(b.overlaps(one[:1], other[:1], 1), torch.tensor([[4 / 14]]))
    assert b.overlaps(one[:0], other).shape == (0, 3)


@pytest.mark.parametrize("code", [CORNER, CENTER_SIZE, CORNER_SIZE])
@pytest.mark.parametrize("encoded", [False, True])
def test_ssd_coding_is_undone(code, encoded):
    boxes, priors = scene(20, 1)[0], scene(20, 2)[0]
    variances = None if encoded else torch.tensor([0.1, 0.1, 0.2, 0.2]).expand(20, 4)
    torch.testing.assert_close(b.decode(b.encode(boxes, priors, variances, code), priors, variances, code), boxes)


def test_ssd_coding_by_hand():
    box, prior = torch.tensor([2.0, 3, 6, 5]), torch.tensor([1.0, 1, 3, 5])
    variance = torch.tensor([0.1, 0.1, 0.2, 0.2])
    expected = {
        CORNER: [1.0, 2, 3, 0],
        CENTER_SIZE: [1.0, 0.25, math.log(2), math.log(0.5)],
        CORNER_SIZE: [0.5, 0.5, 1.5, 0],
    }
    for code, values in expected.items():
        torch.testing.assert_close(b.encode(box, prior, None, code), torch.tensor(values))
        torch.testing.assert_close(b.encode(box, prior, variance, code), torch.tensor(values) / variance)


def test_rcnn_deltas_by_hand():
    box, anchor = torch.tensor([[10.0, 20, 29, 39]]), torch.tensor([[0.0, 0, 9, 39]])
    deltas = b.encode_deltas(box, anchor)
    torch.testing.assert_close(deltas, torch.tensor([[1.5, 0.25, math.log(2), math.log(0.5)]]))
    torch.testing.assert_close(b.decode_deltas(deltas, anchor), torch.tensor([[10.0, 20, 30, 40]]))
    torch.testing.assert_close(b.decode_deltas(deltas, anchor, inclusive=True), torch.tensor([[10.0, 20, 29, 39]]))
