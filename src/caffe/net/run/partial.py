"""A net that is run as one piece and computes some of its blobs only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self

import torch
from torch import Tensor

from caffe.layers.base import Source
from caffe.net.build import Step
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.module import NetModule
from caffe.net.shapes import infer_tops

__all__ = ["Partial"]

_ABSENT = (
    'blob "{0}": the last run computed only what the outputs need, and not this blob; to have it, say '
    'net.optimize(keep=["{0}"]), in training net.slim(keep=["{0}"]) or net.compile(keep=["{0}"]); or run the net layer '
    "by layer: net.stepwise(), net.forward()"
)


class Partial(NetModule):
    """Base of the nets that compute the blobs `wanted` and what they and the losses need.

    A run fills the blobs `wanted` and those that data layers deliver, and marks the others as absent.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        wanted: Collection[str],
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        self.wanted = frozenset(wanted)
        self._precision = precision
        super().__init__(steps, name, precision, scale)
        self._shapes: list[tuple[int, ...]] = []
        present = self._wanted_places()
        self._filled = [(self._blobs[name], place) for name, place in self._place.items() if place in present]
        self._absent = [self._blobs[name] for name, place in self._place.items() if place not in present]
        self._absent_with_reasons = [(blob, _ABSENT.format(blob.name)) for blob in self._absent]
        self._reasons = frozenset(reason for _, reason in self._absent_with_reasons)

    def _wanted_places(self) -> frozenset[int]:
        delivered = {blob.name for step in self._steps if isinstance(step.layer, Source) for blob in step.tops}
        names = set(self.wanted | delivered)
        for name in reversed(self._place):  # a blob that shares the data of another is filled through that one
            if name in names and name in self._same:
                names.add(self._same[name][0].name)
        return self._loss_places() | {self._place[name] for name in names}

    def with_more(self, names: Collection[str]) -> Self:
        """The like of this net for the blobs `names` too."""
        return type(self)(self._steps, self.name, self.wanted.union(names), self._precision, self._scale)

    def held(self) -> list[str]:
        """The names of blobs that would not be computed, but whose arrays somebody holds."""
        return [blob.name for blob in self._absent if blob.data_memory.lent]

    def _named(self, values: Sequence[Tensor]) -> dict[str, Tensor]:
        return {blob.name: self._wide(values[place]) for blob, place in self._filled}

    def _fill(self, values: Sequence[Tensor]) -> None:
        self._refill(self._filled, values)
        present = {id(blob.data_memory) for blob, _ in self._filled}
        for blob, reason in self._absent_with_reasons:
            memory = blob.data_memory
            if memory.missing not in self._reasons and id(memory) not in present:
                blob.drop(reason)
        shapes = [blob.shape for blob in self._delivered]
        if shapes != self._shapes:
            self._shapes = shapes
            self._reshape_absent()

    def forget_shapes(self) -> None:
        """Hear that blobs have been reshaped."""
        self._shapes = []

    def _reshape_absent(self) -> None:
        """Give the blobs that were not computed the shapes that they would have."""
        for step in self._steps:
            if step.shares or any(blob.data_memory.missing for blob in step.tops):
                for blob, shape in zip(step.tops, infer_tops(step), strict=True):
                    if step.shares or blob.data_memory.missing:
                        step.shape_top(blob, shape)
