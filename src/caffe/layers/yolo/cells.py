"""Common code of YOLO's layers: boxes (x, y, w, h) of cells and anchors, truth rows, and hand-written gradients."""

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
    """Convert boxes (..., 4) from centre and size to (xmin, ymin, xmax, ymax)."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def shapes_overlap(a: Tensor, b: Tensor) -> Tensor:
    """The overlap (..., N, M) of boxes with sizes a (..., N, 2) and b (..., M, 2) that have the same centre."""
    return overlaps(corners(torch.cat([a * 0, a], -1)), corners(torch.cat([b * 0, b], -1)))


def anchors_of(layer: Layer, count: int | None = None) -> list[tuple[float, float]]:
    """The widths and heights of the anchors, from the option `biases`. There must be `count` pairs if it is given."""
    flat = list(layer.opt.biases)
    wanted = "pairs, the width and the height of each anchor" if count is None else f"{2 * count}, two an anchor"
    fits = bool(flat) and len(flat) % 2 == 0 if count is None else len(flat) == 2 * count
    layer.require(fits, f"has {len(flat)} values of biases, expected {wanted}")
    return list(zip(flat[::2], flat[1::2], strict=True))


def check_map(layer: Layer, index: int, x: Tensor, anchors: int, classes: int) -> None:
    """Check that bottom `index` is a map (N, anchors (5 + classes), H, W) with at least one cell."""
    channels = anchors * (5 + classes)
    fact = f"{layer.bottom_name(index)} has shape {shape_text(x.shape)}, expected (N, {channels}, H, W): {anchors}"
    wanted = f"{fact} anchors of 4 coordinates, an objectness and {classes} classes"
    layer.require(x.dim() == 4 and x.shape[1] == channels and x.shape[2:].numel() > 0, wanted)


def apart(x: Tensor, anchors: int) -> Tensor:
    """Rearrange a map (N, A (5 + C), H, W) to (N, A, H, W, 5 + C)."""
    return x.unflatten(1, (anchors, -1)).movedim(2, -1)


def boxes_of(centre: Tensor, size: Tensor, anchors: Sequence[tuple[float, float]], scale: float = 1) -> Tensor:
    """The boxes (N, A, H, W, 4) relative to the image size.

    `centre` (..., 2) is in cells, relative to the corner of the box's cell. `size` (..., 2) is the logarithm of the
    size relative to the anchor. Anchors are in units of cells / `scale`.
    """
    height, width = centre.shape[2:4]
    cells = centre.new_tensor([width, height])
    down, across = (torch.arange(n, device=centre.device, dtype=centre.dtype) for n in (height, width))
    corner = torch.stack([across.expand(height, width), down.unsqueeze(1).expand(height, width)], -1)
    anchor = centre.new_tensor(anchors).view(-1, 1, 1, 2)
    return torch.cat([(corner + centre) / cells, size.exp() * anchor / (cells * scale)], -1)


class Truth:
    """Ground truth boxes: `label` (N, T), `box` (N, T, 4), and masks of the valid rows among T.

    As in the source, the rows end at the first row with x = 0 (for `seen`) or w = 0 (for `there`).
    """

    def __init__(self, rows: Tensor, label: Tensor) -> None:
        self.label, self.box = label, rows[..., 1:]
        self.seen = (rows[..., 1] != 0).cumprod(1).bool()
        self.there = (rows[..., 3] != 0).cumprod(1).bool()


def check_truth(layer: Layer, x: Tensor, rows: Tensor) -> None:
    """Check that bottom 1 holds rows of five numbers for each image of bottom 0, or SSD's rows of eight."""
    if _is_ssd(rows):
        return
    fact = f"{layer.bottom_name(1)} has shape {shape_text(rows.shape)}, expected rows [label, x, y, w, h] for each of"
    fits = rows.dim() > 1 and rows.shape[0] == x.shape[0] and rows.shape[1:].numel() % 5 == 0
    layer.require(fits, f"{fact} the {x.shape[0]} images")


def _is_ssd(rows: Tensor) -> bool:
    """Whether the truth has the rows of SSD's AnnotatedData, (1, 1, T, 8)."""
    return rows.dim() == 4 and tuple(rows.shape[:2]) == (1, 1) and rows.shape[3] == 8


def _from_ssd(rows: Tensor, images: int) -> Tensor:
    """Convert SSD's rows [image, label, instance, corners, difficult] to rows (images, T, 5), with zeros behind.

    SSD counts classes from 1, since 0 is the background; YOLO's layers count from 0.
    """
    flat = rows.reshape(-1, 8)
    mine = flat[:, 0] == torch.arange(images, device=rows.device)[:, None]
    order = torch.argsort(~mine, dim=1, stable=True)
    near, far = flat[:, 3:5], flat[:, 5:7]
    made = torch.cat([flat[:, 1:2] - 1, (near + far) / 2, far - near], 1)
    return made[order] * mine.gather(1, order).unsqueeze(-1)


def read_truth(layer: Layer, rows: Tensor, classes: int, images: int) -> Truth:
    """Read the rows [label, x, y, w, h] of bottom 1. Raises an error if a label is not a class."""
    rows = rows.detach()
    rows = _from_ssd(rows, images) if _is_ssd(rows) else rows.reshape(len(rows), -1, 5)
    truth = Truth(rows, rows[..., 0].nan_to_num(-1, -1, -1).long())
    if is_exact():  # in a gradient check the truth may hold random numbers
        truth.label = truth.label.clamp(0, classes - 1)
    if can_look(rows):
        wrong = truth.there & ((truth.label < 0) | (truth.label >= classes))
        if wrong.any():
            label = number_text(float(rows[..., 0][wrong][0]))
            layer.error(
                f"{layer.bottom_name(1)} holds the label {label}, expected 0 to {classes - 1}; correct the data"
            )
        used = int((truth.there | truth.seen).sum(1).max()) if rows.numel() else 0
        truth = Truth(rows[:, :used], truth.label[:, :used])
    return truth


class _Given(torch.autograd.Function):
    """The loss with a given gradient, which backward multiplies by the gradient of the loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None


def lossy(x: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
    """`loss` with the gradient `grad` for x. A gradient check gets the exact gradient and a note of the deviation."""
    if is_exact():
        tell("the gradient is the source's, not the slope of the loss")
        return loss
    made: Tensor = _Given.apply(x, loss.detach(), grad.detach())
    return made
