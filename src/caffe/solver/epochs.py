"""Training lengths in epochs: converts `max_epochs` and `test_every_epoch` to iterations."""

from __future__ import annotations

import math
from typing import Any

from caffe.errors import SolverError
from caffe.layers.data import StreamSource
from caffe.net import Net
from caffe.parallel import group as parallel
from caffe.proto import caffe_pb2
from caffe.solver import nets

__all__ = ["records", "resolve"]


def records(net: object) -> tuple[int, int]:
    """Return the batch size of a net's data layers and their number of records; (0, 0) if the number is unknown.

    If the net has several data layers, the one with the most records is used.
    """
    layers = [layer for layer in getattr(net, "layers", ()) if isinstance(layer, StreamSource) and layer.stream]
    counts = [(layer.stream.count(), layer.batch_size) for layer in layers if layer.stream is not None]
    count, batch = max(counts, default=(0, 0))
    return (batch, count) if count and batch else (0, 0)


def resolve(param: Any, python_layers: bool | None = None) -> None:
    """Set `max_iter` and `test_interval` of a solver that gives them in epochs.

    One epoch is the number of iterations in which all processes together read the training data once. Raises
    SolverError if the number of records is unknown, or if a length is given both in epochs and in iterations.
    """
    if not param.HasField("max_epochs") and not param.test_every_epoch:
        return
    for own, field in (("max_epochs", "max_iter"), ("test_every_epoch", "test_interval")):
        if param.HasField(own) and getattr(param, own) and param.HasField(field):
            raise SolverError(f"{own} and {field} are both set, but exclude each other; remove one of them")
    if param.HasField("max_epochs") and not 0 < param.max_epochs < math.inf:
        raise SolverError(f"max_epochs is {param.max_epochs:g}, expected above 0")
    length = _length(param, python_layers)
    if param.HasField("max_epochs"):
        param.max_iter = max(1, math.ceil(param.max_epochs * length - 1e-6))
    if param.test_every_epoch:
        param.test_interval = max(1, round(length))


def _length(param: Any, python_layers: bool | None) -> float:
    """Return the number of iterations of an epoch. Opens the data layers of the train net to count their records."""
    spec = nets.train_spec(param)
    for index in reversed(range(len(spec.layer))):
        if spec.layer[index].bottom:
            del spec.layer[index]
    state = param.train_state
    net = Net(spec, caffe_pb2.TRAIN, state.level, list(state.stage), device="cpu", python_layers=python_layers)
    try:
        batch, count = records(net)
    finally:
        net.close()
    if not count:
        raise SolverError(
            "max_epochs is set, but the data layers of the train net do not report a number of records; "
            "set max_iter and test_interval instead"
        )
    return count / (batch * param.iter_size * parallel.current().size)
