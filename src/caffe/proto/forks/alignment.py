"""AutoCrop of RCF: a Crop whose offset is computed from the layers between its two bottoms and their common source."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from caffe.errors import ProtoError

__all__ = ["PASS_THROUGH", "align"]

PASS_THROUGH = (
    *("AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN"),
    *("PReLU", "Power", "ReLU", "Scale", "Sigmoid", "Split", "Swish", "TanH", "Threshold"),
)
"""Types of layers that keep every value at its position."""

Axis = tuple[Fraction, Fraction]
Map = tuple[Axis, Axis]
"""For height and width (a, b): cell x of one blob lies at cell a x + b of the other."""

_SAME: Axis = (Fraction(1), Fraction(0))
_WINDOWS = ("Convolution", "Pooling", "Deconvolution", "DepthwiseConvolution", "ConvolutionDepthwise")
_SAME_CELLS = (*PASS_THROUGH, "BN", "Concat", "Normalize", "ReLU6", "Slice", "Softmax")


def align(layer: Any, before: list[Any]) -> None:
    """Convert an AutoCrop to the equivalent Crop, in place. `before` are the layers of the net up to it.

    From both bottoms, the chains of first bottoms are followed back to their nearest common blob. The coordinate maps
    along the two chains, composed, give the offset. Raises `ProtoError` if there is no common blob, or a layer without
    a coordinate map.
    """
    if len(layer.bottom) != 2 or len(layer.top) != 1:
        raise ProtoError("expected one top and two bottoms, the blob to crop and the reference for its size")
    makers: dict[str, Any] = {}
    for each in before:
        for top in each.top:
            if top not in each.bottom:
                makers.setdefault(top, each)
    ways = [_way(blob, makers) for blob in layer.bottom]
    meeting = next((blob for blob in ways[1] if blob in ways[0]), None)
    if meeting is None:
        raise ProtoError(f'"{layer.bottom[0]}" and "{layer.bottom[1]}" have no common source blob; write "Crop"')
    cropped, reference = (_between(way[: way.index(meeting)], makers) for way in ways)
    offsets = [_offset(*axes) for axes in zip(cropped, reference, strict=True)]
    layer.type = "Crop"
    layer.crop_param.axis = 2
    layer.crop_param.offset[:] = offsets


def _way(blob: str, makers: Mapping[str, Any]) -> list[str]:
    """Return the chain from the blob back to the data: the blob, the first bottom of the layer that produces it, and so
    on.
    """
    way = [blob]
    while blob in makers and makers[blob].bottom and makers[blob].bottom[0] not in way:
        blob = makers[blob].bottom[0]
        way.append(blob)
    return way


def _between(blobs: list[str], makers: Mapping[str, Any]) -> Map:
    """Return the composed map along a chain, from the bottom of the last blob's layer to the first blob."""
    total: Map = (_SAME, _SAME)
    for blob in blobs:
        total = tuple(  # type: ignore[assignment]
            (a * c, a * d + b) for (a, b), (c, d) in zip(total, _of_layer(makers[blob]), strict=True)
        )
    return total


def _of_layer(layer: Any) -> Map:
    """Return the coordinate map from a layer's bottom to its top."""
    if layer.type == "Crop":
        given = list(layer.crop_param.offset) or [0]
        height, width = (given * 2)[:2] if len(given) == 1 else given[-2:]
        return (Fraction(1), Fraction(-height)), (Fraction(1), Fraction(-width))
    if layer.type in _SAME_CELLS:
        return _SAME, _SAME
    if layer.type not in _WINDOWS or (layer.type == "Pooling" and layer.pooling_param.global_pooling):
        fact = f'between its bottoms lies "{layer.name}" ({layer.type}), which has no coordinate map'
        raise ProtoError(f'{fact}; write "Crop" with the offset as a number')
    param = layer.pooling_param if layer.type == "Pooling" else layer.convolution_param
    return tuple(_of_window(layer.type, param, axis) for axis in (0, 1))  # type: ignore[return-value]


def _of_window(kind: str, param: Any, axis: int) -> Axis:
    """Return the coordinate map of a sliding window along the height (0) or width (1)."""
    kernel, stride, pad = (_size(param, name, axis) for name in ("kernel_size", "stride", "pad"))
    dilation = 1 if kind == "Pooling" else _size(param, "dilation", axis)
    margin = Fraction((kernel - 1) * dilation, 2) - pad
    if kind == "Deconvolution":
        return Fraction(stride), margin
    return Fraction(1, stride), -margin / stride


def _size(param: Any, name: str, axis: int) -> int:
    """Return a size of a window, given for both axes at once, for each, or as _h and _w."""
    single = f"{name.removesuffix('_size')}_{'hw'[axis]}"
    if name != "dilation" and param.HasField(single):
        return int(getattr(param, single))
    given = getattr(param, name)
    if isinstance(given, int):
        return given or int(name == "stride")
    values = list(given) or [0 if name == "pad" else 1]
    return int(values[min(axis, len(values) - 1)])


def _offset(cropped: Axis, reference: Axis) -> int:
    """Return the number of cells before the reference along one axis."""
    scale = reference[0] / cropped[0]
    offset = cropped[1] / cropped[0] * reference[0] - reference[1]
    if scale != 1:
        raise ProtoError(f"one bottom has {float(scale):g} times the resolution of the other; resize one of them first")
    if offset < 0 or offset.denominator != 1:
        raise ProtoError(f"the offset would be {float(offset):g}, expected 0, 1, 2 ...; change a pad of the layers")
    return int(offset)
