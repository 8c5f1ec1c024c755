"""Collects the outputs of a test net and the correct labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from caffe import reliability
from caffe.doctor.head import Head, find_head, makes_probabilities
from caffe.doctor.view import View
from caffe.errors import NetError
from caffe.proto import caffe_pb2
from caffe.solver.epochs import records

__all__ = ["collect", "collect_numbers", "head_of", "number_head"]


def head_of(net: Any) -> Head:
    """Return the names of the score and label blobs of a net in TEST. Raises NetError if it is not a classifier."""
    head = find_head(View(net.to_proto(), caffe_pb2.TEST, caffe_pb2.NetState()))
    if head is None or not head.classes:
        raise NetError(
            f'the net "{net.name}" is not a classifier: this needs an Accuracy layer, or a loss over classes, in TEST'
        )
    return head


def number_head(net: Any) -> Head:
    """Return the names of prediction and label blobs of a regression net in TEST. Raises NetError for other nets."""
    head = find_head(View(net.to_proto(), caffe_pb2.TEST, caffe_pb2.NetState()))
    if head is None or head.classes:
        raise NetError(f'the net "{net.name}" does not predict numbers: expected a loss such as EuclideanLoss in TEST')
    return head


def collect_numbers(
    net: Any, head: Head, batches: int, tell: Callable[[int, float], None]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Collect predictions and labels (items) of a regression net, and the mean loss of `batches` batches.

    If the data start again, repeated items are left out.
    """
    found: list[np.ndarray] = []
    right: list[np.ndarray] = []
    total = 0.0
    for number in range(batches):
        total += net.evaluate()
        found.append(net.blobs[head.outputs].data.ravel().astype(np.float64))
        right.append(net.blobs[head.labels].data.ravel().astype(np.float64))
        tell(number + 1, total / (number + 1))
    batch, count = records(net)
    kept = count if count and batch * batches >= count else None
    return np.concatenate(found)[:kept], np.concatenate(right)[:kept], total / batches


def collect(
    net: Any, head: Head, batches: int, tell: Callable[[int, float], None]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Collect probabilities (items, classes), labels (items) and the mean loss of `batches` batches.

    If the data start again, repeated items are left out. `tell` is called with the number of batches done and the loss.
    """
    made = makes_probabilities(net, head.outputs)
    found: list[np.ndarray] = []
    right: list[np.ndarray] = []
    total = 0.0
    for number in range(batches):
        total += net.evaluate()
        values = net.blobs[head.outputs].data.astype(np.float64)
        values = values if made else reliability.softmax(values, head.axis)
        found.append(np.moveaxis(values, head.axis, -1).reshape(-1, values.shape[head.axis]))
        right.append(net.blobs[head.labels].data.ravel().astype(np.int64))
        tell(number + 1, total / (number + 1))
    probabilities, labels = np.concatenate(found), np.concatenate(right)
    batch, count = records(net)
    if count and len(labels) == batch * batches:
        probabilities, labels = probabilities[:count], labels[:count]
    return probabilities, labels, total / batches
