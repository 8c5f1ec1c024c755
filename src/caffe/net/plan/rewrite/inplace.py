"""Rewrites for training that compute layers in place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caffe.layers.elementwise import Eltwise
from caffe.net.plan.rewrite.call import Call, is_plain_relu, readers
from caffe.proto import caffe_pb2

__all__ = ["apart", "in_place", "overwritten", "relu_in_place", "sum_in_place"]

SUM = caffe_pb2.EltwiseParameter.SUM


def relu_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Compute ReLU in place if the layer that computed its bottom does not need the bottom in backward."""
    read = readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    changed = []
    for call in calls:
        if is_plain_relu(call):
            place = call.reads[0][0]
            if maker[place].layer.forgets_top and read[place] == 1 and place not in wanted:
                call = replace(call, run=torch.relu_)
        changed.append(call)
    return changed


def sum_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Compute an Eltwise SUM of two bottoms in place of one that has no other reader, as in a residual net."""
    read = readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    changed = []
    for call in calls:
        if adds_two(call) and not any(cut for _, cut in call.reads):
            for run, (place, _) in zip((_add_to_first, _add_to_second), call.reads, strict=True):
                if maker[place].layer.forgets_top and read[place] == 1 and place not in wanted:
                    call = replace(call, run=run)
                    break
        changed.append(call)
    return changed


def apart(calls: Sequence[Call]) -> list[Call]:
    """Return the calls, changed so that none overwrites a value that was computed before the first of them."""
    made: set[int] = set()
    changed = []
    for call in calls:
        if in_place(call) and overwritten(call) not in made:
            call = replace(call, run=call.layer.forward)
        made.update(call.writes)
        changed.append(call)
    return changed


def in_place(call: Call) -> bool:
    """Whether a call writes over one of its bottoms."""
    return isinstance(call.run, Hashable) and call.run in _IN_PLACE


def overwritten(call: Call) -> int:
    """The place of the bottom that a call in place writes over."""
    return call.reads[_IN_PLACE[call.run]][0]


def adds_two(call: Call) -> bool:
    """Whether a call is the plain sum of two different values."""
    layer: Any = call.layer
    if type(layer) is not Eltwise or len(call.reads) != 2 or call.reads[0][0] == call.reads[1][0]:
        return False
    return layer.opt.operation == SUM and layer.coeff == [1.0, 1.0]


def _add_to_first(x: Tensor, y: Tensor) -> Tensor:
    return x.add_(y)


def _add_to_second(x: Tensor, y: Tensor) -> Tensor:
    return y.add_(x)


_IN_PLACE: dict[Callable[..., Any], int] = {torch.relu_: 0, _add_to_first: 0, _add_to_second: 1}
"""The functions that write over a bottom, and the index of that bottom."""
