"""The engine that saves memory in training: backward computes most values again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from caffe.layers.base import Layer, Source
from caffe.layers.support.effects import Effects, Held, RandomState, copy_of_buffers
from caffe.net.engines.checkpoint import checkpoint
from caffe.net.engines.denormals import FlushedDenormals
from caffe.net.engines.engine import NO_INPUTS, Eager, tops_made
from caffe.net.plan.plan import Plan
from caffe.net.plan.rewrite import Call, apart, in_place, overwritten

__all__ = ["Recomputing", "cut"]

_ONCE = Effects.CALLS | Effects.VALUES
"""Effects of layers that a step runs once."""


class Recomputing(Eager):
    """Divides the calls into segments. Forward keeps only the values that later segments read; backward runs a segment
    again before it computes its gradients.

    The segments are chosen so that backward never needs much memory at a time, which leaves some sqrt(n) of n equal
    values. The last segment keeps its values, because backward needs them at once. A repeated run
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
        run = partial(self._run, inputs)
        if self.keeps:
            return run(*bottoms)
        return checkpoint(run, bottoms, self._again(), self._name())

    def _run(self, inputs: Mapping[str, Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.reads, bottoms, strict=True))
        grad = torch.is_grad_enabled()
        for call in self.calls:
            with torch.set_grad_enabled(grad and call.backward):
                values.update(zip(call.writes, tops_made(call, values, inputs), strict=True))
            for place in call.frees:
                values.pop(place, None)
        return tuple(values[place] for place in self.writes)

    def _again(self) -> Callable[[], AbstractContextManager[None]]:
        """Makes the context in which the calls run as they would now."""
        layers = [layer for layer in self._layers() if layer.effects_now]
        random = RandomState.now() if any(layer.effects_now & Effects.RANDOM for layer in layers) else None
        return partial(_again, [(layer, copy_of_buffers(layer)) for layer in layers], random)

    def _layers(self) -> list[Layer]:
        return [layer for call in self.calls for layer in (call.layer, *call.merged)]

    def _name(self) -> str:
        first, last = self.calls[0].layer.name, self.calls[-1].layer.name
        return f'layer "{first}"' if first == last else f'layers "{first}" to "{last}"'


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
    """Divide the calls into segments such that the most memory that backward needs at a time is small.

    While a segment is computed again, memory holds the values kept for it and for earlier segments, its own values, the
    gradients of the values that it hands on, and the gradients of the weights from there on. Values kept for later
    segments are free by then, so that segments may be larger at the start of the net.
    """
    loads = _loads(calls, wanted)
    low, high = float(max(loads.own, default=0)), float(sum(loads.own) + sum(loads.copied) + loads.gradients[0])
    ends = [len(calls)]
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        found = _ends(loads, middle)
        if found is None:
            low = middle
        else:
            ends, high = found, middle
    return [list(calls[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]


_TRIALS = 9
"""Halvings of the interval in which the smallest possible memory lies."""


@dataclass(frozen=True)
class _Loads:
    """Numbers of values, for n calls."""

    own: list[int]  # n: what a call writes, without what it writes over its bottom
    copied: list[int]  # n: what it writes over its bottom, and must write elsewhere if another segment made the bottom
    made: list[int]  # n: where the value that the call writes over was first written
    gradients: list[int]  # n + 1: the weights of this call and of those after it
    crossing: list[dict[int, int]]  # n + 1: the sizes of the places written before this call and read by it or later


def _loads(calls: Sequence[Call], wanted: frozenset[int]) -> _Loads:
    size = {place: blob.count for call in calls for place, blob in zip(call.writes, call.kept, strict=False)}
    last = {place: index for index, call in enumerate(calls) for place, _ in call.reads}
    crossing: list[dict[int, int]] = [{}]
    gradients = [0]
    for index, call in enumerate(calls):
        alive = {**crossing[-1], **{place: size.get(place, 0) for place in call.writes if place not in wanted}}
        crossing.append({place: count for place, count in alive.items() if last.get(place, -1) > index})
    for call in reversed(calls):
        layers = (call.layer, *call.merged)
        gradients.append(gradients[-1] + sum(blob.count for layer in layers for blob in layer.param_blobs))
    counts = [sum(blob.count for blob in call.kept) for call in calls]
    own = [0 if in_place(call) else count for call, count in zip(calls, counts, strict=True)]
    copied = [count - alone for count, alone in zip(counts, own, strict=True)]
    return _Loads(own, copied, _first_writers(calls), gradients[::-1], crossing)


def _first_writers(calls: Sequence[Call]) -> list[int]:
    """For each call, the index of the call that allocated the memory which it writes. -1 if none of the calls did."""
    writer: dict[int, int] = {}
    for index, call in enumerate(calls):
        at = writer.get(overwritten(call), -1) if in_place(call) else index
        writer.update(dict.fromkeys(call.writes, at))
    return [writer[call.writes[0]] if call.writes else index for index, call in enumerate(calls)]


def _ends(loads: _Loads, most: float) -> list[int] | None:
    """Where segments end that keep as few values as possible and never need more memory than `most`; None if none do.

    For each call the fewest values that are kept if a segment ends before it, and where that segment begins.
    """
    count = len(loads.own)
    best: list[tuple[int, int] | None] = [(0, 0)] + [None] * count
    for begin in range(count):
        start = best[begin]
        if start is None:
            continue
        load = start[0] + loads.gradients[begin]
        for end in range(begin + 1, count + 1):
            load += loads.own[end - 1] + (loads.copied[end - 1] if loads.made[end - 1] < begin else 0)
            if load > most:
                break
            if load + sum(loads.crossing[end].values()) > most:
                continue
            kept = start[0] + sum(loads.crossing[end][at] for at in loads.crossing[end].keys() - loads.crossing[begin])
            known = best[end]
            if known is None or kept < known[0]:
                best[end] = kept, begin
    ends, at = [], count
    while at:
        place = best[at]
        if place is None:
            return None
        ends.append(at)
        at = place[1]
    return ends[::-1]
