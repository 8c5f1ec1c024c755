"""Gradient check: compares a layer's backward with finite differences of its forward, in double precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.layers.base import Layer, as_tuple
from caffe.layers.support.exact import exact_gradients
from caffe.net.graph.step import Step

__all__ = ["FINE", "TOLERANCE", "Slope", "check_gradients", "gradients", "objective", "run", "slopes"]

_Example = Callable[[Tensor], Tensor | None]

STEPS = (1e-6, 1e-7, 1e-8, 1e-9, 1e-5, 1e-4, 1e-3)
"""Step sizes relative to the size of the values. The first that confirms the gradient decides. Small steps avoid kinks
of forward, large steps avoid the rounding errors of layers that compute in float32."""

TOLERANCE = 1e-4
"""The largest relative difference for which a gradient counts as correct."""

FINE = 1e-7
"""Below this error a gradient is correct without further checks."""

_KINK = 1e-5
"""An element of a top has a kink if its two one-sided differences differ by more than this, relative to its change."""

_LARGE = 20_000_000
"""From this total number of elements on, inputs are made smaller."""

_MANY = 5_000_000
"""From this number of elements of a layer on, only one direction is checked."""

_ROUNDING = 1e-13
"""The relative error of a top in double precision."""


@dataclass(frozen=True)
class Slope:
    """The gradient of one bottom or blob along a random direction, by backward and by two runs of forward.

    `scale` is the usual size of such a slope, `doubt` how far the numeric one may be from the truth. `notes` tell where
    Caffe's gradient is not the slope; these places are left out.
    """

    what: str
    backward: float
    numeric: float
    scale: float
    doubt: float = 0.0
    notes: tuple[str, ...] = ()
    kinks: int = 0
    """The number of elements of tops that have a kink within the step, and are left out."""
    size: int = 0
    """The number of elements of the bottom or blob."""

    @property
    def error(self) -> float:
        """The difference relative to the typical size of the slope. Infinite if either value is NaN."""
        difference = abs(self.backward - self.numeric)
        return difference / self.scale if math.isfinite(difference) else math.inf

    @property
    def verdict(self) -> str:
        """ "right", "WRONG", or "no slope" where forward jumps or rounds too much to tell, or is not a number."""
        if not math.isfinite(self.numeric):
            return "no slope"
        doubt = self.doubt / self.scale
        if self.error > max(TOLERANCE, doubt):
            return "WRONG"
        return "right" if doubt <= 0.011 else "no slope"


def check_gradients(net: Any, seed: int = 1, layer: str = "", elements: int = 0) -> list[tuple[Layer, list[Slope]]]:
    """Each layer of a Net with the slopes of its bottoms and blobs that have a gradient. The net is used up.

    With a name `layer` the others only run forward. Beside the random directions, so many `elements` of each bottom and
    blob are checked by themselves, chosen at random; the step that shows the smallest error then counts.

    Values come from the net's data layers and fillers, and are moved a little at random so that no blob is constant and
    no two elements are equal; inputs that the user would fill get normal ones, and 0 or 1 where they are labels.
    Elements of tops that have a kink within the step, such as the maximum of a pooling window that changes its place,
    are left out of both slopes.
    """
    _shrink(net)
    generator = torch.Generator().manual_seed(seed)
    labels, examples = _labels(net.steps), _examples(net.steps)
    values: dict[int, Tensor] = {}
    found = []
    for step in net.steps:
        own = step.layer.double()
        with torch.no_grad():
            for blob in own.tensors:
                if isinstance(blob, nn.Parameter):
                    blob.add_(_normal(blob, generator), alpha=0.1)
        bottoms = [values[id(blob)] for blob in step.bottoms]
        if layer in ("", own.name):
            found.append((own, _check_layer(own, bottoms, generator, elements)))
        with torch.no_grad(), exact_gradients():
            tops = own(*bottoms)
        given = [None] * len(step.tops) if tops is None else as_tuple(tops)
        made = [
            _user_input(blob, blob in labels, examples.get(blob, ()), generator) if x is None else x
            for x, blob in zip(given, step.tops, strict=True)
        ]
        values.update(
            (id(blob), _finite(top.detach().double(), generator)) for blob, top in zip(step.tops, made, strict=True)
        )
    return found


def _shrink(net: Any) -> None:
    """Reduce very large batches of inputs, if the net can be reshaped."""
    inputs = [net.blobs[name] for name in net.inputs]
    total = sum(math.prod(blob.shape) for blob in net.blobs.values())
    sizes = {blob.shape[:1] for blob in inputs}
    if total <= _LARGE or len(sizes) != 1 or sizes == {()}:
        return
    before = [blob.shape for blob in inputs]
    small = max(2, before[0][0] * _LARGE // total)
    try:
        for blob in inputs:
            blob.reshape(small, *blob.shape[1:])
        net.reshape()
    except CaffeError:
        for blob, shape in zip(inputs, before, strict=True):
            blob.reshape(*shape)
        net.reshape()


def slopes(
    layer: Layer, bottoms: Sequence[Tensor], generator: torch.Generator, directions: int = 3, elements: int = 0
) -> list[Slope]:
    """The slopes of a layer at `bottoms` (of which those that require a gradient count), each in several directions.

    `elements` as in `check`.
    """
    with exact_gradients() as notes:
        wanted = gradients(layer, bottoms)
        tops = run(layer, bottoms) if wanted else ()
        few = sum(x.numel() for x in (*tops, *(x for _, x, _ in wanted))) < _MANY
        lines = (
            (name, _Line(layer, bottoms, tops, x, grad, along))
            for name, x, grad in wanted
            for along in _directions(x, directions if few else 1, elements, generator)
        )
        return [line.slope(name, notes, patient=elements > 0) for name, line in lines]


def _directions(x: Tensor, count: int, elements: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random directions, then those of single elements."""
    for _ in range(count):
        yield _normal(x, generator)
    if elements:
        for index in torch.randperm(x.numel(), generator=generator)[:elements].tolist():
            along = torch.zeros(x.numel(), dtype=x.dtype, device=x.device)
            along[index] = 1
            yield along.view(x.shape)


class _Line:
    """A straight line through a bottom or blob `x`, along which forward is evaluated."""

    def __init__(
        self,
        layer: Layer,
        bottoms: Sequence[Tensor],
        tops: Sequence[Tensor],
        x: Tensor,
        grad: Tensor,
        direction: Tensor,
    ) -> None:
        self.layer, self.bottoms, self.x, self.grad, self.direction = layer, bottoms, x, grad, direction
        self.weights = _weights(tops)
        self.tops = [top.detach().clone() for top in tops]  # some are views of x
        size = x.detach().square().mean().sqrt().item() if x.numel() else 0.0
        self.size = size if math.isfinite(size) and size > 1e-30 else 1.0

    def slope(self, name: str, notes: Set[str], patient: bool = False) -> Slope:
        """The slope by the first step that shows a right gradient, else by the most certain one.

        If `patient`, of several steps the one with the smallest error counts.
        """
        found: list[Slope] = []
        for step in STEPS:
            found.append(self._measured(name, step, tuple(sorted(notes))))
            if found[-1].verdict == "right" and (not patient or found[-1].error <= FINE):
                return found[-1]
        if any(slope.verdict == "right" for slope in found):
            return min((slope for slope in found if slope.verdict == "right"), key=lambda slope: slope.error)
        pairs = [(a, b, abs((a.numeric - a.backward) - (b.numeric - b.backward))) for a, b in itertools.pairwise(found)]
        a, b, change = min(pairs, key=lambda pair: (not math.isfinite(pair[2]), pair[2]))
        nearest = min(a, b, key=lambda slope: slope.error)
        return replace(nearest, doubt=max(nearest.doubt, change) if math.isfinite(change) else nearest.doubt)

    def _measured(self, name: str, step: float, notes: tuple[str, ...]) -> Slope:
        h = step * self.size
        up, down = self._moved(h), self._moved(-h)
        weights = self._without_kinks(up, down)
        kinks = 0
        if weights is not None:
            pairs = zip(weights, self.weights, strict=True)
            kinks = sum(int(((left == 0) & (whole != 0)).sum()) for left, whole in pairs)
        grad = self.grad if weights is None else self._gradient(weights)
        weights = weights or self.weights
        terms = zip(weights, up, down, strict=True)  # subtracting before summing reduces rounding errors
        numeric = sum((weight * (a - b)).sum().item() for weight, a, b in terms) / (2 * h)
        along = grad * self.direction
        values = math.hypot(*((weight * top).norm().item() for weight, top in zip(weights, self.tops, strict=True)))
        usual = max(along.norm().item(), 1e-5 * values / self.size, 1e-300)
        backward = along.sum().item()
        scale = max([usual, *(abs(slope) for slope in (numeric, backward) if math.isfinite(slope))])
        return Slope(name, backward, numeric, scale, _ROUNDING * values / h, notes, kinks, self.x.numel())

    def _moved(self, h: float) -> list[Tensor]:
        """The tops at `h` along the line."""
        before = self.x.detach().clone()
        with torch.no_grad():
            self.x.add_(self.direction, alpha=h)
            try:
                return [top.detach().clone() for top in run(self.layer, self.bottoms)]
            finally:
                self.x.copy_(before)

    def _without_kinks(self, up: Sequence[Tensor], down: Sequence[Tensor]) -> list[Tensor] | None:
        """The weights with 0 for elements of tops that have a kink or a jump between `up` and `down`.

        None where no element has one, or more than half: that is curvature or rounding, and another step helps.
        """
        weights, kinks, count = [], 0, 0
        for weight, top, a, b in zip(self.weights, self.tops, up, down, strict=True):
            change = (a - b).abs()
            rough = (a - 2 * top + b).abs() > _KINK * (change + change.square().mean().sqrt())
            rough &= weight != 0
            weights.append(weight.masked_fill(rough, 0))
            kinks, count = kinks + int(rough.sum()), count + int((weight != 0).sum())
        return weights if 0 < kinks <= count / 2 else None

    def _gradient(self, weights: Sequence[Tensor]) -> Tensor:
        """The gradient of x for these weights of the tops."""
        total = _weighted(run(self.layer, self.bottoms), weights)
        if not total.requires_grad:
            return torch.zeros_like(self.x)
        (grad,) = torch.autograd.grad(total, [self.x], allow_unused=True, materialize_grads=True)
        return grad


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
    return _weighted(tops, _weights(tops))


def _weights(tops: Sequence[Tensor]) -> list[Tensor]:
    """The weight of each element of the tops in the objective."""
    generator = torch.Generator().manual_seed(4)
    drawn = [_normal(top, generator) for top in tops]
    some = any(top.requires_grad for top in tops)
    return [x if top.requires_grad or not some else torch.zeros_like(x) for x, top in zip(drawn, tops, strict=True)]


def _weighted(tops: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    some = any(top.requires_grad for top in tops)
    products = [w * top for w, top in zip(weights, tops, strict=True) if top.requires_grad or not some]
    return torch.stack([product.sum() for product in products]).sum() if products else torch.zeros(())


def run(layer: Layer, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run forward; returns the tops. Each call uses the same state and the same random numbers."""
    with layer.repeating():
        torch.manual_seed(3)
        np.random.seed(3)
        return as_tuple(layer(*bottoms))


def _check_layer(layer: Layer, bottoms: Sequence[Tensor], generator: torch.Generator, elements: int = 0) -> list[Slope]:
    """The slopes at a random point near `bottoms`, and at further points if some slopes are undetermined."""
    passed_by = {*layer.constant, *layer.exempt}
    passed_by.update(index for index, wanted in enumerate(layer.spec.propagate_down) if not wanted)
    found: list[Slope] = []
    for _ in range(3):
        near = [x if i in passed_by else _moved(x, generator) for i, x in enumerate(bottoms)]
        found = slopes(layer, near, generator, elements=elements) if near or list(layer.parameters()) else []
        if all(slope.verdict != "no slope" for slope in found):
            break
        if any(not math.isfinite(slope.numeric) for slope in found):  # a logarithm or a root
            bottoms = [x if i in passed_by else x.abs() for i, x in enumerate(bottoms)]
    return found


def _finite(x: Tensor, generator: torch.Generator) -> Tensor:
    """Replace NaN and infinity in x by random numbers, so that the following layers can be checked."""
    return x if bool(x.isfinite().all()) else torch.where(x.isfinite(), x, _normal(x, generator))


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """x with random changes of a hundredth of its spread, requiring a gradient."""
    spread = x.std().item() if x.numel() > 1 else 0.0
    return (x + (0.01 * spread or 0.1) * _normal(x, generator)).requires_grad_()


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)


def _user_input(blob: Blob, label: bool, examples: Iterable[_Example], generator: torch.Generator) -> Tensor:
    """Random values for a blob that the user would fill."""
    for example in examples:
        made = example(blob.tensor)
        if made is not None:
            return made
    if label:
        return torch.randint(0, 2, tuple(blob.shape), generator=generator).to(blob.tensor)
    return _normal(blob.tensor, generator)


def _examples(steps: Sequence[Step]) -> dict[Blob, list[_Example]]:
    """For each blob, the functions of its readers that give example values."""
    found: dict[Blob, list[_Example]] = {}
    for step in reversed(steps):
        for index, blob in enumerate(step.bottoms):
            behind = [example for top in step.tops for example in found.get(top, [])] if step.layer.splits else []
            found.setdefault(blob, []).extend(behind or [partial(step.layer.example, index)])
    return found


def _labels(steps: Sequence[Step]) -> set[Blob]:
    """The blobs that no layer differentiates, such as labels."""
    read: dict[Blob, list[bool]] = {}
    for step in reversed(steps):
        for index, blob in enumerate(step.bottoms):
            splits = step.layer.splits and all(all(read.get(top, [False])) for top in step.tops)
            read.setdefault(blob, []).append(splits or index in step.layer.constant)
    return {blob for blob, uses in read.items() if all(uses)}
