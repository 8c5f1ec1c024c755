"""A single layer without a net, with the initial values of its fillers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.layers import Layer, layer_class
from caffe.proto import caffe_pb2, text

__all__ = ["alone"]


def alone(
    kind: str, shapes: Sequence[tuple[int, ...]], options: str = "", tops: int = 1, phase: int = caffe_pb2.TRAIN
) -> Layer:
    """Return a layer of the type `kind` with the options given as prototxt, built for bottoms b0, b1 ... of these
    shapes.
    """
    names = [f'bottom: "b{i}"' for i in range(len(shapes))] + [f'top: "t{i}"' for i in range(tops)]
    spec = caffe_pb2.LayerParameter(name="one", type=kind)
    spec.MergeFrom(text.parse(f"{' '.join(names)} {options}", caffe_pb2.LayerParameter()))
    layer = layer_class(kind)(spec, phase)
    layer.setup(*(torch.empty(shape, device="meta") for shape in shapes))
    layer.infer(*(torch.empty(shape, device="meta") for shape in shapes))
    layer.allocate()
    return layer
