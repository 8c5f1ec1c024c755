"""All numbers of a net's first step, for pictures: with its own weight fillers and with others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.doctor.case import close, quiet
from caffe.doctor.checks.fillers import OPTIONS, refill
from caffe.doctor.exam import Exam
from caffe.errors import CaffeError

__all__ = ["FILLERS", "Numbers", "first_filters", "numbers"]

FILLERS = ("", "xavier", "msra")
"""The net's own, and those that look at the sizes of layers."""
_MOST = 50_000


@dataclass(frozen=True)
class Numbers:
    """What a layer gave, after a function in place, and the gradient that came to it."""

    activations: np.ndarray
    gradients: np.ndarray


def numbers(exam: Exam, kind: str) -> dict[str, Numbers]:
    """The numbers of each learned layer with a weight filler, or with the net's own for ""; empty where it fails."""
    nodes = [node for node in exam.case.train.nodes if node.type in OPTIONS]
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
    """A copy of at most so many numbers, taken evenly."""
    flat = np.asarray(values).ravel()
    return flat[:: max(1, len(flat) // _MOST)].copy()


def first_filters(exam: Exam) -> tuple[str, dict[str, np.ndarray]] | None:
    """The first learned layer with its weights as images (N, C, H, W), at first and after a trial's steps. None where
    they are none."""
    node = next((node for node in exam.case.train.nodes if node.type in ("Convolution", "InnerProduct")), None)
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
    if node.type == "InnerProduct":
        shape = net.blobs[node.spec.bottom[0]].data.shape
        if len(shape) != 4 or weights.ndim != 2 or weights.shape[1] != int(np.prod(shape[1:])):
            return None
        weights = weights.reshape(-1, *shape[1:])
    images = weights.ndim == 4 and weights.shape[1] in (1, 3) and min(weights.shape[2:]) >= 3
    return weights if images and bool(np.isfinite(weights).all()) else None
