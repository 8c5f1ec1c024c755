"""Pipeline parallelism: each process runs consecutive layers, and micro-batches pass from process to process.

torch.distributed.pipelining is not used. It requires that all tensors between stages have gradients, and that the only
loss follows the last stage. Here, labels also pass between stages, and nets such as GoogLeNet have losses in several
stages. The schedule is 1F1B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caffe.layers.base import Source
from caffe.net.divided.accumulated import accumulate_products
from caffe.net.engines import Eager
from caffe.net.engines.denormals import FlushedDenormals
from caffe.net.engines.engine import NO_INPUTS, tops_made
from caffe.net.plan.plan import Plan
from caffe.net.plan.rewrite import Call
from caffe.net.plan.rewrite.inplace import relu_in_place, sum_in_place
from caffe.parallel.exchange import Exchange
from caffe.parallel.group import Pending

__all__ = ["Pipeline", "order"]

_ELSEWHERE = 'blob "{}": another process computes it; in a pipeline, all processes get only the outputs of the net'


@dataclass
class _Passing:
    """The state of a micro-batch in a stage, between its forward and its backward pass."""

    values: dict[int, Tensor]
    """The values that are kept: outputs of the net, and values at which backward starts."""
    taken: list[tuple[int, Tensor]] = field(default_factory=list)
    """Values that need a gradient and were received from earlier stages, with the numbers of these stages."""
    sent: list[tuple[int, Tensor]] = field(default_factory=list)
    """Values whose gradients later stages send back, with the numbers of these stages."""


class Pipeline(Eager):
    """Runs one stage of a plan in each process of an exchange. `stage_of` returns the stage of each call."""

    def __init__(self, exchange: Exchange, stage_of: Callable[[Sequence[Call]], list[int]], micro_batches: int) -> None:
        self._exchange, self._stage_of, self._count = exchange, stage_of, micro_batches
        self.rewrites = [accumulate_products, sum_in_place, relu_in_place]
        self._posted: list[Pending] = []

    def prepare(self, plan: Plan) -> None:
        """Keep the calls of this stage, and determine which values are sent between stages."""
        self._plan, stages = plan, self._stage_of(plan.calls)
        rank, maker = self._exchange.rank, dict[int, int]()
        wanted: dict[tuple[int, int], None] = {}
        for call, stage in zip(plan.calls, stages, strict=True):
            wanted.update({(place, stage): None for place, _ in call.reads if maker[place] != stage})
            maker.update(dict.fromkeys(call.writes, stage))
        passing = sorted(wanted)
        self._takes = [(place, maker[place]) for place, reader in passing if reader == rank]
        self._sends = [(place, reader) for place, reader in passing if maker[place] == rank]
        self._own = [call for call, stage in zip(plan.calls, stages, strict=True) if stage == rank]
        self._roots = [(place, weight) for place, weight in plan.roots if maker[place] == rank]
        self._shown = sorted((place, maker[place]) for place in plan.wanted_places - plan.fed)
        self._rows = {plan.place[blob.name]: blob.shape[:1] for step in plan.steps for blob in step.tops}
        self._absent = [blob for blob in plan.delivered if plan.place[blob.name] in plan.fed] if rank else []
        for blob in self._absent:
            blob.drop(_ELSEWHERE.format(blob.name))
        plan.calls = self._own
        super().prepare(plan)

    # -- passes ----------------------------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Run forward on the whole batch, without micro-batches."""
        values = self._plan.begin(given)
        passed = self._forward(values, inputs, given is not None)
        self._finish()
        return self._shared(values, passed.values)

    def learn(self, given: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run the micro-batches forward and backward. Gradients are those of the mean loss over the micro-batches."""
        device = self._plan.delivered[0].data_memory.raw.device if self._plan.delivered else torch.device("cpu")
        passing: list[_Passing] = []
        parts = [self._part(given, index) for index in range(self._count)]
        shown: dict[int, list[Tensor]] = {place: [] for place, stage in self._shown if stage == self._exchange.rank}
        with FlushedDenormals() if device.type == "cpu" else nullcontext():
            for forward in order(self._exchange.rank, self._exchange.size, self._count):
                if forward:
                    with torch.enable_grad():
                        passed = self._forward(self._plan.begin(parts.pop(0)), NO_INPUTS, True)
                    passing.append(passed)
                    for place, values in shown.items():
                        values.append(passed.values[place].detach())
                else:
                    self._backward(passing.pop(0))
        self._finish()
        whole = self._plan.begin(given)
        values = self._shared(whole, {place: self._joined(place, parts) for place, parts in shown.items()})
        with torch.no_grad():
            return values, self._plan.loss(values)

    def _part(self, given: Sequence[Tensor], index: int) -> list[Tensor]:
        """Return micro-batch `index` of the values of the data layers."""
        size = [len(value) // self._count for value in given]
        return [value[index * rows : (index + 1) * rows] for value, rows in zip(given, size, strict=True)]

    def _joined(self, place: int, parts: list[Tensor]) -> Tensor:
        """Combine the values of the micro-batches: concatenate values per record, and average the others."""
        if len(parts) == 1:
            return parts[0]
        rows = self._rows[place]
        if rows and parts[0].dim() and rows[0] == sum(len(part) for part in parts):
            return torch.cat(parts)
        return torch.stack(parts).mean(0)

    def _forward(self, values: list[Tensor], inputs: Mapping[str, Tensor], has_sources: bool) -> _Passing:
        """Receive values from earlier stages, run the calls of this stage, and send values to later stages."""
        grad = torch.is_grad_enabled()
        device = self._plan.steps[0].tops[0].data_memory.raw.device
        passed = _Passing({})
        for place, stage in self._takes:
            value, needs = self._exchange.take(stage, device)
            if needs and grad:
                passed.taken.append((stage, value.requires_grad_()))
                value = value.clone()  # a layer may overwrite it in place
            values[place] = value
        for call in self._own:
            if has_sources and isinstance(call.layer, Source):
                continue
            with torch.set_grad_enabled(grad and call.backward):
                made = tops_made(call, values, inputs)
            for place, value in zip(call.writes, made, strict=True):
                values[place] = value
        for place, reader in self._sends:
            self._posted.append(self._exchange.post(values[place], reader))
            if values[place].requires_grad:
                passed.sent.append((reader, values[place]))
        kept = {place for place, stage in self._shown if stage == self._exchange.rank}
        passed.values = {place: values[place] for place in kept.union(place for place, _ in self._roots)}
        return passed

    def _backward(self, passed: _Passing) -> None:
        """Run backward from this stage's losses and later stages' gradients, and send gradients to earlier stages."""
        heads = [weight / self._count * passed.values[place].sum() for place, weight in self._roots]
        tensors = [head for head in heads if head.requires_grad]
        grads: list[Tensor | None] = [None] * len(tensors)
        for reader, value in passed.sent:
            tensors.append(value)
            grads.append(self._exchange.take(reader, value.device)[0])
        if tensors:
            torch.autograd.backward(tensors, grads)
        for stage, value in passed.taken:
            grad = torch.zeros_like(value) if value.grad is None else value.grad
            self._posted.append(self._exchange.post(grad, stage))

    # -- afterwards ------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Wait until all tensors have been sent."""
        for pending in self._posted:
            pending.wait()
        self._posted.clear()

    def _shared(self, values: list[Tensor], own: Mapping[int, Tensor]) -> list[Tensor]:
        """Return the outputs of all stages, and the values of the data layers in the first stage."""
        device = self._plan.steps[0].tops[0].data_memory.raw.device
        for place, stage in self._shown:
            value = own[place].detach() if stage == self._exchange.rank else None
            values[place] = self._exchange.spread_any(value, stage, device)
        for blob in self._absent:
            values[self._plan.place[blob.name]] = blob.data_memory.raw  # leaves the blob unchanged
        return values


def order(stage: int, stages: int, count: int) -> list[bool]:
    """Return the schedule of a stage: True runs the next micro-batch forward, False the oldest one backward.

    A stage first runs as many micro-batches forward as there are later stages, and then alternates ("1F1B").
    """
    first = min(count, stages - 1 - stage)
    return [True] * first + [True, False] * (count - first) + [False] * first
