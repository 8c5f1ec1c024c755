"""Rewrites that leave out what nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caffe.layers.base import Source
from caffe.net.plan.rewrite.call import Call

__all__ = ["drop_dead", "forget_history", "free_early"]


def drop_dead(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Layers whose tops nobody reads or wants, unless their run changes something else, as a source's does."""
    needed, left = set(wanted), []
    for call in reversed(calls):
        acts = isinstance(call.layer, Source) or call.layer.effects_now.lasting
        if acts or needed.intersection(call.writes):
            needed.update(place for place, _ in call.reads)
            left.append(call)
    return left[::-1]


def forget_history(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """No backward pass, and so no cuts of autograd's history."""
    return [replace(call, reads=tuple((place, False) for place, _ in call.reads), backward=False) for call in calls]


def free_early(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Values let go after their last reader; autograd keeps those that it needs."""
    seen, changed = set(wanted), []
    for call in reversed(calls):
        touched = {*(place for place, _ in call.reads), *call.writes}
        changed.append(replace(call, frees=tuple(touched - seen)))
        seen |= touched
    return changed[::-1]
