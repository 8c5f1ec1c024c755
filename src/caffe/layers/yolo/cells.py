"""What YOLO's layers share: boxes (x, y, w, h) of cells and anchors, truth as rows, and gradients that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.layers.support.boxes import overlaps
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look

__all__ = ["Truth", "anchors_of", "apart", "boxes_of", "check_map", "corners", "lossy", "read_truth", "shapes_overlap"]


def corners(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) as (xmin, ymin, xmax, ymax), from centre and size."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def shapes_overlap(a: Tensor, b: Tensor) -> Tensor:
    """The overlap (..., N, M) of sizes a (..., N, 2) with sizes b (..., M, 2), laid centre on centre."""
    return overlaps(corners(torch.cat([a * 0, a], -1)), corners(torch.cat([b * 0, b], -1)))


def anchors_of(layer: Layer, count: int | None = None) -> list[tuple[float, float]]:
    """The pairs in `biases`, the widths and heights of the anchors; `count` of them if given."""
    flat = list(layer.opt.biases)
    wanted = "pairs, the width and the height of each anchor" if count is None else f"{2 * count}, two an anchor"
    fits = bool(flat) and len(flat) % 2 == 0 if count is None else len(flat) == 2 * count
    layer.require(fits, f"has {len(flat)} values of biases, expected {wanted}")
    return list(zip(flat[::2], flat[1::2], strict=True))


def check_map(layer: Layer, index: int, x: Tensor, anchors: int, classes: int) -> None:
    """Bottom `index` is a map (N, anchors (5 + classes), H, W) with at least one cell."""
    channels = anchors * (5 + classes)
    fact = f"{layer.bottom_name(index)} has shape {shape_text(x.shape)}, expected (N, {channels}, H, W): {anchors}"
    wanted = f"{fact} anchors of 4 coordinates, an objectness and {classes} classes"
    layer.require(x.dim() == 4 and x.shape[1] == channels and x.shape[2:].numel() > 0, wanted)


def apart(x: Tensor, anchors: int) -> Tensor:
    """A map (N, A (5 + C), H, W) as (N, A, H, W, 5 + C)."""
    return x.unflatten(1, (anchors, -1)).movedim(2, -1)


def boxes_of(centre: Tensor, size: Tensor, anchors: Sequence[tuple[float, float]], scale: float = 1) -> Tensor:
    """The boxes (N, A, H, W, 4) as shares of the image.

    `centre` (..., 2) is in cells from the cell's own corner; `size` (..., 2) is the logarithm of the size in anchors,
    which are given in cells / `scale`.
    """
    height, width = centre.shape[2:4]
    cells = centre.new_tensor([width, height])
    down, across = (torch.arange(n, device=centre.device, dtype=centre.dtype) for n in (height, width))
    corner = torch.stack([across.expand(height, width), down.unsqueeze(1).expand(height, width)], -1)
    anchor = centre.new_tensor(anchors).view(-1, 1, 1, 2)
    return torch.cat([(corner + centre) / cells, size.exp() * anchor / (cells * scale)], -1)


class Truth:
    """Boxes that are there: `label` (N, T), `box` (N, T, 4), and which of the T rows count.

    A row counts if no row before it, nor itself, has x = 0 (`seen`) or w = 0 (`there`), as in the source.
    """

    def __init__(self, rows: Tensor, label: Tensor) -> None:
        self.label, self.box = label, rows[..., 1:]
        self.seen = (rows[..., 1] != 0).cumprod(1).bool()
        self.there = (rows[..., 3] != 0).cumprod(1).bool()


def check_truth(layer: Layer, x: Tensor, rows: Tensor) -> None:
    """Bottom 1 holds rows of five for each image of bottom 0."""
    fact = f"{layer.bottom_name(1)} has shape {shape_text(rows.shape)}, expected rows [label, x, y, w, h] for each of"
    fits = rows.dim() > 1 and rows.shape[0] == x.shape[0] and rows.shape[1:].numel() % 5 == 0
    layer.require(fits, f"{fact} the {x.shape[0]} images")


def read_truth(layer: Layer, rows: Tensor, classes: int) -> Truth:
    """The rows [label, x, y, w, h] of bottom 1; an error for a label that is no class."""
    rows = rows.detach().reshape(len(rows), -1, 5)
    truth = Truth(rows, rows[..., 0].nan_to_num(-1, -1, -1).long())
    if is_exact():  # the gradient check may have filled the truth with random numbers
        truth.label = truth.label.clamp(0, classes - 1)
    if can_look(rows):
        wrong = truth.there & ((truth.label < 0) | (truth.label >= classes))
        if wrong.any():
            label = number_text(float(rows[..., 0][wrong][0]))
            layer.error(
                f"{layer.bottom_name(1)} holds the label {label}, expected 0 to {classes - 1}; correct the data"
            )
        used = int((truth.there | truth.seen).sum(1).max()) if len(rows) else 0
        truth = Truth(rows[:, :used], truth.label[:, :used])
    return truth


class _Given(torch.autograd.Function):
    """The loss, whose gradient is another tensor times the gradient of the loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None


def lossy(x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
    """`loss` with the gradient `grad` for x. The gradient check gets the slope of `loss`, and is told."""
    if is_exact():
        tell("the gradient is the source's, not the slope of the loss")
        return loss
    made: Tensor = _Given.apply(x, loss.detach(), grad.detach())
    return made
