"""Rewrites a fork's net or solver as one that BVLC Caffe reads, as far as both compute exactly the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from caffe.proto.forks.fields import EFFECT, ENGINES, OPTIONS, REFUSED, WITHOUT_EFFECT
from caffe.proto.printing import repeated_fields

__all__ = ["Changes", "to_stock"]

_OURS, _FIRST = 20000, 30000
_TYPES = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data Deconvolution
Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData
InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling
Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
Split Swish TanH Threshold Tile WindowData
"""
"""The layer types of BVLC Caffe."""


@dataclass
class Changes:
    """What `to_stock` did: fields removed, parts rewritten, and what BVLC Caffe does not have. Each is named once."""

    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


def to_stock(message: Any) -> Changes:
    """Change an upgraded net or solver in place. Fields that BVLC Caffe lacks and that have an effect stay."""
    changes = Changes()
    for layer in getattr(message, "layer", ()):
        _equal_layer(layer, changes)
        if layer.type not in _TYPES.split():
            changes.remaining.append(f'layer type "{layer.type}"')
    changes.removed += _without_effect(message)
    changes.remaining += _foreign(message)
    for names in (changes.removed, changes.rewritten, changes.remaining):
        names[:] = dict.fromkeys(names)
    return changes


def _equal_layer(layer: Any, changes: Changes) -> None:
    """Replace a layer by one of BVLC's that computes the same and has the same blobs, if there is one."""
    was, conv = layer.type, layer.convolution_param
    if was in ("DepthwiseConvolution", "ConvolutionDepthwise") and conv.num_output:
        layer.type = "Convolution"
        conv.group = conv.num_output
    elif was == "ReLU6" and not layer.relu6_param.negative_slope:
        layer.type = "Clip"
        layer.ClearField("relu6_param")
        layer.clip_param.min, layer.clip_param.max = 0, 6
    elif was == "Gather" and len(layer.bottom) == len(layer.top) == 1:
        layer.type = "Split"
    if layer.type != was:
        changes.rewritten.append(f"{was} as {layer.type}")


def _without_effect(message: Any) -> Iterator[str]:
    """Remove the fields and engines that have no effect on the result, also in nested messages; yields their names."""
    table, repeated = WITHOUT_EFFECT.get(message.DESCRIPTOR.name, {}), repeated_fields(message.DESCRIPTOR)
    for each, value in message.ListFields():
        if each.is_extension or each.name == "blobs":
            continue
        if each.name in table:
            message.ClearField(each.name)
            yield f"{each.name} ({table[each.name]})"
        elif each.name == "engine" and each.enum_type.values_by_number[value].name in ENGINES:
            message.ClearField(each.name)
            engine = each.enum_type.values_by_number[value].name
            yield f"engine: {engine} ({ENGINES[engine]})"
        elif each.message_type is not None and each.number < _FIRST:
            for part in value if each.name in repeated else (value,):
                yield from _without_effect(part)


def _foreign(message: Any) -> Iterator[str]:
    """Yield the fields and values that BVLC's messages do not have."""
    owner, repeated = message.DESCRIPTOR.name, repeated_fields(message.DESCRIPTOR)
    for each, value in message.ListFields():
        if each.is_extension:
            yield each.name
        elif each.number >= _OURS:
            yield f"{each.name} ({_origin(owner, each.name) if each.number >= _FIRST else 'Cafetière'})"
        elif each.enum_type is not None and each.name not in repeated and value >= _FIRST:
            yield f"{each.name}: {each.enum_type.values_by_number[value].name}"
        elif each.message_type is not None and each.name != "blobs":
            for part in value if each.name in repeated else (value,):
                yield from _foreign(part)


def _origin(owner: str, name: str) -> str:
    for table in (EFFECT, WITHOUT_EFFECT):
        if name in table.get(owner, {}):
            return table[owner][name]
    refused = REFUSED.get(owner, {})
    return refused[name][0] if name in refused else OPTIONS.get(name, "a fork")
