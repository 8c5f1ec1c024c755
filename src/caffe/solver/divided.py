"""Divides a solver's nets over processes: sharding, tensor parallelism, and pipelines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from caffe import log
from caffe.data.pipeline import shard
from caffe.errors import SolverError
from caffe.layers.base import Layer
from caffe.layers.dense import InnerProduct
from caffe.net import Net
from caffe.net.divided import stages
from caffe.net.divided.by_record import check_micro_batches
from caffe.net.divided.parts import Part, part_of, swap_blob
from caffe.net.divided.pipeline import Pipeline
from caffe.net.divided.products import product_engine
from caffe.net.divided.shards import sharded_engine
from caffe.net.measure.times import layer_seconds
from caffe.parallel.exchange import Exchange
from caffe.parallel.group import Group
from caffe.solver.cutting import parts_of
from caffe.solver.ema import MovingAverage
from caffe.solver.rules import Rule
from caffe.solver.update import length

__all__ = ["Division", "check_late", "checked", "divide", "modes"]

_CLEARLY = 0.9
"""A cut by measured time replaces the one by operations if it needs at most this fraction of its time."""


class _State(Protocol):
    """The attributes of a solver that are divided."""

    net: Net
    history: list[Tensor]
    average: MovingAverage


@dataclass
class Division:
    """How the blobs of a solver's nets are divided over the processes of an exchange.

    `parts` contains the split of each learnable blob of the train net, or None if the blob is not divided.
    The gradients of slices are summed over `replicas`, the processes with the same slices, and multiplied by `scale`.
    """

    nets: Sequence[Net]
    exchange: Exchange
    parts: list[Part | None]
    reason: str
    scale: float = 1.0
    replicas: Exchange | None = None
    streams: int = 1
    """Number of processes that read different records."""
    staged: bool = False
    """Whether each blob is held by one process as a whole, as in a pipeline."""
    _held: list[Tensor] = field(default_factory=list)

    def start(self) -> None:
        """Replace the blobs by their slices. The weights must be equal in all processes."""
        for net in self.nets[1:]:
            net.share_with(self.nets[0])
        for entry, part in zip(self.nets[0].learnable, self.parts, strict=True):
            if part is not None and not hasattr(entry.tensor, "whole_shape"):
                swap_blob(self._layers, entry.tensor, part_of(entry.tensor, part, self.exchange.rank))
        self._mark(self.reason)

    def _mark(self, reason: str) -> None:
        """Set the reason why layers cannot run individually, for the divided layers. An empty `reason` removes it."""
        for net in self.nets:
            for step in net.steps:
                alone = not self.staged and not any(hasattr(x, "whole_shape") for x in step.layer.tensors)
                step.divided = "" if alone else reason
            net.runners.rebuild()

    @property
    def _layers(self) -> list[Layer]:
        return [layer for net in self.nets for layer in net.layers]

    @property
    def blobs(self) -> set[int]:
        """The ids of the divided blobs."""
        pairs = zip(self.nets[0].learnable, self.parts, strict=True)
        return {id(entry.blob) for entry, part in pairs if part is not None}

    # -- in each iteration -----------------------------------------------------------------------------------------

    def finish_gradients(self) -> None:
        """Convert the gradients of slices to the mean over all records."""
        for entry, part in zip(self.nets[0].learnable, self.parts, strict=True):
            diff = entry.blob.present_diff() if part is not None and entry.tensor.requires_grad else None
            if diff is None:
                continue
            if self.replicas is not None:
                self.replicas.sum(diff)
            if self.scale != 1:
                diff.mul_(self.scale)

    def norm(self, index: int) -> Callable[[Tensor], float]:
        """Return a function that computes the L2 norm of the whole learnable blob `index` from this process's slice."""
        if self.parts[index] is None or self.staged:
            return length
        return lambda part: math.sqrt(self._total(length(part) ** 2))

    def squares(self, lengths: Sequence[float]) -> float:
        """Return the sum of the squared norms of all blobs, given the norms of this process's slices."""
        pairs = list(zip(lengths, self.parts, strict=True))
        own = sum(length**2 for length, part in pairs if part is not None)
        return sum(length**2 for length, part in pairs if part is None) + self._total(own)

    def _total(self, number: float) -> float:
        total = torch.tensor([number], dtype=torch.float64, device=self.nets[0].device)
        self.exchange.sum(total)
        return float(total)

    # -- files -----------------------------------------------------------------------------------------------------

    @contextmanager
    def assembled(self, solver: _State, keep: bool, restore: bool) -> Iterator[None]:
        """Give the solver whole blobs, histories and averages inside the block, in the processes with `keep`.

        All processes must enter the block. Afterwards the solver has its slices again; with `restore`, these are slices
        of the tensors as the block left them.
        """
        count = len(self.parts)
        cut = [index for index, part in enumerate(self.parts) if part is not None]
        learnable, history, average = solver.net.learnable, list(solver.history), solver.average.tensors
        blobs = [learnable[index].tensor for index in cut]
        wholes = [self._whole(index, tensor, keep) for index, tensor in zip(cut, blobs, strict=True)]
        whole_history = [self._whole(place % count, tensor, keep) for place, tensor in enumerate(history)]
        whole_average = None if average is None else [self._whole(*pair, keep) for pair in enumerate(average)]
        if not keep:
            yield
            return
        for old, whole in zip(blobs, wholes, strict=True):
            swap_blob(self._layers, old, _like(whole, old))
        solver.history[:], solver.average.tensors = whole_history, whole_average
        self._mark("")
        try:
            yield
        finally:
            found = [learnable[index].tensor for index in cut]
            if restore:
                with torch.no_grad():
                    for index, part, whole in zip(cut, blobs, found, strict=True):
                        part.copy_(self._cut(index, whole))
                    for place, part in enumerate(history):
                        part.copy_(self._cut(place % count, solver.history[place]))
                average = solver.average.tensors
                if average is not None:
                    average = [self._cut(index, whole).to(whole.device) for index, whole in enumerate(average)]
            for part, whole in zip(blobs, found, strict=True):
                swap_blob(self._layers, whole, part)
            solver.history[:], solver.average.tensors = history, average
            for entry in learnable:
                entry.blob.advance()
            self._mark(self.reason)

    def _whole(self, index: int, own: Tensor, keep: bool) -> Tensor:
        part = self.parts[index]
        whole = own if part is None else part.collect(own, self.exchange, keep)
        return own if whole is None else whole

    def _cut(self, index: int, whole: Tensor) -> Tensor:
        part = self.parts[index]
        return whole if part is None else part.cut(whole, self.exchange.rank)


def _like(value: Tensor, old: Tensor) -> Tensor:
    """Return `value` as a parameter if `old` is one, else as a buffer."""
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(value, requires_grad=old.requires_grad)
    return value


# -- what is refused -------------------------------------------------------------------------------------------------


def modes(param: Any) -> list[str]:
    """Return the fields of a solver that divide a net over processes."""
    given = {
        "shard": param.shard == param.FULL,
        "tensor_parallel": param.tensor_parallel != 1,
        "pipeline": param.HasField("pipeline"),
    }
    return [name for name, is_set in given.items() if is_set]


def checked(param: Any, rule: Rule, group: Group) -> Group:
    """Return the group. Raises a SolverError for settings that a divided net does not support."""
    found = modes(param)
    shard.read_as_one(1)
    if not found:
        return group
    if len(found) > 1:
        raise SolverError(f"{found[1]} and {found[0]} are both set, but a net is divided in one way only; remove one")
    (mode,) = found
    _check_counts(mode, param, group)
    if rule.whole and not rule.norms and mode != "pipeline":
        raise SolverError(
            f'{mode} is set, but solver type "{type(rule).__name__}" needs whole blobs, and each '
            "process would have a slice of them; use another type, or pipeline, whose stages have whole blobs"
        )
    for name, value, fact in (
        ("precision", param.precision != param.FLOAT, "16-bit weights are computed from whole blobs"),
        ("recompute", param.recompute, "the values of its runs are needed where the net is divided"),
        ("debug_info", param.debug_info, "it runs the net layer by layer, which a divided net does not support"),
        ("snapshot_diff", param.snapshot_diff, "gradients are divided and are not gathered"),
        ("larc_turbo", mode == "pipeline" and param.larc_turbo, "its averages are in several processes' memory"),
    ):
        if value:
            raise SolverError(f"{name} and {mode} are both set: {fact}; remove one of them")
    if mode == "pipeline":
        for name in ("global_batch_norm", "global_normalization", "global_dropout"):
            if getattr(param, name):
                raise SolverError(f"{name} and pipeline are both set: stages do not support it; remove one of them")
        shard.read_as_one(param.pipeline.stages)
    return group


def check_late(param: Any) -> None:
    """Raise a SolverError for a solver that joins other processes after its nets were built."""
    if found := modes(param):
        raise SolverError(f"{found[0]} is set, but caffe.NCCL does not support it; use caffe train, or torchrun")


def _check_counts(mode: str, param: Any, group: Group) -> None:
    count = group.size
    start = "start it with caffe train -procs N, or torchrun"
    if mode == "tensor_parallel":
        parts = param.tensor_parallel
        if parts < 1:
            raise SolverError(f"tensor_parallel is {parts}, expected a number of processes, 1 or more")
        if count % parts:
            raise SolverError(
                f"tensor_parallel is {parts}, but there are {count} process(es), expected a multiple of that; {start}"
            )
    if mode == "pipeline":
        wanted = param.pipeline.stages
        if wanted < 2 or param.pipeline.micro_batches < 1:
            raise SolverError(
                f"pipeline has {wanted} stages and {param.pipeline.micro_batches} micro_batches, expected 2 stages or "
                "more and 1 micro-batch or more"
            )
        if count % wanted:
            raise SolverError(
                f"pipeline has {wanted} stages, but there are {count} process(es), expected a multiple of {wanted}: "
                f"one process per stage, and as many again for each further pipeline; {start}"
            )
    if mode == "shard" and count == 1:
        log.info("solver.py", "shard: FULL: there is only one process, which holds every blob as a whole")


# -- the ways to divide ----------------------------------------------------------------------------------------------


def divide(param: Any, group: Group, nets: Sequence[Net]) -> Division | None:
    """Divide the nets if the solver requests it. Raises a SolverError if the nets cannot be divided."""
    found = modes(param)
    if not found or group.size == 1:
        return None
    tied = [entry.layer for entry in nets[0].learnable if entry.blob.tied]
    if tied:
        raise SolverError(
            f'{found[0]} is set, but the weights of layer "{tied[0]}" have another shape in a layer that shares them '
            "(share_mode: PERMISSIVE); give both the same shape"
        )
    make = {"shard": _shard, "tensor_parallel": _tensor_parallel, "pipeline": _pipeline}[found[0]]
    division = make(param, group, nets)
    division.start()
    return division


def _reason(mode: str, what: str) -> str:
    return (
        f"cannot run individually: {what} divided over processes ({mode}); solver.step runs the net as a whole. To "
        "inspect a layer, load a snapshot of the run in one process"
    )


def _shard(param: Any, group: Group, nets: Sequence[Net]) -> Division:
    exchange = Exchange.among(group, [range(group.size)])
    parts = _parts(param, group.size, nets[0])
    for net in nets:
        net.runners.divide(lambda: sharded_engine(exchange))
    reason = _reason("shard: FULL", "its weights are")
    return Division(nets, exchange, parts, reason, 1 / group.size, streams=group.size)


def _exchanges(group: Group, count: int) -> tuple[Exchange, Exchange | None]:
    """The exchange among `count` processes that divide a net, and that among those with the same part of it, if any."""
    size = group.size
    exchange = Exchange.among(group, [range(first, first + count) for first in range(0, size, count)])
    replicas = Exchange.among(group, [range(first, size, count) for first in range(count)])
    return exchange, replicas if replicas.size > 1 else None


def _tensor_parallel(param: Any, group: Group, nets: Sequence[Net]) -> Division:
    size, count = group.size, param.tensor_parallel
    exchange, replicas = _exchanges(group, count)
    parts = _parts(param, size, nets[0])
    if not any(parts):
        raise SolverError(
            f"tensor_parallel is {count}, but no InnerProduct layer of the net has that many outputs; remove it"
        )
    _check_sharers(nets[0], parts)
    for net in nets:
        net.runners.divide(lambda: product_engine(exchange))
    reason = _reason(f"tensor_parallel: {count}", "its weights are")
    return Division(nets, exchange, parts, reason, 1 / size, replicas, streams=size)


def _parts(param: Any, size: int, net: Net) -> list[Part | None]:
    """Return how each learnable blob of a net is divided."""
    cuts = {
        id(blob): part
        for layer in net.layers
        for blob, part in zip(layer.param_blobs, parts_of(param, size, layer), strict=True)
        if part is not None
    }
    return [cuts.get(id(entry.blob)) for entry in net.learnable]


def _check_sharers(net: Net, parts: Sequence[Part | None]) -> None:
    """Raise a SolverError if a layer of another type shares the weights of a divided InnerProduct layer."""
    places = {id(entry.blob): index for index, entry in enumerate(net.learnable)}
    for layer in net.layers:
        for blob in layer.param_blobs:
            index = places.get(id(blob))
            if index is not None and parts[index] is not None and type(layer) is not InnerProduct:
                raise SolverError(
                    f'tensor_parallel is set, but layer "{layer.name}" ({layer.type}) shares the weights of layer '
                    f'"{net.learnable[index].layer}", which would be divided; give it separate weights'
                )


def _pipeline(param: Any, group: Group, nets: Sequence[Net]) -> Division:
    train, count = nets[0], param.pipeline.micro_batches
    check_micro_batches(train, count)
    found = _stages(param, group, train)
    by_layer = {id(step.layer): stage for step, stage in zip(train.steps, found, strict=True)}
    by_name = {step.layer.name: stage for step, stage in zip(train.steps, found, strict=True) if step.layer.tensors}
    exchange, replicas = _exchanges(group, param.pipeline.stages)
    parts: list[Part | None] = []
    for entry in train.learnable:
        shape = tuple(entry.tensor.shape)
        size, owner = (shape or (1,))[0], by_name[entry.layer]
        parts.append(Part(shape, 0, tuple(size * (rank > owner) for rank in range(exchange.size + 1))))
    train.runners.divide(lambda: Pipeline(exchange, lambda calls: [by_layer[id(call.layer)] for call in calls], count))
    for net in nets[1:]:
        net.runners.divide(lambda: Pipeline(exchange, lambda calls: stages.following(calls, by_name), 1))
    reason, count = _reason("pipeline", "the layers of the net are"), group.size // exchange.size
    return Division(nets, exchange, parts, reason, 1 / count, replicas, count, staged=True)


def _stages(param: Any, group: Group, net: Net) -> list[int]:
    """The stage of each layer. Process 0 measures the layers, so that all agree.

    Stages by time replace those by operations only where they are clearly better, so that small differences of a
    measurement do not lead to other stages in each run.
    """
    costs, what = stages.shares(net.steps), "operations"
    found = stages.cut(net.steps, costs, param.pipeline.stages)
    if param.pipeline.cost == param.pipeline.TIME:
        seconds = group.share(layer_seconds(net.steps, net.device) if not group.rank else None)
        costs, what = stages.shares(net.steps, seconds), "time"
        better = stages.cut(net.steps, costs, param.pipeline.stages)
        if stages.largest(costs, better) < _CLEARLY * stages.largest(costs, found):
            found = better
    for stage in range(max(found) + 1):
        own = [index for index, each in enumerate(found) if each == stage]
        work, held = (100 * sum(costs[index][kind] for index in own) for kind in range(2))
        names = [net.layer_names[index] for index in own if not net.steps[index].layer.splits]
        fact = f'layers "{names[0]}" to "{names[-1]}", {work:.0f} % of the {what}, {held:.0f} % of the memory'
        log.info("solver.py", f"pipeline: stage {stage}: {fact}")
    return found
