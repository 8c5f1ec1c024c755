"""The filters of a layer, as they stand in a net or in a weight file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import NetError, UnknownName, did_you_mean
from caffe.proto import weights as weight_files

__all__ = ["filters_of", "first_filters"]


def first_filters(path: str | Path) -> tuple[str, np.ndarray]:
    """The first filters of a weight file that can be seen: the layer's name and (N, C, H, W). Raises NetError."""
    held = weight_files.read(path)
    for name, blobs in held.items():
        if blobs and blobs[0].ndim == 4 and min(blobs[0].shape[2:]) > 1:
            return name, blobs[0]
    raise NetError(f"{path}: no layer has filters of shape (N, C, H, W) larger than 1 x 1 (layers: {', '.join(held)})")


def filters_of(path: str | Path, layer: str) -> np.ndarray:
    """The filters of a layer of a weight file, (N, C, H, W). Raises UnknownName and NetError."""
    return _filters(weight_files.read(path), layer, str(path))


def _filters(held: Mapping[str, Sequence[Any]], layer: str, place: str) -> np.ndarray:
    if layer not in held:
        hint = did_you_mean(layer, held)
        raise UnknownName(f'{place}: there is no layer "{layer}" with weights{hint} (layers: {", ".join(held)})')
    first = np.asarray(held[layer][0])
    if first.ndim != 4:
        raise NetError(f'{place}: the weights of layer "{layer}" have shape {first.shape}; expected (N, C, H, W)')
    return first
