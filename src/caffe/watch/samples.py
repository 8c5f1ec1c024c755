"""Measurements at some iterations only: the size of updates, and which units get a gradient."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe.layers.activation import ReLU
from caffe.layers.convolution import Convolution
from caffe.layers.dense import InnerProduct, Scale
from caffe.net import Net
from caffe.net.graph.step import Learnable

__all__ = ["Samples"]

_SHARE = 1000
"""After a sample, the run continues for this multiple of its time without another."""
_GAP, _FREE = 10, 5
"""Iterations between two samples, and number of samples at the start regardless of their cost."""
_WINDOW = 15
"""Samples in which a unit must get no gradient to count as dead."""
_LOW, _RUN = 3, 3


@dataclass
class _Units:
    """The units of a layer whose outputs a ReLU reads: the blob whose gradient has one number per unit."""

    layer: str
    entry: Learnable
    alive: Tensor | None = None
    dead: tuple[float, ...] = ()


class Samples:
    """Measures from time to time, so that the cost stays below a thousandth of the run.

    `before` is called when the gradients of iteration `next` or a later one are computed. If it sets `due`, `after` is
    called after the update.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.weights = [
            entry for entry in net.learnable if entry.index == 0 and entry.lr_mult and entry.tensor.dim() > 1
        ]
        self.units = list(_rectified(net))
        self.ratios: dict[str, list[float]] = {}
        self.next, self.due = 0, False
        self._seen, self._taken, self._rest, self._cost = 0, 0, 0.0, 0.0

    def before(self, iteration: int) -> None:
        """Decide whether this iteration is sampled, and measure the gradients if so."""
        begin = time.perf_counter()
        self.due = begin >= self._rest
        if not self.due:
            return
        for units in self.units:
            grad = units.entry.blob.present_diff()
            if grad is not None:
                got = grad.reshape(grad.shape[0], -1).ne(0).any(1)
                units.alive = got if units.alive is None else units.alive | got
        self._seen += 1
        if self._seen == _WINDOW:
            self._close_window()
        self._cost = time.perf_counter() - begin

    def after(self, iteration: int) -> None:
        """Measure the update of a sampled iteration."""
        begin = time.perf_counter()
        with torch.no_grad():
            for entry in self.weights:
                size = float(entry.tensor.norm())
                ratio = float(entry.blob.read_diff().norm()) / size if size else math.nan
                self.ratios.setdefault(entry.layer, []).append(ratio)
                del self.ratios[entry.layer][:-_RUN]
        now = time.perf_counter()
        self.due, self.next = False, iteration + _GAP
        self._taken += 1
        self._rest = now + _SHARE * (self._cost + now - begin) if self._taken > _FREE else 0.0

    def _close_window(self) -> None:
        shares = [float(1 - units.alive.float().mean()) if units.alive is not None else 0.0 for units in self.units]
        for units, share in zip(self.units, shares, strict=True):
            units.dead, units.alive = (*units.dead[-1:], share), None
        self._seen = 0

    @property
    def largest_ratio(self) -> float | None:
        """Return the largest of the layers' last ratios of update to weights; None before there are enough samples."""
        known = [max(ratios[-_LOW:]) for ratios in self.ratios.values() if len(ratios) >= _LOW]
        return max(known) if known and all(map(math.isfinite, known)) else None

    def large(self, limit: float) -> Iterator[tuple[str, float]]:
        """Return the layers whose last ratios were all above a limit, with their median."""
        for name, ratios in self.ratios.items():
            if len(ratios) >= _RUN and self.next > _RUN * _GAP and min(ratios) > limit:
                yield name, sorted(ratios)[len(ratios) // 2]

    def dead(self, limit: float) -> Iterator[tuple[str, float, int]]:
        """Return layers of which more than a share `limit` was dead in two windows, with that share and the number of
        batches.
        """
        for units in self.units:
            if len(units.dead) == 2 and min(units.dead) > limit:
                yield units.layer, min(units.dead), 2 * _WINDOW


def _rectified(net: Net) -> Iterator[_Units]:
    """Yield the layers directly before a ReLU whose last blob has one number per unit: a bias, or a row of weights."""
    makers: dict[int, str] = {}
    layers = {layer.name: layer for layer in net.layers}
    for step in net.steps:
        for blob in step.bottoms:
            name = makers.get(id(blob), "")
            if type(step.layer) is ReLU and not step.layer.opt.negative_slope and name:
                blobs = [entry for entry in net.learnable if entry.layer == name and entry.lr_mult]
                if blobs and type(layers[name]) in (Convolution, InnerProduct, Scale):
                    yield _Units(name, blobs[-1])
        makers.update((id(blob), step.layer.name) for blob in step.tops if not step.layer.splits)
