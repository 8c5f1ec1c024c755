"""A plan: the list of calls in a run of the whole net, and the place of each value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Source
from caffe.net.graph.gradients import loss_with_gradient_of, roots
from caffe.net.graph.step import Step
from caffe.net.plan.loss_scale import LossScale
from caffe.net.plan.precision import LowPrecision
from caffe.net.plan.rewrite import Call, Rewrite, rewrite

__all__ = ["Plan", "Rounding", "make_plan"]

Weighted = list[tuple[int, float]]
"""Places of values, each with its weight in a sum."""


class Rounding(Enum):
    """When the calls of a plan are converted to 16-bit arithmetic, if the net uses it."""

    FIRST = auto()
    """Before the rewrites: each layer is rounded separately."""
    LAST = auto()
    """After the rewrites: weights that a rewrite folds are rounded once."""
    NEVER = auto()
    """The engine chooses its own arithmetic. Values are float32."""


@dataclass
class Plan:
    """What a run computes. Each value has a *place*, an index into the list of values.

    `wanted` are the blobs that the run must fill, besides the tops of data layers; None means every blob. Split layers,
    which only add gradients, have no call: their tops have the place of their bottom.
    """

    name: str
    """The net's name, for messages."""
    steps: list[Step]
    wanted: frozenset[str] | None = None
    calls: list[Call] = field(default_factory=list)
    count: int = 0
    """The number of places."""
    place: dict[str, int] = field(default_factory=dict)
    """The place of each blob's final value."""
    same: dict[str, tuple[Blob, bool]] = field(default_factory=dict)
    """Blobs that share the data of another blob, and whether they share its diff."""
    lent: set[int] = field(default_factory=set)
    """Places of values whose memory is referenced by the layer."""
    fed: set[int] = field(default_factory=set)
    """Places of the values of sources. A source may leave a blob to the user."""
    losses: Weighted = field(default_factory=list)
    roots: Weighted = field(default_factory=list)
    """Where backward starts: usually the losses."""
    low: LowPrecision | None = None

    @property
    def delivered(self) -> list[Blob]:
        """The blobs that sources fill."""
        return [blob for step in self.steps if isinstance(step.layer, Source) for blob in step.tops]

    def loss_places(self) -> frozenset[int]:
        """Places of the values that enter the loss, and of those at which backward starts."""
        return frozenset(place for place, _ in (*self.losses, *self.roots))

    @cached_property
    def wanted_places(self) -> frozenset[int]:
        """Places whose values must be available at the end of a run."""
        if self.wanted is None:
            return self.loss_places().union(self.place.values())
        names = set(self.wanted.union(blob.name for blob in self.delivered))
        for name in reversed(self.place):  # a blob that shares another blob's data is filled with that blob
            if name in names and name in self.same:
                names.add(self.same[name][0].name)
        return self.loss_places().union(self.place[name] for name in names)

    def begin(self, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The list of values at the start of a run: `given` at the places of the sources, None elsewhere."""
        if self.low is not None:
            self.low.refresh(always=torch.is_grad_enabled())
        values: list[Tensor] = [None] * self.count  # type: ignore[list-item]
        if given is not None:
            places = [place for call in self.calls if isinstance(call.layer, Source) for place in call.writes]
            for place, value in zip(places, given, strict=True):
                values[place] = value
        return values

    def source_values(self) -> list[Tensor]:
        """The next values of the sources."""
        made = [(call, call.run()) for call in self.calls if isinstance(call.layer, Source)]
        return [value for call, tops in made for value in call.tops(tops)]

    def loss(self, values: Sequence[Tensor]) -> Tensor:
        """The loss, connected to the blobs at which backward starts; see caffe.net.graph.gradients.roots."""
        loss = _sum(values, self.losses)
        if sorted(self.roots) == sorted(self.losses) or not torch.is_grad_enabled():
            return loss
        return loss_with_gradient_of(loss, _sum(values, self.roots))

    def named(self, values: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """The values of the blobs that a run fills, as float32, by the blobs' names."""
        present = self.wanted_places
        found = {name: values[place] for name, place in self.place.items() if place in present}
        return found if self.low is None else {name: value.float() for name, value in found.items()}


def make_plan(
    name: str,
    steps: Sequence[Step],
    wanted: Collection[str] | None = None,
    rewrites: Sequence[Rewrite] = (),
    rounding: Rounding = Rounding.FIRST,
    precision: torch.dtype = torch.float32,
    scale: LossScale | None = None,
) -> Plan:
    """The plan of a run of all `steps`; see Plan. For `precision` see caffe.net.plan.precision."""
    plan = Plan(name, list(steps), None if wanted is None else frozenset(wanted))
    starts, places = roots(steps), dict[Blob, int]()
    for step in steps:
        places.update(zip(step.tops, _add(plan, step), strict=True))
    plan.roots = [(places[blob], weight) for blob, weight in starts.items()]
    if precision is not torch.float32 and rounding is not Rounding.NEVER:
        plan.low = LowPrecision(precision, scale)
    if rounding is Rounding.FIRST:
        _round(plan)
    plan.calls = rewrite(plan.calls, plan.wanted_places, rewrites)
    if rounding is Rounding.LAST:
        _round(plan)
    return plan


def _round(plan: Plan) -> None:
    if plan.low is not None:
        plan.calls, plan.count = plan.low.lower(plan.calls, plan.count, plan.loss_places())


def _add(plan: Plan, step: Step) -> tuple[int, ...]:
    """Add the step's call to the plan; returns the places of its tops."""
    needs = zip(step.bottoms, step.needs, strict=True)
    reads = tuple((plan.place[blob.name], not need) for blob, need in needs)
    if step.layer.splits:
        writes = (reads[0][0],) * len(step.tops)
    else:
        writes = tuple(range(plan.count, plan.count + len(step.tops)))
        plan.count += len(writes)
        plan.calls.append(Call(step.layer, step.layer.forward, reads, writes, tuple(step.tops), step.backward))
    for blob, place in zip(step.tops, writes, strict=True):
        plan.place[blob.name] = place
        if step.shares and not blob.alone:
            plan.same[blob.name] = step.bottoms[0], step.layer.shares_diff
        else:
            plan.same.pop(blob.name, None)
    if step.layer.lends:
        plan.lent.update(writes)
    if isinstance(step.layer, Source):
        plan.fed.update(writes)
    plan.losses += [(place, weight) for place, weight in zip(writes, step.loss_weights, strict=True) if weight]
    return writes


def _sum(values: Sequence[Tensor], weights: Weighted) -> Tensor:
    """The weighted sum of the values at these places."""
    sums = [(values[place].sum() if values[place].dim() else values[place], weight) for place, weight in weights]
    weighted = [x if weight == 1 else x * weight for x, weight in sums]
    if not weighted:
        return torch.zeros((), device=next((x.device for x in values if x is not None), None))
    return sum(weighted[1:], weighted[0])
