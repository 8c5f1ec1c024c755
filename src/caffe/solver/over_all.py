"""Layers that use the batches of all processes together, such as BatchNorm with `global_batch_norm`."""

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
"""For each solver option: the layers that it applies to, and the layers that it cannot be combined with."""


def join_layers(net: Net, param: Any, group: Group) -> None:
    """Make the layers that the solver's options select use the batches of all processes.

    Raises SolverError for a layer that cannot be combined with an option.
    """
    chosen = [(name, *parts) for name, parts in _JOINING.items() if getattr(param, name)]
    for name, kind, conflicts in chosen:
        for layer in net.layers:
            if conflicts(layer) and not isinstance(layer, kind):
                raise SolverError(
                    f'{name} is set, but layer "{layer.name}" ({layer.type}) depends on its own batch in a way that '
                    f"the option cannot extend to the batches of all processes; remove {name}"
                )
    for _, kind, _ in chosen:
        for layer in net.layers:
            if isinstance(layer, kind) and group.size > 1:
                layer.processes = group
                layer.effects = layer.effects | Effects.CALLS


def _constant(layer: Layer) -> bool:
    """Return whether the layer is a source whose batches are all equal."""
    return isinstance(layer, Source) and layer.deal(0, 1)
