"""Rewrites that remove unneeded calls and free values early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caffe.layers.base import Source
from caffe.net.plan.rewrite.call import Call

__all__ = ["drop_dead", "forget_history", "free_early"]


def drop_dead(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Remove layers whose tops are not used, unless their run has lasting side effects, like that of a source."""
    needed, left = set(wanted), []
    for call in reversed(calls):
        acts = isinstance(call.layer, Source) or call.layer.effects_now.lasting
        if acts or needed.intersection(call.writes):
            needed.update(place for place, _ in call.reads)
            left.append(call)
    return left[::-1]


def forget_history(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """For runs without backward: remove the operations that detach values from autograd."""
    return [replace(call, reads=tuple((place, False) for place, _ in call.reads), backward=False) for call in calls]


def free_early(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Free values after their last reader. Autograd keeps the values that backward needs."""
    seen, changed = set(wanted), []
    for call in reversed(calls):
        touched = {*(place for place, _ in call.reads), *call.writes}
        changed.append(replace(call, frees=tuple(touched - seen)))
        seen |= touched
    return changed[::-1]
