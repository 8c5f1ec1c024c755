"""Coordinate maps between blobs of a NetSpec, which are needed to crop one blob to another.

A map (axis, a, b) means: coordinate x of one blob is a x + b in the other, on the axes after `axis` (None: any axis).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe.errors import CropError, NetError
from caffe.net_spec import Function, Top
from caffe.net_spec import layers as L
from caffe.proto.forks.alignment import PASS_THROUGH

__all__ = [
    "PASS_THROUGH_LAYERS",
    "AxisMismatchException",
    "UndefinedMapException",
    "compose",
    "conv_params",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "crop_params",
    "inverse",
]

Map = tuple[int | None, Any, Any]

PASS_THROUGH_LAYERS = [*PASS_THROUGH]
"""Types of layers that keep every value at its position."""

_IDENTITY: Map = (None, 1, 0)


class UndefinedMapException(NetError):
    """A layer type without a coordinate map."""


class AxisMismatchException(NetError):
    """Two maps over different axes, which cannot be composed."""


class _NoKernel(NetError, KeyError):
    """A layer with a sliding window whose size is not given, or not as a list."""

    __str__ = Exception.__str__


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Axis, stride, extent (the kernel with its dilation) and padding of a layer with a sliding window."""
    options = "pooling_param" if fn.type_name == "Pooling" else "convolution_param"
    params = fn.params.get(options, fn.params)
    single = [f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw"]
    given = [name for name in single if name in params]
    hint = f"{given[0]} is not supported here; give lists (stride: [2, 3])" if given else ""
    if "kernel_size" not in params:
        raise _NoKernel(f"{fn.type_name}: has no kernel_size, which its map of coordinates needs; {hint}".rstrip("; "))
    if given:
        raise CropError(f"{fn.type_name}: {hint}")
    kernel, dilation, stride, pad = (
        np.array(params.get(name, default), ndmin=1)
        for name, default in (("kernel_size", 1), ("dilation", 1), ("stride", 1), ("pad", 0))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """Axis and offsets of a Crop layer."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map of one layer, from its bottom to its top."""
    # type names: the layers of a NetSpec are not built, and their options are plain dictionaries
    if fn.type_name == "Pooling" and fn.params.get("pooling_param", fn.params).get("global_pooling"):
        raise UndefinedMapException("a Pooling layer with global_pooling has no map of coordinates")
    if fn.type_name in ("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", "Pooling", "Im2col"):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return _IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    raise UndefinedMapException(f"a layer of type {fn.type_name} has no map of coordinates")


def compose(base_map: Map, next_map: Map) -> Map:
    """Compose two maps: `next_map` after `base_map`."""
    axis, scale, offset = base_map
    next_axis, next_scale, next_offset = next_map
    if axis is not None and next_axis is not None and axis != next_axis:
        raise AxisMismatchException(f"maps over the axes after {axis} and after {next_axis} cannot follow each other")
    return next_axis if axis is None else axis, scale * next_scale, scale * next_offset + offset


def inverse(coord_map: Map) -> Map:
    """The inverse of a map."""
    axis, scale, offset = coord_map
    return axis, 1 / scale, -offset / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from one blob to another, via their nearest common ancestor."""
    from_maps = dict(_maps(top_from))
    for top, to_map in _maps(top_to):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise NetError(
        "there is no map between the two blobs: they have no common ancestor through layers with coordinate maps"
    )


def _maps(top: Top) -> list[tuple[Top, Map]]:
    """The ancestors of `top` through layers that have coordinate maps, nearest first, with their maps to it."""
    found: dict[Top, Map] = {top: _IDENTITY}
    pending = [top]
    while pending:
        current = pending.pop(0)
        fn = current.fn
        bottoms = fn.inputs[:1] if fn.type_name == "Crop" else fn.inputs
        try:
            step = coord_map(fn) if bottoms else _IDENTITY
        except UndefinedMapException:
            continue
        for bottom in bottoms:
            if bottom not in found:
                found[bottom] = compose(found[current], step)
                pending.append(bottom)
    return list(found.items())


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that aligns `top_from` with `top_to`, as in fully convolutional nets."""
    axis, scale, offset = coord_map_from_to(top_from, top_to)
    if np.any(np.asarray(scale) != 1):
        raise CropError(
            f"cannot crop: one blob has {scale} times the resolution of the other; resize one of them first"
        )
    if np.any(np.asarray(offset) > 0):
        raise CropError(f"cannot crop: the offset {np.negative(offset)} is negative; pad the first layers more")
    if np.any(np.round(offset) != offset):
        raise CropError(f"cannot crop: the offset {np.negative(offset)} is not a whole number; change a padding by one")
    offsets = [int(-value) for value in np.atleast_1d(offset)]
    return L.Crop(top_from, top_to, crop_param={"axis": 2 if axis is None else axis + 1, "offset": offsets})
