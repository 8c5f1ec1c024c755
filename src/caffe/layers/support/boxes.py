"""Boxes as corners (xmin, ymin, xmax, ymax): their overlaps, non-maximum suppression, and their coding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from caffe.proto import caffe_pb2

__all__ = ["areas", "batched_nms", "decode", "decode_deltas", "encode", "encode_deltas", "nms", "overlaps"]

CORNER, CENTER_SIZE, CORNER_SIZE = (
    caffe_pb2.PriorBoxParameter.CodeType.Value(name) for name in ("CORNER", "CENTER_SIZE", "CORNER_SIZE")
)

_BLOCK, _BLOCK_OF_MANY = 96, 64
"""The number of boxes of a class that are processed as one block: of a class alone, and of several classes at once."""
_CACHED = 1 << 16
"""The number of pairs whose overlaps are computed at once, so that temporary values fit in the processor's cache."""
_FEW = 512
"""Classes with at most this many boxes are processed together, since a separate call for each would be slower."""
_TOGETHER = 1 << 19
"""The number of pairs whose overlaps are computed at once for such classes."""
_TINY = 1e-38
_NOWHERE = (torch.inf, torch.inf, -torch.inf, -torch.inf, _TINY)
"""The row of a box that overlaps with no other."""


def areas(boxes: Tensor, offset: float = 0) -> Tensor:
    """The areas (..., N) of boxes (..., N, 4); 0 for a box with xmax < xmin or ymax < ymin.

    `offset` 1 is for boxes of whole pixels that include both corners.
    """
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    if offset:
        width, height = width + offset, height + offset
    return width.clamp(min=0) * height.clamp(min=0)


def overlaps(a: Tensor, b: Tensor, offset: float = 0) -> Tensor:
    """Intersection over union (..., N, M) of each box in a (..., N, 4) with each box in b (..., M, 4).

    The result is 0 if neither box has an area.
    """
    return _overlaps(_rows(a, offset), _rows(b, offset), offset)


def _rows(boxes: Tensor, offset: float) -> Tensor:
    """Boxes (..., N, 4) as rows (..., 5, N): the coordinates, and the areas, which are at least tiny."""
    return torch.cat([boxes, areas(boxes, offset).clamp(min=_TINY).unsqueeze(-1)], -1).mT.contiguous()


def _overlaps(a: Tensor, b: Tensor, offset: float = 0) -> Tensor:
    """`overlaps` for boxes stored as rows, a (..., 5, N) and b (..., 5, M)."""
    left, top, right, bottom, area = a.unsqueeze(-1).unbind(-3)
    other_left, other_top, other_right, other_bottom, other_area = b.unsqueeze(-2).unbind(-3)
    width = torch.minimum(right, other_right).sub_(torch.maximum(left, other_left))
    height = torch.minimum(bottom, other_bottom).sub_(torch.maximum(top, other_top))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    common = width.clamp_(min=0).mul_(height.clamp_(min=0))
    room = None if height.requires_grad else height
    return common.div_(torch.add(area, other_area, out=room).sub_(common))


@torch.no_grad()
def nms(
    boxes: Tensor, scores: Tensor, threshold: float, offset: float = 0, top_k: int | None = None, eta: float = 1.0
) -> Tensor:
    """The indices of the boxes that greedy non-maximum suppression keeps, the highest score first.

    boxes (N, 4), scores (N). A box is dropped if its overlap with a kept box of a higher score exceeds `threshold`. Of
    equal scores the lower index comes first. Only the `top_k` boxes with the highest scores are considered (None for
    all). With eta < 1 the threshold is multiplied by eta after each kept box while it exceeds 0.5.
    """
    order = best(scores, top_k)
    rows = _rows(boxes.detach().index_select(0, order), offset)
    return order.index_select(0, _suppress(rows, threshold, offset, eta))


@torch.no_grad()
def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    threshold: float,
    offset: float = 0,
    top_k: int | None = None,
    eta: float = 1.0,
    places: Tensor | None = None,
) -> Tensor:
    """`nms` for each class separately: boxes (M, 4), scores (M), integer classes (M).

    The indices of the kept boxes are ordered by class, then by score. `top_k` applies to each class. With `places` (M),
    box i is `boxes[places[i]]`, so that classes can share boxes without copies of them.
    """
    boxes = boxes.detach()

    def placed(order: Tensor) -> Tensor:
        return order if places is None else places.index_select(0, order)

    by_class = None
    if not bool((classes[1:] >= classes[:-1]).all()):
        by_class = torch.argsort(classes, stable=True)
        classes, scores = classes[by_class], scores[by_class]
    counts = torch.unique_consecutive(classes, return_counts=True)[1].tolist()
    orders, start = [], 0
    for part in scores.split(counts):
        order = best(part, top_k).add_(start)
        orders.append(order if by_class is None else by_class[order])
        start += len(part)
    kept: list[Tensor] = list(orders)
    few = [i for i, order in enumerate(orders) if eta >= 1 and len(orders) > 1 and len(order) <= _FEW]
    for i in sorted(set(range(len(orders))) - set(few)):
        rows = _rows(boxes.index_select(0, placed(orders[i])), offset)
        kept[i] = orders[i].index_select(0, _suppress(rows, threshold, offset, eta))
    for group in _groups(few, [len(order) for order in orders]):
        masks = _suppress_few(boxes, [placed(orders[i]) for i in group], threshold, offset)
        for i, stays in zip(group, masks, strict=True):
            kept[i] = orders[i][stays]
    return torch.cat(kept) if kept else classes.new_empty(0, dtype=torch.long)


def _groups(few: list[int], counts: list[int]) -> Iterator[list[int]]:
    """The classes `few` in groups of similar counts, each of which fits into the cache."""
    few = sorted(few, key=lambda i: counts[i])
    while few:
        size = max(1, _TOGETHER // (_BLOCK_OF_MANY * max(1, counts[few[-1]])))
        yield few[-size:]
        few = few[:-size]


def _suppress_few(boxes: Tensor, orders: Sequence[Tensor], threshold: float, offset: float) -> list[Tensor]:
    """The boxes of each class that are kept, for boxes sorted by score, for all classes at once."""
    counts = [len(order) for order in orders]
    places = nn.utils.rnn.pad_sequence(list(orders), batch_first=True)
    stays = torch.arange(places.shape[1], device=boxes.device) < places.new_tensor(counts).unsqueeze(1)
    rows = _rows(boxes[places], offset)
    nowhere = rows.new_tensor(_NOWHERE).unsqueeze(1)
    for start in range(0, places.shape[1], _BLOCK_OF_MANY):
        end = start + _BLOCK_OF_MANY
        first = rows[..., start:end]
        stays[:, start:end] = kept = _resolved(~(_overlaps(first, first, offset) <= threshold), stays[:, start:end])
        if end < places.shape[1]:
            first, rest = torch.where(kept.unsqueeze(1), first, nowhere), rows[..., end:]
            step = max(1, _CACHED // (_BLOCK_OF_MANY * rest.shape[2]))
            worst = [_overlaps(*part, offset).amax(1) for part in zip(first.split(step), rest.split(step), strict=True)]
            stays[:, end:] &= torch.cat(worst) <= threshold
    return [mask[:count] for mask, count in zip(stays, counts, strict=True)]


def best(scores: Tensor, top_k: int | None = None) -> Tensor:
    """The indices of the `top_k` highest scores (None for all), sorted. Of equal scores the lower index is first."""
    if top_k is None or top_k >= len(scores):
        return torch.argsort(scores, descending=True, stable=True)
    if top_k <= 0:
        return scores.new_empty(0, dtype=torch.long)
    values, order = torch.topk(scores, top_k + 1)
    if bool((values[1:] < values[:-1]).all()):  # no scores are equal, also not the last one and the next
        return order[:top_k]
    near = (scores >= values[top_k - 1]).nonzero().flatten()
    return near.index_select(0, torch.argsort(scores.index_select(0, near), descending=True, stable=True)[:top_k])


def _suppress(rows: Tensor, threshold: float, offset: float, eta: float) -> Tensor:
    """The indices of the kept boxes, for boxes sorted by score, stored as `rows` (5, N)."""
    left = torch.arange(rows.shape[1], device=rows.device)
    kept: list[Tensor] = []
    if eta < 1:
        left, threshold = _adapt(rows, threshold, offset, eta, kept)
        rows = rows.index_select(1, left)
    while len(left):
        first = rows[:, :_BLOCK]
        stays = _resolved(~(_overlaps(first, first, offset) <= threshold)).nonzero().flatten()
        kept.append(left[:_BLOCK].index_select(0, stays))
        left, rows = left[_BLOCK:], rows[:, _BLOCK:]
        if len(left):
            free = _free(first.index_select(1, stays), rows, threshold, offset)
            left, rows = left.index_select(0, free), rows.index_select(1, free)
    return torch.cat(kept) if kept else left


def _resolved(covers: Tensor, there: Tensor | None = None) -> Tensor:
    """A mask (..., B) of the kept boxes of a block, given which box covers which (..., B, B) and which boxes exist."""
    covers = covers.triu_(1).float()
    stays = torch.ones_like(covers[..., 0, :]) if there is None else there.float()
    first = stays
    while True:  # each round settles one more link in a chain of overlapping boxes; chains are short
        then = (stays.unsqueeze(-2) @ covers).squeeze(-2).eq_(0).mul_(first)
        if torch.equal(then, stays):
            return stays.bool()
        stays = then


def _free(first: Tensor, rows: Tensor, threshold: float, offset: float) -> Tensor:
    """The indices of the boxes `rows` (5, N) that no kept box in `first` (5, B) covers."""
    step = max(256, _CACHED // first.shape[1])
    worst = [_overlaps(first, some, offset).amax(0) for some in rows.split(step, 1)]
    return (torch.cat(worst) <= threshold).nonzero().flatten()


def _adapt(rows: Tensor, threshold: float, offset: float, eta: float, kept: list[Tensor]) -> tuple[Tensor, float]:
    """Suppress boxes one by one until the threshold is constant. Returns the remaining indices and the threshold."""
    left, worst = torch.arange(rows.shape[1], device=rows.device), torch.zeros_like(rows[0])
    while len(left) and threshold > 0.5:
        one, rest = left[:1], left[1:]
        kept.append(one)
        threshold *= eta
        found = _overlaps(rows[:, one], rows[:, rest], offset)[0]
        worst = torch.maximum(worst[1:], found)
        free = (worst <= threshold).nonzero().flatten()
        left, worst = rest[free], worst[free]
    return left, threshold


def encode(boxes: Tensor, priors: Tensor, variances: Tensor | None, code: int) -> Tensor:
    """Encode boxes (..., 4) relative to priors (..., 4), as SSD predicts them, in one of PriorBoxParameter.CodeType.

    The result is divided by the variances (..., 4), unless they are None.
    """
    if code == CENTER_SIZE:
        centre, size = _centred(boxes)
        prior_centre, prior_size = _centred(priors)
        target = torch.cat([(centre - prior_centre) / prior_size, (size / prior_size).log()], -1)
    elif code == CORNER:
        target = boxes - priors
    else:
        target = (boxes - priors) / (priors[..., 2:] - priors[..., :2]).repeat(*[1] * (priors.dim() - 1), 2)
    return target if variances is None else target / variances


def decode(predicted: Tensor, priors: Tensor, variances: Tensor | None, code: int) -> Tensor:
    """Decode SSD's predictions (..., 4) to boxes (..., 4): the inverse of `encode`."""
    target = predicted if variances is None else predicted * variances
    if code == CORNER:
        return priors + target
    if code == CENTER_SIZE:
        prior_centre, prior_size = _centred(priors)
        centre, half = target[..., :2] * prior_size + prior_centre, target[..., 2:].exp() * prior_size / 2
        return torch.cat([centre - half, centre + half], -1)
    return priors + target * (priors[..., 2:] - priors[..., :2]).repeat(*[1] * (priors.dim() - 1), 2)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and sizes (..., 2)."""
    near, far = boxes[..., :2], boxes[..., 2:]
    return (near + far) / 2, far - near


def encode_deltas(boxes: Tensor, anchors: Tensor) -> Tensor:
    """R-CNN's deltas (dx, dy, dw, dh) from anchors (..., 4) to boxes (..., 4), both in pixels with inclusive corners.

    dx = (cx - anchor's cx) / anchor's w, dw = log(w / anchor's w), with w = xmax - xmin + 1, cx = xmin + w / 2.
    """
    size, anchor_size = boxes[..., 2:] - boxes[..., :2] + 1, anchors[..., 2:] - anchors[..., :2] + 1
    moved = boxes[..., :2] + size / 2 - (anchors[..., :2] + anchor_size / 2)
    return torch.cat([moved / anchor_size, (size / anchor_size).log()], -1)


def decode_deltas(deltas: Tensor, anchors: Tensor, inclusive: bool = False) -> Tensor:
    """Apply R-CNN's deltas (..., 4) to anchors (..., 4): the inverse of `encode_deltas`.

    As in py-faster-rcnn the far corner is centre + size / 2, one pixel more than `encode_deltas` assumes. With
    `inclusive`, centres are the middle of both corners, and corners are centre -+ (size - 1) / 2.
    """
    less = 1 if inclusive else 0
    anchor_size = anchors[..., 2:] - anchors[..., :2] + 1
    centre = deltas[..., :2] * anchor_size + anchors[..., :2] + (anchor_size - less) / 2
    half = (deltas[..., 2:].exp() * anchor_size - less) / 2
    return torch.cat([centre - half, centre + half], -1)
