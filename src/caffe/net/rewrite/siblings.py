"""Rewrites of convolutions side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caffe.layers.convolution import convolve
from caffe.net.rewrite.call import Call, readers

__all__ = ["sibling_convolutions"]


def sibling_convolutions(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """1 x 1 convolutions of one blob, each with its ReLU, as one: the blob is read once, and gets one gradient."""
    read = readers(calls)
    relus = {call.reads[0][0]: call for call in calls if _is_plain_relu(call)}
    families: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        if _is_pointwise(call):
            place = call.writes[0]
            if place in relus and read[place] == 1 and place not in wanted:
                families[call.reads, call.layer.bias is None].append(call)
    merged: dict[int, Call] = {}
    for members in (members for members in families.values() if len(members) > 1):
        layers = [call.layer for call in members]
        ends = [relus[call.writes[0]] for call in members]
        writes = tuple(end.writes[0] for end in ends)
        kept = tuple(blob for end in ends for blob in end.kept)
        backward = any(call.backward for call in (*members, *ends))
        one = replace(members[0], run=partial(_together, layers), writes=writes, kept=kept, backward=backward)
        merged.update((id(call), one) for call in (*members, *ends))
    return list(dict.fromkeys(merged.get(id(call), call) for call in calls))


def _is_plain_relu(call: Call) -> bool:
    return call.layer.type == "ReLU" and not call.layer.opt.negative_slope and not call.reads[0][1]


def _is_pointwise(call: Call) -> bool:
    layer: Any = call.layer
    if layer.type != "Convolution" or len(call.reads) != 1 or layer.channel != 1 or layer.opt.group != 1:
        return False
    slide = layer.slide
    return slide.kernel == (1, 1) and slide.stride == (1, 1) and slide.pad == (0, 0)


def _together(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    y = torch.relu_(convolve(x, weight, bias, layers[0].slide, 1))
    return y.split([len(layer.weight) for layer in layers], 1)
