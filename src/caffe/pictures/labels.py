"""The texts on the layers and arrows of a net's picture.

Pictures must not import PyTorch, so this module compares the names of layer types: the classes of layers need PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caffe.errors import ArgumentError
from caffe.proto import caffe_pb2

__all__ = [
    "get_edge_label",
    "get_layer_label",
    "get_layer_lr_mult",
    "get_pooling_types_dict",
    "rates",
    "shape_label",
    "window_sizes",
]

# type names: drawing imports no torch, and with it no layer classes
_LEARNS = ("Convolution", "Deconvolution", "InnerProduct")
CONVOLUTIONS = ("Convolution", "Deconvolution", "DepthwiseConvolution", "ConvolutionDepthwise")
"""Types that have convolution_param and learn filters."""
_WINDOWS = {**dict.fromkeys(CONVOLUTIONS, "convolution_param"), "Pooling": "pooling_param"}


def get_pooling_types_dict() -> dict[int, str]:
    """Return the names of the pooling methods by number."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: Any) -> str:
    """Return the text on the arrow from a layer to its top: the batch size or the number of outputs."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in CONVOLUTIONS:
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else ""


def get_layer_lr_mult(layer: Any) -> tuple[float, float]:
    """Return the rate multipliers of a layer's weights and bias, 1 if not set.

    Raises ArgumentError for a layer that is not a Convolution, Deconvolution or InnerProduct, as pycaffe does.
    """
    if layer.type not in _LEARNS:
        raise ArgumentError(f'layer "{layer.name}" ({layer.type}): lr_mult is shown for {", ".join(_LEARNS)} only')
    if len(layer.param) > 2:
        raise ArgumentError(f'layer "{layer.name}" ({layer.type}): has {len(layer.param)} param, expected at most 2')
    weights, bias = [param.lr_mult for param in layer.param] + [1.0, 1.0][len(layer.param) :]
    return weights, bias


def rates(layer: Any) -> str:
    """Return `lr mult: 1, 2`, the rate multipliers of weights and bias; an empty string for layers without weights."""
    return "lr mult: {:g}, {:g}".format(*get_layer_lr_mult(layer)) if layer.type in _LEARNS else ""


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """Return a layer's name, type and window, in one line if the picture runs from top to bottom, else in several."""
    kind = layer.type
    if kind == "Pooling":
        kind = f"{get_pooling_types_dict()[layer.pooling_param.pool]} Pooling"
    parts = [layer.name, f"({kind})", *_window(layer), rates(layer) if display_lrm else ""]
    return (" " if rankdir in ("TB", "BT") else "\n").join(part for part in parts if part)


def shape_label(shape: Sequence[int]) -> str:
    """Format a shape: `10 x 3 x 224 x 224`; `()` for a single number."""
    return " x ".join(map(str, shape)) or "()"


def _window(layer: Any) -> list[str]:
    """Return kernel, stride and padding of a layer with a window, in words."""
    if layer.type not in _WINDOWS:
        return []
    opt = getattr(layer, _WINDOWS[layer.type])
    if layer.type == "Pooling" and opt.global_pooling:
        return ["global"]
    facts = (("kernel size", "kernel", 1), ("stride", "stride", 1), ("pad", "pad", 0))
    return [f"{word}: {window_sizes(opt, name, default)}" for word, name, default in facts]


def window_sizes(opt: Any, name: str, default: int) -> str:
    """Format the sizes of `kernel`, `stride` or `pad` along the axes of a window: `3` or `3x5`."""
    height, width = getattr(opt, f"{name}_h"), getattr(opt, f"{name}_w")
    if height or width:
        sizes = [height, width]
    else:
        given = getattr(opt, "kernel_size" if name == "kernel" else name)
        sizes = [given] if isinstance(given, int) else list(given)
    sizes = [size or default for size in sizes or [default]]
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))
