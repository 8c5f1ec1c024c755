"""Collects the values of a net's first step for pictures, with its own weight fillers and with others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.doctor.case import close, quiet
from caffe.doctor.checks.fillers import refill
from caffe.doctor.exam import Exam
from caffe.errors import CaffeError
from caffe.layers.convolution import Convolution
from caffe.layers.dense import InnerProduct

__all__ = ["FILLERS", "Numbers", "first_filters", "numbers"]

FILLERS = ("", "xavier", "msra")
"""The net's own fillers, and fillers that depend on the layer sizes."""
_MOST = 50_000


@dataclass(frozen=True)
class Numbers:
    """A layer's outputs, after in-place activations, and the gradient at its top."""

    activations: np.ndarray
    gradients: np.ndarray


def numbers(exam: Exam, kind: str) -> dict[str, Numbers]:
    """Return the values of each learned layer with this weight filler, or the net's own for ""; empty if the run
    fails.
    """
    nodes = [node for node in exam.case.train.nodes if node.learned]
    try:
        with quiet():
            solver = exam.case.solver(refill(nodes, kind) if kind else None, exam.trials.seed)
            try:
                net = solver.net
                net.stepwise()
                net.forward()
                net.backward()
                tops = {node.name: node.spec.top[0] for node in nodes}
                return {name: _numbers(net.blobs[top]) for name, top in tops.items() if top in net.blobs}
            finally:
                close(solver)
    except CaffeError:
        return {}


def _numbers(blob: Any) -> Numbers:
    return Numbers(_some(blob.data), _some(blob.diff))


def _some(values: np.ndarray) -> np.ndarray:
    """Return a copy of the values, evenly sampled if there are many."""
    flat = np.asarray(values).ravel()
    return flat[:: max(1, len(flat) // _MOST)].copy()


def first_filters(exam: Exam) -> tuple[str, dict[str, np.ndarray]] | None:
    """Return the first learned layer and its weights as images (N, C, H, W), before and after a trial; None if they are
    not images.
    """
    node = next((node for node in exam.case.train.nodes if node.is_a(Convolution, InnerProduct)), None)
    if node is None or exam.base.error:
        return None
    with quiet():
        solver = exam.case.solver(seed=exam.trials.seed)
        try:
            first = _as_images(solver.net, node)
            solver.step(exam.steps)
            later = _as_images(solver.net, node)
        except CaffeError:
            return None
        finally:
            close(solver)
    if first is None or later is None:
        return None
    return node.name, {"at first": first, f"after {exam.steps} steps": later}


def _as_images(net: Any, node: Any) -> np.ndarray | None:
    weights = np.array(net.params[node.name][0].data)
    if node.is_a(InnerProduct):
        shape = net.blobs[node.spec.bottom[0]].data.shape
        if len(shape) != 4 or weights.ndim != 2 or weights.shape[1] != int(np.prod(shape[1:])):
            return None
        weights = weights.reshape(-1, *shape[1:])
    images = weights.ndim == 4 and weights.shape[1] in (1, 3) and min(weights.shape[2:]) >= 3
    return weights if images and bool(np.isfinite(weights).all()) else None
