"""Rewrite of Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caffe.layers.activation import Dropout
from caffe.net.plan.rewrite.call import Call

__all__ = ["drop_dropout"]


def drop_dropout(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Remove Dropout in TEST, where the top equals the bottom. Readers of the top read the bottom."""
    place: dict[int, int] = {}
    left = []
    for call in calls:
        call = replace(call, reads=tuple((place.get(read, read), cut) for read, cut in call.reads))
        layer = call.layer
        if type(layer) is Dropout and not layer.draws and layer.opt.scale_train and call.writes[0] not in wanted:
            place[call.writes[0]] = call.reads[0][0]
        else:
            left.append(call)
    return left
