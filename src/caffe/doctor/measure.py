"""Measures a net's first step: statistics of activations, gradients and updates of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.layers.activation import ReLU, Sigmoid, TanH
from caffe.layers.base import Source

__all__ = ["BlobFacts", "LayerFacts", "measure"]

_SATURATED = {Sigmoid: (0.5, 0.495), TanH: (0.0, 0.99)}  # the centre, and the distance from it


@dataclass(frozen=True)
class BlobFacts:
    """A learnable blob: root mean squares of its values and gradient, and of an update relative to the values."""

    layer: str
    index: int
    weight: float
    gradient: float
    update: float
    lr_mult: float
    decay_mult: float = 1.0
    half_square: float = 0.0
    """Half the sum of the squared values, which L2 regularization adds to the loss."""
    sum_abs: float = 0.0
    """The sum of the absolute values, which L1 adds."""

    @property
    def ratio(self) -> float:
        """The size of an update relative to the values; NaN if these are all zero."""
        return self.update / self.weight if self.weight else float("nan")


@dataclass(frozen=True)
class LayerFacts:
    """Statistics of a layer's first top over the items of some batches.

    `mean` and `std` are over all numbers. `between` is the standard deviation of a number between items, relative to
    the standard deviation of all; 0 means that the input makes no difference. For rectifiers, `dead` is the share of
    units that are 0 for all items. `saturated` is the share of numbers at an end of a sigmoid's range. `gradient` is
    the root mean square of the gradient at the top, NaN if there is none.
    """

    name: str
    type: str
    mean: float
    std: float
    between: float
    dead: float
    saturated: float
    gradient: float


def measure(solver: Any, batches: int = 2) -> tuple[list[LayerFacts], list[BlobFacts]]:
    """Run a solver's net on some batches, forward and backward, and make one update. The solver cannot be used
    afterwards.
    """
    net = solver.net
    tops: dict[str, list[np.ndarray]] = {}
    grads: dict[str, float] = {}
    for _ in range(batches):
        net.clear_param_diffs()
        net.stepwise()
        for index, layer in enumerate(net.layers):
            net.forward(start=net.layer_names[index], end=net.layer_names[index])
            for top in net.steps[index].tops[:1]:
                if top.data.ndim and not isinstance(layer, Source):
                    tops.setdefault(layer.name, []).append(top.data.copy())
        net.backward()
    for index, layer in enumerate(net.layers):
        for top in net.steps[index].tops[:1]:
            grads[layer.name] = _size(_diff(top))
    before = [entry.tensor.detach().clone() for entry in net.learnable]
    gradients = [_size(entry.blob.read_diff().numpy()) for entry in net.learnable]
    solver.apply_update()
    blobs = []
    for entry, old, gradient in zip(net.learnable, before, gradients, strict=True):
        update = _size((entry.tensor.detach() - old).numpy())
        sums = float(old.square().sum()) / 2, float(old.abs().sum())
        size = _size(old.numpy())
        blobs.append(
            BlobFacts(entry.layer, entry.index, size, gradient, update, entry.lr_mult, entry.decay_mult, *sums)
        )
    layers = [_facts(layer, tops[layer.name], grads[layer.name]) for layer in net.layers if layer.name in tops]
    return layers, blobs


def _facts(layer: Any, tops: list[np.ndarray], gradient: float) -> LayerFacts:
    x = np.concatenate([top.reshape(len(top), -1) for top in tops]) if tops[0].ndim > 1 else np.stack(tops)
    std = float(x.std(dtype=np.float64))
    between = float(np.sqrt(x.var(0, dtype=np.float64).mean())) / std if std and len(x) > 1 else 0.0
    dead = saturated = 0.0
    if isinstance(layer, ReLU) and not layer.opt.negative_slope:
        units = tops[0].reshape(len(tops[0]), tops[0].shape[1], -1) if tops[0].ndim > 1 else tops[0][:, None]
        alive = np.max([np.abs(top.reshape(len(top), units.shape[1], -1)).max((0, 2)) for top in tops], 0)
        dead = float((alive == 0).mean())
    for kind, (middle, far) in _SATURATED.items():
        if isinstance(layer, kind):
            saturated = float((np.abs(x - middle) > far).mean())
    return LayerFacts(layer.name, layer.type, float(x.mean(dtype=np.float64)), std, between, dead, saturated, gradient)


def _diff(blob: Any) -> np.ndarray:
    try:
        return np.asarray(blob.diff)
    except Exception:  # this top got no gradient
        return np.array([np.nan])


def _size(x: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
