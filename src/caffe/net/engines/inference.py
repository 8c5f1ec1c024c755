"""The engine for inference on torch. It frees values early and stores weights in the layout of their kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Source
from caffe.net.engines.compiled import Compiled
from caffe.net.engines.engine import NO_INPUTS, Engine
from caffe.net.plan.plan import Plan, Rounding
from caffe.net.plan.rewrite import INFERENCE, Call
from caffe.net.plan.rewrite.call import tops_of
from caffe.net.plan.rewrite.product import FusedProduct

__all__ = ["Inference"]


class _Run(NamedTuple):
    """The part of a call that a run needs."""

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    frees: tuple[int, ...]  # places that are not read after it
    kept: tuple[Blob, ...]


class Inference(Engine, name="torch"):
    """Runs a net in TEST without gradients. Weights are folded and reordered at the first run and after changes.

    The sources run first. If data or weights are not finite, kernels that would drop a NaN are not used.
    """

    rewrites = INFERENCE
    rounding = Rounding.LAST
    frees_first = False

    @classmethod
    def for_inference(cls, device: torch.device, precision: torch.dtype, compiled: bool) -> Engine:
        return Compiled(frozen=True) if compiled else cls()

    def prepare(self, plan: Plan) -> None:
        self._plan = plan
        self._products = [call.run for call in plan.calls if isinstance(call.run, FusedProduct)]
        self.follow(plan.calls)

    def follow(self, calls: list[Call]) -> bool:
        ordered = sorted(calls, key=lambda call: not isinstance(call.layer, Source))  # other layers keep their order
        self._sources = sum(isinstance(call.layer, Source) for call in calls)
        self._program = _compact(ordered, self._plan.wanted_places)
        return True

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        if inputs or given is not None:
            raise NotImplementedError("a net for inference takes its values from its blobs")
        values = self._plan.begin()
        _advance(values, self._program[: self._sources])
        careful = not self._finite(values)
        for product in self._products:
            product.careful = careful
        _advance(values, self._program[self._sources :])
        return values

    def _finite(self, values: Sequence[Tensor | None]) -> bool:
        """Whether all weights and all data are finite. Refreshes the folded weights if they changed."""
        weights = [product.refresh() for product in self._products]
        return all(weights) and all(math.isfinite(value.sum()) for value in values if value is not None)


def _advance(values: list[Any], program: Sequence[_Run]) -> None:
    for run, reads, writes, frees, kept in program:
        made = run(*[values[place] for place in reads])
        if isinstance(made, Tensor):
            values[writes[0]] = made
        else:
            tops = tops_of(made, kept)
            for place, value in zip(writes, tops, strict=True):
                values[place] = value
        for place in frees:
            values[place] = None


def _compact(calls: Sequence[Call], wanted: frozenset[int]) -> list[_Run]:
    program: list[_Run] = []
    seen = set(wanted)
    for call in reversed(calls):
        reads = tuple(place for place, _ in call.reads)
        frees = tuple({*reads, *call.writes} - seen)
        seen.update(reads)
        program.append(_Run(call.run, reads, call.writes, frees, call.kept))
    return program[::-1]
