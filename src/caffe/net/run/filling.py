"""Fills the blobs of a net with the values of a run of the whole net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Source
from caffe.net.graph.shapes import infer_tops
from caffe.net.plan.plan import Plan

__all__ = ["Filling"]

_NO_HISTORY = (
    "cannot run backward by itself: the last run was one of the whole net, which keeps no layer's history; run "
    "net.forward() before net.backward(), and net.stepwise() before both if it is optimized"
)
_NO_DIFF = (
    'blob "{}": the last training step, which ran the net as one piece, did not keep its diff; to see it, run '
    "net.forward() and net.backward(), or set net.keep_diffs = True before the step"
)
_UNFINISHED = 'blob "{}": the last run of the net ended in an error before it filled this blob; run the net again'
_ABSENT = (
    'blob "{0}": the last run computed only what the outputs need, and not this blob; to compute it, call '
    'net.optimize(keep=["{0}"]), in training net.slim(keep=["{0}"]) or net.compile(keep=["{0}"]); or run the net layer '
    "by layer: net.stepwise(), net.forward()"
)


class Filling:
    """The blobs of a plan: a run fills some, and marks those that it does not compute as absent."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._steps = plan, plan.steps
        blobs = {blob.name: blob for step in plan.steps for blob in step.tops}
        present = plan.wanted_places
        self._filled = [(blobs[name], place) for name, place in plan.place.items() if place in present]
        absent = [blobs[name] for name, place in plan.place.items() if place not in present]
        self._absent = [(blob, _ABSENT.format(blob.name)) for blob in absent]
        self._reasons = frozenset(reason for _, reason in self._absent)
        self._shapes: list[tuple[int, ...]] = []  # of the sources' tops, when absent blobs were last reshaped
        self._delivered = plan.delivered
        computed = [blob for step in plan.steps if not isinstance(step.layer, Source) for blob in step.tops]
        self._computed = [(blob, _UNFINISHED.format(blob.name)) for blob in computed]
        bottoms = [(blob, need) for step in plan.steps for blob, need in zip(step.bottoms, step.needs, strict=True)]
        self._given_gradients = [(blob, _NO_DIFF.format(blob.name)) for blob, need in bottoms if need]

    def held(self) -> list[str]:
        """The names of blobs that are not computed, but whose arrays the user has references to."""
        return [blob.name for blob, _ in self._absent if blob.data_memory.lent]

    def free(self) -> None:
        """Free the values of the last run, so that the next run can reuse their memory."""
        delivered = {id(blob.data_memory) for blob in self._delivered}  # shared by the tops of a Split
        for blob, reason in self._computed:
            memory = blob.data_memory
            if not (memory.missing or memory.lent or id(memory) in delivered):
                blob.drop(reason)

    def fill(self, values: Sequence[Tensor], owned: bool) -> None:
        """Set the values of the blobs. `owned` says that no later run writes to the memory of these values.

        Autograd histories of earlier runs layer by layer are dropped.
        """
        self._forget_histories()
        self._write(values, owned)
        if not self._absent:
            return
        present = {id(blob.data_memory) for blob, _ in self._filled}
        for blob, reason in self._absent:
            memory = blob.data_memory
            if memory.missing not in self._reasons and id(memory) not in present:
                blob.drop(reason)
        shapes = [blob.shape for blob in self._delivered]
        if shapes != self._shapes:
            self._shapes = shapes
            self._reshape_absent()

    def drop_diffs(self) -> None:
        """Mark the diffs of the blobs as absent, since a training step of the whole net does not keep them."""
        for blob, reason in self._given_gradients:
            blob.drop_diff(reason)

    def forget_shapes(self) -> None:
        """Update the shapes of absent blobs at the next run, after blobs have been reshaped."""
        self._shapes = []

    def _forget_histories(self) -> None:
        if self._steps and self._steps[0].last_run.stepwise:
            for step in self._steps:
                step.history, step.missing_diffs = _NO_HISTORY, True
            self._steps[0].last_run.stepwise = False

    def _write(self, values: Sequence[Tensor], owned: bool) -> None:
        """Write the blobs. Blobs whose values share memory, such as the tops of Slice, are marked as shared."""
        same, fed, lent = self._plan.same, self._plan.fed, self._plan.lent
        owners: dict[int, Blob] = {}
        for blob, place in self._filled:
            value = values[place]
            value = value.detach() if value.requires_grad else value
            if blob.name in same:
                other, diff = same[blob.name]
                blob.share(other, tuple(value.shape), diff)
                continue
            owner = owners.setdefault(value.untyped_storage().data_ptr(), blob)
            if place in fed and values[place] is blob.data_memory.raw:
                continue  # the user fills this blob
            if owner is not blob and not owner.data_memory.share():
                value = value.clone()
            blob.write(value, private=owner is blob, foreign=place in lent or not owned)

    def _reshape_absent(self) -> None:
        """Set the shapes of the blobs that were not computed."""
        for step in self._steps:
            if step.shares or any(blob.data_memory.missing for blob in step.tops):
                for blob, shape in zip(step.tops, infer_tops(step), strict=True):
                    if step.shares or blob.data_memory.missing:
                        step.shape_top(blob, shape)
