"""Checks gradients: what a layer's backward says against the slope that its forward has, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caffe.blob import Blob
from caffe.layers.base import Layer, as_tuple
from caffe.net.step import Step

__all__ = ["Slope", "check", "gradients", "objective", "run", "slopes"]

STEP = 1e-6
TOLERANCE = 1e-3
"""The largest difference, relative to the slope, that `check` takes for a right gradient."""


@dataclass(frozen=True)
class Slope:
    """The gradient of one bottom or blob along a random direction, by backward and by two runs of forward."""

    what: str
    backward: float
    numeric: float

    @property
    def error(self) -> float:
        """The difference, relative to the larger of the two; differences of rounding count as none."""
        difference = abs(self.backward - self.numeric)
        return difference / max(abs(self.backward), abs(self.numeric)) if difference > 1e-7 else 0.0


def check(net: Any, seed: int = 1) -> list[tuple[Layer, list[Slope]]]:
    """Each layer of a Net with the slopes of its bottoms and blobs that have a gradient. The net is used up.

    Values come from the net's data layers and fillers, and are moved a little at random so that no blob is constant and
    no two elements are equal; inputs that the user would fill get normal ones, and 0 or 1 where they are labels. A
    slope that disagrees is measured at two more places before it counts, as forward may have a kink nearby.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = _labels(net.steps)
    values: dict[int, Tensor] = {}
    found = []
    for step in net.steps:
        layer = step.layer.double()
        with torch.no_grad():
            for blob in layer.tensors:
                if isinstance(blob, nn.Parameter):
                    blob.add_(_normal(blob, generator), alpha=0.1)
        bottoms = [values[id(blob)] for blob in step.bottoms]
        found.append((layer, _check_layer(layer, bottoms, generator)))
        with torch.no_grad():
            tops = layer(*bottoms)
        given = [None] * len(step.tops) if tops is None else as_tuple(tops)
        made = [
            _user_input(blob, blob in labels, generator) if x is None else x
            for x, blob in zip(given, step.tops, strict=True)
        ]
        values.update((id(blob), top.detach().double()) for blob, top in zip(step.tops, made, strict=True))
    return found


def slopes(layer: Layer, bottoms: Sequence[Tensor], generator: torch.Generator, directions: int = 3) -> list[Slope]:
    """The slopes of a layer at `bottoms` (of which those that require a gradient count), each in several directions."""
    found = []
    for name, x, grad in gradients(layer, bottoms):
        for _ in range(directions):
            direction = _normal(x, generator)
            totals = []
            for sign in (1, -1):
                with torch.no_grad():
                    x += sign * STEP * direction
                totals.append(objective(run(layer, bottoms)).item())
                with torch.no_grad():
                    x -= sign * STEP * direction
            found.append(Slope(name, (grad * direction).sum().item(), (totals[0] - totals[1]) / (2 * STEP)))
    return found


def gradients(layer: Layer, bottoms: Sequence[Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """(name, tensor, gradient of the objective) for each bottom and blob that requires one."""
    wanted = [(f"bottom {i}", x) for i, x in enumerate(bottoms) if x.requires_grad]
    wanted += [(name, blob) for name, blob in layer.named_parameters() if blob.requires_grad]
    total = objective(run(layer, bottoms))
    if not wanted or not total.requires_grad:
        return [(name, x, torch.zeros_like(x)) for name, x in wanted]
    grads = torch.autograd.grad(total, [x for _, x in wanted], allow_unused=True, materialize_grads=True)
    return [(name, x, grad) for (name, x), grad in zip(wanted, grads, strict=True)]


def objective(tops: Sequence[Tensor]) -> Tensor:
    """A number that depends on every element of every differentiable top, or of all if none is differentiable."""
    generator = torch.Generator().manual_seed(4)
    weighted = [(top, top * _normal(top, generator)) for top in tops]
    chosen = [product for top, product in weighted if top.requires_grad] or [product for _, product in weighted]
    return torch.stack([product.sum() for product in chosen]).sum() if chosen else torch.zeros(())


def run(layer: Layer, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tops; every time from the same state and with the same random numbers."""
    with layer.repeating():
        torch.manual_seed(3)
        np.random.seed(3)
        return as_tuple(layer(*bottoms))


def _check_layer(layer: Layer, bottoms: Sequence[Tensor], generator: torch.Generator) -> list[Slope]:
    """The slopes at a place near `bottoms`, at another one if they disagree there."""
    passed_by = {*layer.constant, *layer.exempt}
    passed_by.update(index for index, wanted in enumerate(layer.spec.propagate_down) if not wanted)
    best: list[Slope] = []
    for attempt in range(3):
        near = [x if i in passed_by else _moved(x, generator) for i, x in enumerate(bottoms)]
        found = slopes(layer, near, generator) if near or list(layer.parameters()) else []
        worst = max((slope.error for slope in found), default=0.0)
        if not attempt or worst < max(slope.error for slope in best):
            best = found
        if worst <= TOLERANCE:
            break
    return best


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """x moved by a hundredth of its spread, requiring a gradient."""
    spread = x.std().item() if x.numel() > 1 else 0.0
    return (x + (0.01 * spread or 0.1) * _normal(x, generator)).requires_grad_()


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


def _user_input(blob: Blob, label: bool, generator: torch.Generator) -> Tensor:
    """Values for a blob that the user would fill."""
    if label:
        return torch.randint(0, 2, tuple(blob.shape), generator=generator).to(blob.tensor)
    return _normal(blob.tensor, generator)


def _labels(steps: Sequence[Step]) -> set[Blob]:
    """The blobs that no layer differentiates, such as labels."""
    read: dict[Blob, list[bool]] = {}
    for step in reversed(steps):
        for index, blob in enumerate(step.bottoms):
            splits = step.layer.type == "Split" and all(all(read.get(top, [False])) for top in step.tops)
            read.setdefault(blob, []).append(splits or index in step.layer.constant)
    return {blob for blob, uses in read.items() if all(uses)}
