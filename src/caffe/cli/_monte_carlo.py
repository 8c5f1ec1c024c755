"""`caffe test -mc`: a test with active dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe import log, reliability
from caffe.cli.display import Display
from caffe.doctor.head import Head, find_head, makes_probabilities
from caffe.doctor.view import View
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2

__all__ = ["score"]


def score(net: Any, iterations: int, runs: int, picture: str, display: Display) -> None:
    """Score a net by the mean of `runs` samples of each batch, and by the usual run."""
    head = _head(net)
    kinds = {"one run without dropout": reliability.Reliability(), f"mean of {runs} runs": reliability.Reliability()}
    plain, mean = kinds.values()
    spread: list[tuple[float, float]] = []
    log.info("caffe.cpp:281", f"Running for {iterations} iterations, {runs} times each.")
    with display.bar(f"test {net.name}", iterations) as bar:
        for iteration in range(iterations):
            usual, drawn = reliability.samples(net, runs, [head.outputs, head.labels])
            labels = usual[head.labels].ravel()
            probabilities = _probabilities(net, head, drawn[head.outputs], 1)
            plain.add(_items(_probabilities(net, head, usual[head.outputs]), head.axis), labels)
            mean.add(_items(probabilities.mean(0), head.axis), labels)
            variance = _items(probabilities.var(0), head.axis).sum(1)
            spread += zip(variance, mean.right[-1], strict=True)
            _tell(iteration, variance, mean.right[-1])
            bar.update(iteration + 1, f"accuracy {log.number(mean.accuracy)}")
    _conclude(kinds, np.array(spread), display)
    if picture:
        reliability.draw(kinds, picture)
        print(f"drawn: {picture}")


def _head(net: Any) -> Head:
    head = find_head(View(net.to_proto(), caffe_pb2.TEST, caffe_pb2.NetState()))
    if head is None or not head.classes:
        raise CaffeError("-mc scores a classifier: it needs an Accuracy layer, or a loss over classes, in TEST")
    return head


def _probabilities(net: Any, head: Head, values: np.ndarray, more: int = 0) -> np.ndarray:
    """Return the probabilities that the head reads. The top of a Softmax layer already contains them."""
    axis = head.axis + more if head.axis >= 0 else head.axis
    made = makes_probabilities(net, head.outputs)
    return values.astype(np.float64) if made else reliability.softmax(values, axis)


def _items(values: np.ndarray, axis: int) -> np.ndarray:
    """Return an array (items, classes) with one item per label."""
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])


def _tell(iteration: int, variance: np.ndarray, right: np.ndarray) -> None:
    log.info("caffe.cpp:304", f"Batch {iteration}, accuracy = {log.number(right.mean())}")
    log.info("caffe.cpp:304", f"Batch {iteration}, variance = {log.number(variance.mean())}")


def _conclude(kinds: dict[str, reliability.Reliability], spread: np.ndarray, display: Display) -> None:
    right = spread[:, 1] > 0
    lines = [
        f"{name}: accuracy {kind.accuracy:.4g}, calibration error {kind.error:.4g}" for name, kind in kinds.items()
    ]
    parts = [("correct items", spread[right, 0]), ("wrong items", spread[~right, 0])]
    facts = [f"{values.mean():.3g} {where}" for where, values in parts if len(values)]
    lines.append(f"variance of the probabilities: {', '.join(facts)}")
    for line in lines:
        log.info("caffe.cpp:321", line)
        print(line)
