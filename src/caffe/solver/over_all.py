"""Layers of several processes that compute what one process with the batches of all would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caffe.errors import SolverError
from caffe.layers.activation import Dropout
from caffe.layers.base import Effects, Layer, Source
from caffe.layers.loss import Normalized
from caffe.layers.normalization import BatchNorm
from caffe.net import Net
from caffe.parallel.group import Group

__all__ = ["join_layers"]

_JOINING: dict[str, tuple[type[Any], Callable[[Layer], bool]]] = {
    "global_batch_norm": (BatchNorm, lambda layer: Effects.BUFFERS in layer.effects_now),
    "global_normalization": (Normalized, lambda layer: False),
    "global_dropout": (Dropout, lambda layer: Effects.RANDOM in layer.effects_now and not _constant(layer)),
}
"""For each option of the solver: the layers that it is about, and which others it cannot be combined with."""


def join_layers(net: Net, param: Any, group: Group) -> None:
    """Let the layers that the solver's options name look at all processes; SolverError where one of others cannot."""
    chosen = [(name, *parts) for name, parts in _JOINING.items() if getattr(param, name)]
    for name, kind, conflicts in chosen:
        for layer in net.layers:
            if conflicts(layer) and not isinstance(layer, kind):
                raise SolverError(
                    f'{name} is set, but layer "{layer.name}" ({layer.type}) depends on its own batch in a way that '
                    f"the batches of all processes cannot replace; remove {name}"
                )
    for _, kind, _ in chosen:
        for layer in net.layers:
            if isinstance(layer, kind) and group.size > 1:
                layer.processes = group
                layer.effects = layer.effects | Effects.CALLS


def _constant(layer: Layer) -> bool:
    """Whether it is a source whose batches are all the same."""
    return isinstance(layer, Source) and layer.deal(0, 1)
