"""Cafetière."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from caffe import TEST, Net, get_solver, log

Arrays = dict[str, np.ndarray]
log.start(logging.ERROR)


def train(folder: str) -> Callable[[], object]:
    """A step of the solver."""
    at = Path(folder)
    solver = get_solver(at / "solver.prototxt")
    solver.net.copy_from(at / "net.caffemodel")
    solver.net.blobs["data"].data[...] = np.load(at / "data.npy")
    solver.net.blobs["label"].data[...] = np.load(at / "label.npy")
    return lambda: solver.step(1)


def infer(folder: str) -> Callable[[], Arrays]:
    """The net's outputs."""
    at = Path(folder)
    net, data = _net(at), np.load(at / "data.npy")

    def work() -> Arrays:
        net.blobs["data"].data[...] = data
        net.evaluate()
        return {name: net.blobs[name].data for name in net.outputs}

    return work


def load(folder: str) -> Callable[[], object]:
    """The net with its weights, then its outputs."""
    nets: list[Net] = []
    return lambda: nets[0].evaluate() if nets else nets.append(_net(Path(folder)))


def _net(at: Path) -> Net:
    return Net(at / "net.prototxt", TEST, weights=at / "net.caffemodel")
