"""Cafetière."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from caffe import TEST, Net, get_solver, log
from caffe.proto import caffe_pb2, upgrade

Arrays = dict[str, np.ndarray]
log.start(logging.ERROR)


def train(
    folder: str, precision: str = "FLOAT", compiled: bool = False, recompute: bool = False
) -> Callable[[], object]:
    """A step of the solver, as in `caffe train`. With `compiled`, the net is run through torch.compile."""
    at = Path(folder)
    param = upgrade.read_solver(at / "solver.prototxt")
    param.recompute = recompute
    if precision != "FLOAT":
        param.precision = caffe_pb2.SolverParameter.Precision.Value(precision)
    solver = get_solver(param)
    if compiled:
        solver.net.compile()
    else:
        solver.net.slim()
    solver.net.copy_from(at / "net.caffemodel")
    given = [[np.load(at / f"{name}{mark}.npy") for name in ("data", "label")] for mark in marks(at)]

    def fill(arrays: list[np.ndarray]) -> None:
        for name, array in zip(("data", "label"), arrays, strict=True):
            solver.net.blobs[name].reshape(*array.shape)
            solver.net.blobs[name].data[...] = array

    def steps() -> list[float]:
        losses = []
        for arrays in given:
            fill(arrays)
            solver.step(1)
            losses.append(float(solver.net.blobs["loss"].data))
        return losses

    fill(given[0])
    return steps if len(given) > 1 else lambda: solver.step(1)


def marks(folder: Path) -> list[str]:
    """What the names of the files of each size of the images end with; the first one is empty."""
    return ["", *(f"_{index}" for index in range(1, len(list(folder.glob("data*.npy")))))]


def infer(folder: str, compiled: bool = False, engine: str = "torch", **options: str) -> Callable[[], Arrays]:
    """The net's outputs; `options` are options of `Net`, with dtypes as names of torch's."""
    at = Path(folder)
    net, data = _net(at, compiled, engine, **options), np.load(at / "data.npy")

    def work() -> Arrays:
        net.blobs["data"].data[...] = data
        return net.forward()

    return work


def layers(folder: str, way: str) -> Callable[[], object]:
    """Forward or backward of a net with gradients down to its data, layer by layer."""
    at = Path(folder)
    name = "forced.prototxt" if way == "backward" else "net.prototxt"
    net = Net(at / name, TEST, weights=at / "net.caffemodel")
    return _layers(net, np.load(at / "data.npy"), way)


def _layers(net: Net, data: np.ndarray, way: str) -> Callable[[], object]:
    net.blobs["data"].data[...] = data
    net.forward()
    for output in net.outputs:
        net.blobs[output].diff[...] = 1
    return net.forward if way == "forward" else net.backward


def load(folder: str) -> Callable[[], object]:
    """Builds the net with its weights, then returns its outputs."""
    nets: list[Net] = []
    return lambda: nets[0].forward() if nets else nets.append(_net(Path(folder)))


def _net(at: Path, compiled: bool = False, engine: str = "torch", **options: str) -> Net:
    given = {name: getattr(torch, content) for name, content in options.items()}
    net = Net(at / "net.prototxt", TEST, weights=at / "net.caffemodel", **given)
    net.optimize(compile=compiled, engine=engine)
    return net
