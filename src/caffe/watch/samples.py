"""What is measured at some iterations only: the size of updates, and which units get a gradient."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe.layers.activation import ReLU
from caffe.net import Net
from caffe.net.graph.step import Learnable

__all__ = ["Samples"]

_SHARE = 1000
"""How many times as long as a sample takes the run goes on without one."""
_GAP, _FREE = 10, 5
"""Iterations between two samples, and how many are taken at the beginning whatever they cost."""
_WINDOW = 15
"""Samples in which a unit must stay without a gradient to count as dead."""
_LOW, _RUN = 3, 3


@dataclass
class _Units:
    """The units of a layer whose outputs a ReLU reads: the blob whose gradient has one number for each."""

    layer: str
    entry: Learnable
    alive: Tensor | None = None
    dead: tuple[float, ...] = ()


class Samples:
    """Measures at times, so that measuring stays below a thousandth of a run.

    `before` is called when the gradients of iteration `next` or a later one are known; where it sets `due`, `after` is
    called when the update is done.
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
        """Decide whether this iteration is due, and look at the gradients if so."""
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
        """Look at the update of an iteration that is due."""
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
        """The largest of the layers' last ratios of update to weights; None before there are enough."""
        known = [max(ratios[-_LOW:]) for ratios in self.ratios.values() if len(ratios) >= _LOW]
        return max(known) if known and all(map(math.isfinite, known)) else None

    def large(self, limit: float) -> Iterator[tuple[str, float]]:
        """The layers whose last ratios were all above a limit, with the middle one."""
        for name, ratios in self.ratios.items():
            if len(ratios) >= _RUN and self.next > _RUN * _GAP and min(ratios) > limit:
                yield name, sorted(ratios)[len(ratios) // 2]

    def dead(self, limit: float) -> Iterator[tuple[str, float, int]]:
        """The layers of which a share above `limit` was dead in two windows: that share, and how many batches."""
        for units in self.units:
            if len(units.dead) == 2 and min(units.dead) > limit:
                yield units.layer, min(units.dead), 2 * _WINDOW


def _rectified(net: Net) -> Iterator[_Units]:
    """The layers directly before a ReLU whose last blob has a number for each unit: a bias, or a row of weights."""
    makers: dict[int, str] = {}
    layers = {layer.name: layer for layer in net.layers}
    for step in net.steps:
        for blob in step.bottoms:
            name = makers.get(id(blob), "")
            if type(step.layer) is ReLU and not step.layer.opt.negative_slope and name:
                blobs = [entry for entry in net.learnable if entry.layer == name and entry.lr_mult]
                if blobs and layers[name].type in ("Convolution", "InnerProduct", "Scale"):
                    yield _Units(name, blobs[-1])
        makers.update((id(blob), step.layer.name) for blob in step.tops if not step.layer.splits)
