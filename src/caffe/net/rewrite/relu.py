"""Rewrites of ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from caffe.net.rewrite.call import Call, readers
from caffe.proto import caffe_pb2

__all__ = ["relu_in_place"]

SUM = caffe_pb2.EltwiseParameter.SUM

_FORGETFUL = ("BatchNorm", "Convolution", "Deconvolution", "InnerProduct", "LRN", "Scale")
"""Layers that make their top anew and whose gradient does not need it; so does a sum of Eltwise."""


def relu_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """ReLU over its input's memory, where whoever made the input needs it no more."""
    read = readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    changed = []
    for call in calls:
        if call.layer.type == "ReLU" and not call.layer.opt.negative_slope and not call.reads[0][1]:
            place = call.reads[0][0]
            if _forgets(maker[place].layer) and read[place] == 1 and place not in wanted:
                call = replace(call, run=torch.relu_)
        changed.append(call)
    return changed


def _forgets(layer: Any) -> bool:
    return layer.type in _FORGETFUL or (layer.type == "Eltwise" and layer.opt.operation == SUM)
