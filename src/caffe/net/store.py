"""A net's weights, from and to files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from caffe import log
from caffe.blob import ParamBlob
from caffe.errors import NetError
from caffe.layers.base import Layer, shape_text
from caffe.proto import weights
from caffe.proto.blobs import fits

if TYPE_CHECKING:
    from caffe.net.net import Net

__all__ = ["check_blobs", "copy_from", "save", "save_hdf5"]

_PART = 2**20  # elements that a thread copies at a time


def copy_from(net: Net, path: str | Path) -> None:
    """Load the file's blobs into the layers of the same names; checks every shape before it changes anything.

    An HDF5 file holds a shared parameter under its owner only: what it leaves out stays as the owner has it.
    """
    with weights.opened(path) as found:
        pairs = _pairs(net, path, found)
        here = [(blob, array) for blob, array in pairs if blob.parameter.device.type == "cpu"]
        _copy([(blob.parameter.detach().numpy(), array.reshape(blob.shape)) for blob, array in here])
        for blob, array in pairs:
            if blob.parameter.device.type != "cpu":
                blob.parameter.data.copy_(torch.from_numpy(np.array(array)).reshape(blob.shape))
            blob.advance()


def _copy(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy arrays on several threads: memory that is touched for the first time keeps one busy."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for there, here in pairs:
        count = min(len(there), 1 + there.size // _PART) if there.ndim else 0
        parts += (
            zip(np.array_split(there, count), np.array_split(here, count), strict=True) if count else [(there, here)]
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(lambda part: np.copyto(part[0], part[1], casting="same_kind"), parts):
            pass


def _pairs(net: Net, path: str | Path, found: dict[str, list[np.ndarray]]) -> list[tuple[ParamBlob, np.ndarray]]:
    layers = net.layer_dict
    owned = {(entry.layer, entry.index) for entry in net.learnable}
    pairs: list[tuple[ParamBlob, np.ndarray]] = []
    for name, arrays in found.items():
        layer = layers.get(name)
        if layer is None:
            log.info("net.cpp:746", f"Ignoring source layer {name}")
            continue
        given: list[np.ndarray | None] = [*arrays, *[None] * (len(layer.tensors) - len(arrays))]
        shared = [array is None and (name, index) not in owned for index, array in enumerate(given)]
        present = [array for array, skip in zip(given, shared, strict=True) if array is not None or not skip]
        kept = [blob for blob, skip in zip(layer.param_blobs, shared, strict=False) if not skip]
        check_blobs(layer, kept, [array.shape for array in present if array is not None], str(path))
        pairs += [(blob, array) for blob, array in zip(kept, present, strict=True) if array is not None]
    return pairs


def check_blobs(layer: Layer, blobs: Sequence[ParamBlob], shapes: Sequence[tuple[int, ...]], source: str) -> None:
    """Raise NetError unless arrays of these shapes, from `source`, fit these blobs of the layer."""
    what = f'layer "{layer.name}" ({layer.type})'
    if len(shapes) != len(blobs):
        raise NetError(f"{what}: {source} has {len(shapes)} blob(s) for it, the net has {len(blobs)}")
    for index, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
        if not fits(shape, blob.shape):
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
        return (blob.read_diff() if diff else blob.read()).detach().cpu().numpy()

    return {name: [array(blob) for blob in blobs] for name, blobs in net.params.items()}
