"""Helpers that build a layer, run it, and check its errors for bad options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from caffe.errors import LayerError
from caffe.layers import Layer
from caffe.layers.base import as_tuple
from caffe.proto.caffe_pb2 import TRAIN
from tests.layers.case import Case


def build(type_name: str, options: str, *shapes: tuple[int, ...], tops: int = 1, phase: int = TRAIN) -> Layer:
    """Return the layer in double precision, with blobs that contain no zeros."""
    return Case(type_name, "", shapes, options, tops, phase).build(torch.float64)


def apply(type_name: str, options: str, *bottoms: Any, tops: int = 1, phase: int = TRAIN) -> Any:
    """Return the top, or a tuple of tops, of a layer without blobs."""
    xs = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64) for x in bottoms]
    layer = build(type_name, options, *(tuple(x.shape) for x in xs), tops=tops, phase=phase)
    made = as_tuple(layer(*xs))
    return made[0] if len(made) == 1 else made


def assert_rejected(type_name: str, options: str, *shapes: tuple[int, ...], says: str, tops: int = 1) -> None:
    """Assert that building the layer raises a LayerError that names the layer and contains `says`."""
    with pytest.raises(LayerError) as caught:
        build(type_name, options, *shapes, tops=tops)
    assert f'layer "layer" ({type_name}): ' in str(caught.value)
    assert says in str(caught.value)
