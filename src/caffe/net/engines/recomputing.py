"""The engine that saves memory in training: backward computes most values again instead of keeping them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import groupby

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from caffe.layers.base import Layer, Source
from caffe.layers.support.effects import Effects, Held, RandomState, copy_of_buffers
from caffe.net.engines.denormals import FlushedDenormals
from caffe.net.engines.engine import NO_INPUTS, Eager, tops_made
from caffe.net.plan.plan import Plan
from caffe.net.plan.rewrite import Call, apart, in_place

__all__ = ["Recomputing", "cut"]

_ONCE = Effects.CALLS | Effects.VALUES
"""Effects of layers that a step runs once."""


class Recomputing(Eager):
    """Divides the calls into segments. Forward keeps only the values that later segments read; backward runs a segment
    again before it computes its gradients.

    The segments are chosen so that the kept values and the largest segment together are small, which leaves about
    2 sqrt(n) of n equal values. The last segment keeps its values, because backward needs them at once. A repeated run
    draws the same random numbers, and does not change running statistics. Layers with other effects, such as data
    layers and Python layers, run once and keep what their gradients need.
    Source: Chen et al., arXiv:1604.06174.
    """

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        self._segments: list[_Segment] = []
        ordered = sorted(plan.calls, key=lambda call: not isinstance(call.layer, Source))
        for once, found in groupby(ordered, lambda call: _once(call.layer)):
            calls = list(found)
            parts = [calls] if once else cut(calls, plan.wanted_places)
            self._segments += [_Segment(apart(part), once) for part in parts]
        for segment in [segment for segment in self._segments if not segment.keeps][-1:]:
            segment.keeps = True
        later: set[int] = set(plan.wanted_places)
        for segment in reversed(self._segments):
            segment.writes = sorted(later & {place for call in segment.calls for place in call.writes})
            later.update(segment.reads)

    def follow(self, calls: list[Call]) -> bool:
        return False

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        if not torch.is_grad_enabled():
            return super().run(inputs, given)
        values = self._plan.begin(given)
        for segment in self._segments:
            if given is None or not isinstance(segment.calls[0].layer, Source):
                bottoms = [values[place] for place in segment.reads]
                for place, value in zip(segment.writes, segment.run(bottoms, inputs), strict=True):
                    values[place] = value
                bottoms = []
                for place in segment.frees:
                    values[place] = None  # type: ignore[call-overload]
        return values


class _Segment:
    """Consecutive calls. `reads` and `writes` are the places that they share with other segments."""

    def __init__(self, calls: list[Call], keeps: bool) -> None:
        self.calls, self.keeps = calls, keeps
        own = {place for call in calls for place in call.writes}
        self.reads = sorted({place for call in calls for place, _ in call.reads} - own)
        self.writes: list[int] = []
        self.frees = [place for call in calls for place in call.frees]

    def run(self, bottoms: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the calls; returns the values at `writes`. Backward runs them again unless the segment `keeps`."""
        if self.keeps:
            return self._run(inputs, *bottoms)
        made: tuple[Tensor, ...] = checkpoint(
            self._run, inputs, *bottoms,
            use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts, determinism_check="none",
        )  # fmt: skip
        return made

    def _run(self, inputs: Mapping[str, Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.reads, bottoms, strict=True))
        grad = torch.is_grad_enabled()
        for call in self.calls:
            with torch.set_grad_enabled(grad and call.backward):
                values.update(zip(call.writes, tops_made(call, values, inputs), strict=True))
            for place in call.frees:
                values.pop(place, None)
        return tuple(values[place] for place in self.writes)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """The contexts of the first and of the repeated run."""
        parts = [layer for call in self.calls for layer in (call.layer, *call.merged)]
        layers = [layer for layer in parts if layer.effects_now]
        random = RandomState.now() if any(layer.effects_now & Effects.RANDOM for layer in layers) else None
        return nullcontext(), _again([(layer, copy_of_buffers(layer)) for layer in layers], random)


@contextmanager
def _again(layers: Sequence[tuple[Layer, Held]], random: RandomState | None) -> Iterator[None]:
    """A context in which layers run as they did from these buffers and random numbers."""
    with ExitStack() as stack:
        stack.enter_context(FlushedDenormals(False))  # backward flushes them, forward does not
        for layer, buffers in layers:
            stack.enter_context(layer.repeating(random, buffers))
        yield


def _once(layer: Layer) -> bool:
    return isinstance(layer, Source) or layer.user_fed or bool(layer.effects_now & _ONCE)


def cut(calls: Sequence[Call], wanted: frozenset[int]) -> list[list[Call]]:
    """Divide the calls into segments such that what is kept between them and the largest segment are small."""
    sizes = [0 if in_place(call) else sum(blob.count for blob in call.kept) for call in calls]
    size = {place: blob.count for call in calls for place, blob in zip(call.writes, call.kept, strict=False)}
    last = {place: index for index, call in enumerate(calls) for place, _ in call.reads}
    crossing: list[set[int]] = []  # for each call, the places that it or an earlier one wrote and a later one reads
    alive: set[int] = set()
    for index, call in enumerate(calls):
        alive.update(place for place in call.writes if place not in wanted)
        alive = {place for place in alive if last.get(place, -1) > index}
        crossing.append(alive)
    kept = [sum(size.get(place, 0) for place in places) for places in crossing]

    def cost(ends: list[int]) -> int:
        between = set().union(*(crossing[end - 1] for end in ends[:-1]))
        largest = max(sum(sizes[begin:end]) for begin, end in zip([0, *ends], ends, strict=False))
        return sum(size.get(place, 0) for place in between) + largest

    trials = [_ends(sizes, kept, sum(sizes) / parts) for parts in range(1, min(len(calls), 64) + 1)]
    best = min(trials, key=cost)
    return [list(calls[begin:end]) for begin, end in zip([0, *best], best, strict=False)]


def _ends(sizes: Sequence[int], kept: Sequence[int], budget: float) -> list[int]:
    """Where segments end: each holds up to `budget`, and ends in its second half where the fewest values are kept."""
    ends, begin = [], 0
    while begin < len(sizes):
        total, places = 0, list[int]()
        for index in range(begin, len(sizes)):
            total += sizes[index]
            if total > budget and places:
                break
            if 2 * total >= budget:
                places.append(index + 1)
        else:
            places = [len(sizes)]
        begin = min(reversed(places), key=lambda end: kept[end - 1])
        ends.append(begin)
    return ends
