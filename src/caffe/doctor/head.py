"""How a net is judged: the outputs that a loss compares with labels, and the accuracy of guessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.doctor.view import Node, View
from caffe.layers.loss import SigmoidCrossEntropyLoss

__all__ = ["Head", "find_head", "makes_probabilities"]


@dataclass(frozen=True)
class Head:
    """A loss or Accuracy layer. `outputs` and `labels` name its bottoms.

    `classes` says whether the labels are class indices; `axis` is the class axis of the outputs.
    """

    node: Node
    outputs: str
    labels: str
    classes: bool
    axis: int = 1

    def share_right(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of items whose largest output is at their label; NaN for shapes that do not match."""
        if not self.classes:
            same = outputs.size == labels.size and labels.size == len(labels)
            return float((np.round(outputs).ravel() == labels.ravel()).mean()) if same else float("nan")
        if not -outputs.ndim <= self.axis < outputs.ndim or not outputs.size:
            return float("nan")
        if outputs.size // outputs.shape[self.axis] != labels.size:
            return float("nan")
        return float((outputs.argmax(self.axis).ravel() == labels.ravel()).mean())

    def chance(self, labels: np.ndarray) -> float:
        """Return the accuracy of always predicting the most frequent class, or the loss of predicting the mean."""
        if self.classes:
            _, counts = np.unique(labels.ravel(), return_counts=True)
            return float(counts.max() / counts.sum())
        flat = labels.reshape(len(labels), -1).astype(np.float64)
        if self.node.is_a(SigmoidCrossEntropyLoss):
            p = flat.mean(0).clip(1e-12, 1 - 1e-12)
            return float(-(flat.mean(0) * np.log(p) + (1 - flat.mean(0)) * np.log(1 - p)).sum())
        return float(flat.var(0).sum() / 2)

    def floor(self, labels: np.ndarray) -> float:
        """Return the smallest possible loss: above 0 if targets lie between 0 and 1, as those of an autoencoder."""
        if not self.node.is_a(SigmoidCrossEntropyLoss):
            return 0.0
        t = labels.reshape(len(labels), -1).astype(np.float64).clip(1e-12, 1 - 1e-12)
        return float(-(t * np.log(t) + (1 - t) * np.log(1 - t)).sum(1).mean())


def find_head(view: View) -> Head | None:
    """Find the layer to judge by: an Accuracy layer, else the last loss with labels; None if there is none."""
    losses = [node for node in view.nodes if len(node.spec.bottom) >= 2 and (node.kind.is_score or _is_loss(node))]
    losses.sort(key=lambda node: (node.kind.is_score, node.number))
    # the last Accuracy layer without top_k is used: layers with top_k measure another value, auxiliary ones come first
    plain = [node for node in losses if not node.kind.is_score or node.spec.accuracy_param.top_k == 1]
    if not plain:
        return None
    node = plain[-1]
    return Head(
        node, node.spec.bottom[0], node.spec.bottom[1], node.kind.reads_classes, node.kind.class_axis(node.spec)
    )


def makes_probabilities(net: Any, blob: str) -> bool:
    """Whether a blob of a built net contains the probabilities of classes, as a Softmax layer computes them."""
    maker = next((step.layer for step in reversed(net.steps) if blob in step.top_names), None)
    return maker is not None and maker.probabilities


def _is_loss(node: Node) -> bool:
    """Whether the layer contributes to the loss."""
    return any(node.spec.loss_weight) if node.spec.loss_weight else bool(node.kind.default_loss_weight)
