"""A net's weights, from and to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from caffe import log
from caffe.blob import legacy_equal
from caffe.errors import NetError
from caffe.layers.base import Layer, shape_text
from caffe.proto import weights

if TYPE_CHECKING:
    from caffe.net.net import Net

__all__ = ["check_blobs", "copy_from", "save", "save_hdf5"]


def copy_from(layers: Sequence[Layer], path: str | Path) -> None:
    """Load the file's blobs into the layers of the same names; checks every shape before it changes anything."""
    stored = weights.read(path)
    by_name = {layer.name: layer for layer in layers}
    pairs: list[tuple[Tensor, np.ndarray]] = []
    for name, arrays in stored.items():
        layer = by_name.get(name)
        if layer is None:
            log.info("net.cpp:746", f"Ignoring source layer {name}")
            continue
        if _holds_no_copy(layer, arrays, path):
            continue
        check_blobs(layer, [array.shape for array in arrays], str(path))
        pairs += zip(layer.blobs, arrays, strict=True)
    for blob, array in pairs:
        blob.data.copy_(torch.from_numpy(np.ascontiguousarray(array)).reshape(blob.shape))


def _holds_no_copy(layer: Layer, arrays: Sequence[np.ndarray], path: str | Path) -> bool:
    """HDF5 files hold a shared parameter only under its owner: the sharing layer has fewer arrays there, or none."""
    return len(arrays) == 0


def check_blobs(layer: Layer, shapes: Sequence[tuple[int, ...]], source: str) -> None:
    """Raise NetError unless blobs of these shapes fit the layer."""
    what = f'layer "{layer.name}" ({layer.type})'
    if len(shapes) != len(layer.blobs):
        raise NetError(f"{what}: {source} has {len(shapes)} blob(s) for it, the net has {len(layer.blobs)}")
    for index, (blob, shape) in enumerate(zip(layer.blobs, shapes, strict=True)):
        if not legacy_equal(tuple(blob.shape), tuple(shape)):
            raise NetError(
                f"{what}: cannot copy blob {index} from {source}: its shape there is {shape_text(shape)}, "
                f"in the net {shape_text(blob.shape)}; to learn this layer from scratch instead, rename it"
            )


def save(net: Net, path: str | Path, diffs: bool = False) -> None:
    """Write a .caffemodel: every layer's parameter message and blobs."""
    weights.write(path, net.to_proto(), _arrays(net), _arrays(net, diff=True) if diffs else None)


def save_hdf5(net: Net, path: str | Path, diffs: bool = False) -> None:
    """Write an HDF5 weight file; a shared parameter is written under its owner only."""
    owners = {(entry.layer, entry.index) for entry in net.learnable}

    def owned(arrays: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray | None]]:
        return {
            name: [array if (name, index) in owners else None for index, array in enumerate(arrays.get(name, []))]
            for name in net.layer_names
        }

    weights.write_hdf5(path, owned(_arrays(net)), owned(_arrays(net, diff=True)) if diffs else None)


def _arrays(net: Net, diff: bool = False) -> dict[str, list[np.ndarray]]:
    def array(blob: Any) -> np.ndarray:
        return (blob.grad if diff else blob.tensor).detach().cpu().numpy()

    return {name: [array(blob) for blob in blobs] for name, blobs in net.params.items()}
