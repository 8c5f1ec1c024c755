"""A net for inference: only what is wanted is computed, and weights are laid out for their kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Source
from caffe.net.run.partial import Partial
from caffe.net.run.rewrite import INFERENCE, Call, rewrite
from caffe.net.run.rewrite.call import tops_of
from caffe.net.run.rewrite.product import Product

__all__ = ["Inference"]


class _Run(NamedTuple):
    """One call, with no more than its run needs."""

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    frees: tuple[int, ...]  # places that nobody reads after it
    kept: tuple[Blob, ...]


class Inference(Partial):
    """A net in TEST. Weights are folded and laid out at the first run, and again when they change."""

    def use_calls(self, calls: list[Call]) -> None:
        super().use_calls(calls)
        ordered = sorted(calls, key=lambda call: not isinstance(call.layer, Source))  # the others in their order
        self._given = sum(isinstance(call.layer, Source) for call in calls)  # how many runs bring data in
        self._program = _compact(ordered, self._wanted_places())

    def _prepared(self, calls: list[Call]) -> list[Call]:
        calls = self._lowered(rewrite(calls, self._wanted_places(), INFERENCE))  # folded weights are rounded once
        self._products = [call.run for call in calls if isinstance(call.run, Product)]
        return calls

    def evaluate(self) -> float:
        """One pass forward without autograd's history; fills the blobs wanted; returns the loss."""
        with torch.no_grad():
            values = self._begin(None)
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
