"""A net for inference: run as one piece, with only what is wanted computed, and weights laid out for their kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Source, as_tuple
from caffe.net.build import Step, infer_tops
from caffe.net.module import NetModule
from caffe.net.rewrite import INFERENCE, Call, Rewrite
from caffe.net.rewrite.product import Product

__all__ = ["Inference"]


class _Run(NamedTuple):
    """One call, with no more than its run needs."""

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    frees: tuple[int, ...]  # places that nobody reads after it
    kept: tuple[Blob, ...]


class Inference(NetModule):
    """A net in TEST that computes the blobs `wanted` and what they and the losses need.

    `evaluate` fills the blobs `wanted` and those that data layers deliver, and marks the others as absent. Weights
    are folded and laid out at the first run, and again when they change.
    """

    def __init__(self, steps: Sequence[Step], name: str, wanted: Collection[str]) -> None:
        self.wanted = frozenset(wanted)
        super().__init__(steps, name)
        sources = [step for step in steps if isinstance(step.layer, Source)]
        self._fed = [blob for step in sources for blob in step.tops]
        self._shapes: list[tuple[int, ...]] = []
        present = self._wanted_places()
        self._filled = [(self._blobs[name], place) for name, place in self._place.items() if place in present]
        self._absent = [self._blobs[name] for name, place in self._place.items() if place not in present]
        calls = sorted(
            self._calls, key=lambda call: not isinstance(call.layer, Source)
        )  # which keeps the others' order
        self._program = self._compact(calls, present)
        self._products = [call.run for call in calls if isinstance(call.run, Product)]
        self._given = sum(isinstance(call.layer, Source) for call in calls)  # how many runs bring data in

    def _rewrites(self) -> Sequence[Rewrite]:
        return INFERENCE

    def _wanted_places(self) -> frozenset[int]:
        delivered = {blob.name for step in self._steps if isinstance(step.layer, Source) for blob in step.tops}
        named = {self._place[name] for name in self.wanted | delivered if name in self._place}
        return frozenset(named | {place for place, _ in self._losses})

    @staticmethod
    def _compact(calls: Sequence[Call], wanted: frozenset[int]) -> list[_Run]:
        program: list[_Run] = []
        seen = set(wanted)
        for call in reversed(calls):
            reads = tuple(place for place, _ in call.reads)
            frees = tuple({*reads, *call.writes} - seen)
            seen.update(reads)
            program.append(_Run(call.run, reads, call.writes, frees, call.kept))
        return program[::-1]

    def held(self) -> list[str]:
        """The names of blobs that would not be computed, but whose arrays somebody holds."""
        return [blob.name for blob in self._absent if not blob.absent and blob.held]

    def evaluate(self) -> float:
        """One pass forward without autograd's history; fills the blobs wanted; returns the loss."""
        with torch.no_grad():
            values: list[Any] = [None] * self._count
            self._advance(values, self._program[: self._given])
            careful = not self._finite(values)
            for product in self._products:
                product.careful = careful
            self._advance(values, self._program[self._given :])
            loss = float(self._loss(values)) if self._losses else 0.0
        self._fill(values)
        return loss

    def _finite(self, values: Sequence[Tensor | None]) -> bool:
        """Whether all weights and all data are finite; and weights that changed are taken up."""
        weights = [product.refresh() for product in self._products]
        return all(weights) and all(math.isfinite(value.sum()) for value in values if value is not None)

    @staticmethod
    def _advance(values: list[Any], program: Sequence[_Run]) -> None:
        for run, reads, writes, frees, kept in program:
            made = run(*[values[place] for place in reads])
            if isinstance(made, Tensor):
                values[writes[0]] = made
            else:
                tops = tuple(blob.tensor for blob in kept) if made is None else as_tuple(made)
                for place, value in zip(writes, tops, strict=True):
                    values[place] = value
            for place in frees:
                values[place] = None

    def _fill(self, values: Sequence[Tensor]) -> None:
        for blob, place in self._filled:
            blob.tensor = values[place]
        for blob in self._absent:
            blob.absent = True
        for step in self._steps:
            step.record, step.fused = None, True
        shapes = [blob.shape for blob in self._fed]
        if shapes != self._shapes:
            self._shapes = shapes
            self._reshape_absent()

    def _reshape_absent(self) -> None:
        """Give the blobs that were not computed the shapes that they would have."""
        for step in self._steps:
            if any(blob.absent for blob in step.tops):
                for blob, shape in zip(step.tops, infer_tops(step), strict=True):
                    if blob.absent:
                        blob.reshape(*shape)
