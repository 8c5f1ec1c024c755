"""Class labels, which blobs store as floats."""

from __future__ import annotations

import math

from torch import Tensor

from caffe.layers.base import Layer
from caffe.layers.support.values import can_look

__all__ = ["class_labels", "number_text"]


def class_labels(layer: Layer, label: Tensor, classes: int, ignore: int | None = None) -> Tensor:
    """Convert `label`, bottom 1 of `layer`, to integers of the same shape, each in 0 .. classes-1 or `ignore`.

    Fractions are truncated, as by Caffe's cast to int. Raises a `LayerError` that names the first label out of range.
    Labels are not checked in shape inference and while a CUDA graph is recorded.
    """
    index = label.detach().long()
    if not can_look(index) or not index.numel():
        return index
    low, high = index.min(), index.max()
    if low >= 0 and high < classes:
        return index
    wrong = (index < 0) | (index >= classes)
    if ignore is not None:
        wrong &= index != ignore
    if wrong.any():
        place = int(wrong.flatten().nonzero()[0])
        number = float(label.detach().flatten()[place])
        if not math.isfinite(number):
            layer.error(
                f"{layer.bottom_name(1)} holds the label {number_text(number)} (element {place}), expected 0 "
                f"to {classes - 1} for {classes} classes; correct the data, or the layer that computes the labels"
            )
        value = int(number)
        layer.error(
            f"{layer.bottom_name(1)} holds the label {value} (element {place}), expected 0 to {classes - 1} "
            f"for {classes} classes; correct the data or the number of outputs, or leave such items out with "
            f"ignore_label: {value}"
        )
    return index


def number_text(number: float) -> str:
    """A label or index for messages: truncated to an integer, or `NaN`, `infinity`, `-infinity`."""
    if math.isfinite(number):
        return str(int(number))
    return {math.inf: "infinity", -math.inf: "-infinity"}.get(number, "NaN")
