"""Assigns the layers of a net to the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from caffe.errors import NetError
from caffe.layers.base import Source
from caffe.net.graph.step import Step
from caffe.net.plan.rewrite import Call

__all__ = ["Shares", "cut", "following", "largest", "shares"]

_PASS = 4  # operations that take as long as one read or write of a value
_HELD = 3  # tensors per learned blob: weights, gradient and history

Shares = list[tuple[float, float]]
"""For each layer, its share of the net's time or operations, and of its memory."""


def shares(steps: Sequence[Step], seconds: Sequence[float | None] | None = None) -> Shares:
    """Return the cost of each layer: its time, and the number of values that it stores.

    `seconds` has the measured time of each layer, None if it was not measured. The time of such a layer is estimated
    from its operations, which follow from the shapes, at the rate of the measured layers.
    """
    work: list[float] = [_operations(step) for step in steps]
    if seconds is not None:
        known = [(spent, each) for spent, each in zip(seconds, work, strict=True) if spent is not None]
        rate = sum(spent for spent, _ in known) / max(1, sum(each for _, each in known)) or 1.0
        work = [each * rate if spent is None else spent for spent, each in zip(seconds, work, strict=True)]
    held = [
        sum(_HELD * x.numel() for x in step.layer.tensors) + sum(blob.count for blob in step.tops) for step in steps
    ]
    total_work, total_held = sum(work) or 1, sum(held) or 1
    return [(a / total_work, b / total_held) for a, b in zip(work, held, strict=True)]


def _operations(step: Step) -> int:
    if isinstance(step.layer, Source):
        return 0
    tops, bottoms = (sum(blob.count for blob in blobs) for blobs in (step.tops, step.bottoms))
    forward = _PASS * (tops + bottoms)
    for weights in step.layer.tensors:
        if weights.dim() > 1:  # each weight is multiplied with every cell of a top, or of a bottom
            per_place = weights.numel() // max(1, weights.shape[0])
            forward += 2 * per_place * (bottoms if step.layer.spreads else tops)
    return forward * (1 + (any(step.needs) + bool(step.params)) * step.backward)


def cut(steps: Sequence[Step], costs: Shares, stages: int) -> list[int]:
    """Return the stage of each layer. Data layers are in the first stage, the others in consecutive stages.

    The cut minimizes the `largest` sum of a stage's share of time and share of memory. Layers that share weights are in
    one stage. Raises NetError if there are too few layers.
    """
    places = [index for index, step in enumerate(steps) if not isinstance(step.layer, Source)]
    joints = _joints([steps[index] for index in places])
    sums = [0.0, *accumulate(sum(costs[index]) for index in places)]
    ends = [end for end in range(1, len(places)) if end not in joints] + [len(places)]
    if len(ends) < stages:
        raise NetError(
            f"pipeline: {stages} stages, but the net can be cut into at most {len(ends)} parts: it has {len(places)} "
            "layers besides data layers, and layers that share weights must be in one stage; use fewer stages"
        )
    best: dict[int, tuple[float, list[int]]] = {end: (sums[end], [end]) for end in ends}
    for _ in range(stages - 1):
        best = {
            end: min(
                (max(worst, sums[end] - sums[start]), [*cuts, end])
                for start, (worst, cuts) in best.items()
                if start < end
            )
            for end in ends
            if any(start < end for start in best)
        }
    cuts = best[len(places)][1]
    found = [0] * len(steps)
    for number, index in enumerate(places):
        found[index] = sum(number >= end for end in cuts[:-1])
    return found


def largest(costs: Shares, found: Sequence[int]) -> float:
    """The largest sum of a stage's share of the time and its share of the memory."""
    return max(
        sum(sum(cost) for cost, stage in zip(costs, found, strict=True) if stage == own)
        for own in range(max(found) + 1)
    )


def _joints(steps: Sequence[Step]) -> set[int]:
    """Return the positions at which the net cannot be cut, because layers on both sides share weights."""
    seen: dict[int, int] = {}
    joints: set[int] = set()
    for index, step in enumerate(steps):
        for blob in step.layer.param_blobs:
            joints.update(range(seen.setdefault(id(blob.weights), index) + 1, index + 1))
    return joints


def following(calls: Sequence[Call], known: dict[str, int]) -> list[int]:
    """Return the stages of a test net's calls: the stage of the layer that trains their weights, or of their bottoms.

    Raises NetError if a value would have to be sent to an earlier stage.
    """
    stage_at: dict[int, int] = {}
    found = []
    for call in calls:
        latest = max((stage_at[place] for place, _ in call.reads), default=0)
        stage = known.get(call.layer.name, latest) if call.layer.tensors else latest
        if stage < latest:
            raise NetError(
                f'pipeline: layer "{call.layer.name}" of the test net reads what stage {latest} computes, and its '
                f"weights are in stage {stage}; give the test net the order of the train net, or train without pipeline"
            )
        stage_at.update(dict.fromkeys(call.writes, stage))
        found.append(stage)
    return found
