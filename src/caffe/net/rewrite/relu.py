"""Rewrites of ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from caffe.net.rewrite.call import Call, readers

__all__ = ["relu_in_place"]

_FORGETFUL = ("Convolution", "Deconvolution", "InnerProduct", "BatchNorm", "Scale")
"""Layers that make their top anew and whose gradient does not need it."""


def relu_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """ReLU over its input's memory, where whoever made the input needs it no more."""
    read = readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    changed = []
    for call in calls:
        if call.layer.type == "ReLU" and not call.layer.opt.negative_slope and not call.reads[0][1]:
            place = call.reads[0][0]
            if maker[place].layer.type in _FORGETFUL and read[place] == 1 and place not in wanted:
                call = replace(call, run=torch.relu_)
        changed.append(call)
    return changed
