"""Rewrite of a ReLU followed by a pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from caffe.layers.activation import ReLU
from caffe.layers.pooling import Pooling
from caffe.net.plan.rewrite.call import Call, readers
from caffe.proto import caffe_pb2

__all__ = ["pool_before_relu"]

MAX = caffe_pb2.PoolingParameter.MAX


def pool_before_relu(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Apply max pooling before ReLU: the result is the same, and ReLU processes fewer cells."""
    read = readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    swapped: dict[int, Call] = {}
    for call in calls:
        relu = maker.get(call.reads[0][0]) if _takes_largest(call) else None
        if relu is None or type(relu.layer) is not ReLU or relu.layer.opt.negative_slope:
            continue
        between = relu.writes[0]
        if read[between] == 1 and between not in wanted:
            backward = relu.backward or call.backward
            swapped[id(relu)] = replace(call, reads=relu.reads, writes=relu.writes, backward=backward)
            swapped[id(call)] = replace(relu, reads=call.reads, writes=call.writes, backward=backward)
    return [swapped.get(id(call), call) for call in calls]


def _takes_largest(call: Call) -> bool:
    return type(call.layer) is Pooling and call.layer.opt.pool == MAX and len(call.writes) == 1
