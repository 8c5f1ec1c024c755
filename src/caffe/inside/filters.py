"""The filters of a layer, from a net or a weight file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import NetError, UnknownName, did_you_mean
from caffe.proto import weights as weight_files

__all__ = ["filters_of", "first_filters"]


def first_filters(path: str | Path) -> tuple[str, np.ndarray]:
    """Return name and filters (N, C, H, W) of the first layer in a weight file with filters larger than 1 x 1.

    Raises NetError.
    """
    held = weight_files.read(path)
    for name, blobs in held.items():
        if blobs and blobs[0].ndim == 4 and min(blobs[0].shape[2:]) > 1:
            return name, blobs[0]
    raise NetError(f"{path}: no layer has filters of shape (N, C, H, W) larger than 1 x 1 (layers: {', '.join(held)})")


def filters_of(path: str | Path, layer: str) -> np.ndarray:
    """Return the filters (N, C, H, W) of a layer in a weight file. Raises UnknownName and NetError."""
    return _filters(weight_files.read(path), layer, str(path))


def _filters(held: Mapping[str, Sequence[Any]], layer: str, place: str) -> np.ndarray:
    if layer not in held:
        hint = did_you_mean(layer, held)
        raise UnknownName(f'{place}: there is no layer "{layer}" with weights{hint} (layers: {", ".join(held)})')
    first = np.asarray(held[layer][0])
    if first.ndim != 4:
        raise NetError(f'{place}: the weights of layer "{layer}" have shape {first.shape}; expected (N, C, H, W)')
    return first
