"""Loads and saves the weights of a net."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe import log
from caffe.blob import ParamBlob
from caffe.errors import ArgumentType, NetError
from caffe.layers.base import Layer, shape_text
from caffe.net.views import Views
from caffe.proto import caffe_pb2, weights
from caffe.proto.blobs import fits

__all__ = [
    "check_blobs",
    "copy_from",
    "load",
    "require_common",
    "save",
    "save_hdf5",
    "share",
    "to_proto",
    "type_list",
    "without_weights",
]

_PART = 2**20  # number of elements that a thread copies at a time


def copy_from(net: Views, path: str | Path) -> None:
    """Load the blobs of a file into the layers with the same names. All shapes are checked before the first change.

    An HDF5 file stores a shared parameter only under its owner. Raises NetError if no layer gets weights. Warns if some
    layers get none.
    """
    load(net, [path])


def load(net: Views, paths: Sequence[str | Path]) -> None:
    """`copy_from` for several files in order. Warns of layers that get weights from none of them."""
    if not paths:
        return
    _require_whole(net, "copy_from")
    filled: set[str] = set()
    for path in paths:
        filled |= _load(net, path)
    owners = {entry.layer for entry in net.learnable}  # all other layers have only shared blobs
    rest = [layer for layer in net.layers if layer.name in owners and layer.name not in filled]
    if filled and rest:
        source = ", ".join(map(str, paths))
        log.warning("net.cpp", f'net "{net.name}": no weights in {source} for {type_list(rest)}: they keep their own')


def without_weights(net: Views, other: Views) -> list[Layer]:
    """The layers of `net` with blobs that have no counterpart, by name, in `other`."""
    known = {layer.name for layer in other.layers if layer.tensors}
    return [layer for layer in net.layers if layer.tensors and layer.name not in known]


def require_common(net: Views, other: Views) -> None:
    """Raise NetError if `net` has blobs and none of its layers can share those of `other`."""
    mine = [layer for layer in net.layers if layer.tensors]
    if mine and len(without_weights(net, other)) == len(mine):
        theirs = [layer.name for layer in other.layers if layer.tensors]
        raise _nothing_in_common(net, f'net "{other.name}"', theirs)


def _nothing_in_common(net: Views, source: str, names: Sequence[str]) -> NetError:
    mine = [layer.name for layer in net.layers if layer.tensors]
    return NetError(
        f'{source} has no weights for any layer of net "{net.name}": it has {_quoted(names)}, the net needs '
        f"{_quoted(mine)}. Weights are matched by layer name: take the weights of this net, or use their names"
    )


def _quoted(names: Sequence[str], limit: int = 8) -> str:
    """`"conv1", "ip2"`: the first names of a list, and the number of the others."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(f'"{name}"' for name in names[:limit]) or "none") + rest


def type_list(layers: Sequence[Layer]) -> str:
    """`"conv1" (Convolution), "ip2" (InnerProduct)`."""
    return ", ".join(f'"{layer.name}" ({layer.type})' for layer in layers)


def _load(net: Views, path: str | Path) -> set[str]:
    """Load one file. Returns the names of the layers for which it has weights."""
    with weights.opened(path) as found:
        pairs = _pairs(net, path, found)
        if not pairs and any(layer.tensors for layer in net.layers):
            raise _nothing_in_common(net, str(path), [name for name, arrays in found.items() if arrays])
        here = [(blob, array) for blob, array in pairs if blob.parameter.device.type == "cpu"]
        _copy([(blob.parameter.detach().numpy(), array.reshape(blob.shape)) for blob, array in here])
        for blob, array in pairs:
            if blob.parameter.device.type != "cpu":
                blob.parameter.data.copy_(torch.from_numpy(np.array(array)).reshape(blob.shape))
            blob.advance()
        return {layer.name for layer in net.layers if found.get(layer.name)}


def _copy(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy arrays with several threads, since the first write to newly allocated memory is slow."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for there, here in pairs:
        count = min(len(there), 1 + there.size // _PART) if there.ndim else 0
        parts += (
            zip(np.array_split(there, count), np.array_split(here, count), strict=True) if count else [(there, here)]
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(lambda part: np.copyto(part[0], part[1], casting="same_kind"), parts):
            pass


def _pairs(net: Views, path: str | Path, found: dict[str, list[np.ndarray]]) -> list[tuple[ParamBlob, np.ndarray]]:
    layers = net.layer_dict
    owned = {(entry.layer, entry.index) for entry in net.learnable}
    pairs: list[tuple[ParamBlob, np.ndarray]] = []
    for name, arrays in found.items():
        layer = layers.get(name)
        if layer is None:
            log.info("net.cpp:746", f"Ignoring source layer {name}")
            continue
        arrays = list(layer.adapted(arrays))
        if len(arrays) > len(layer.tensors):
            check_blobs(layer, layer.param_blobs, [()] * len(arrays), str(path))
        given: list[np.ndarray | None] = [*arrays, *[None] * (len(layer.tensors) - len(arrays))]
        shared = [array is None and (name, index) not in owned for index, array in enumerate(given)]
        present = [array for array, skip in zip(given, shared, strict=True) if array is not None or not skip]
        kept = [blob for blob, skip in zip(layer.param_blobs, shared, strict=False) if not skip]
        check_blobs(layer, kept, [array.shape for array in present if array is not None], str(path))
        pairs += [(blob, array) for blob, array in zip(kept, present, strict=True) if array is not None]
    return pairs


def check_blobs(layer: Layer, blobs: Sequence[ParamBlob], shapes: Sequence[tuple[int, ...]], source: str) -> None:
    """Raise NetError unless arrays of these shapes, from `source`, match these blobs of the layer."""
    what = f'layer "{layer.name}" ({layer.type})'
    if len(shapes) != len(blobs):
        raise NetError(f"{what}: {source} has {len(shapes)} blob(s) for it, the net has {len(blobs)}")
    for index, (blob, shape) in enumerate(zip(blobs, shapes, strict=True)):
        if not fits(shape, blob.shape):
            raise NetError(
                f"{what}: cannot copy blob {index} from {source}: its shape there is {shape_text(shape)}, "
                f"in the net {shape_text(blob.shape)}; to learn this layer from scratch instead, rename it"
            )


def _require_whole(net: Views, what: str) -> None:
    """Raise NetError for a net of which this process has only parts of the weights."""
    for step in net.steps:
        if step.divided:
            fact = f'{what} needs whole weights, and those of net "{net.name}" are divided over processes'
            raise NetError(f"{fact}; use solver.snapshot() and solver.restore(state), which all processes call")


def save(net: Views, path: str | Path, diffs: bool = False) -> None:
    """Write a .caffemodel with the parameter message and blobs of every layer."""
    _require_whole(net, "save")
    weights.write(path, to_proto(net), _arrays(net), _arrays(net, diff=True) if diffs else None)


def save_hdf5(net: Views, path: str | Path, diffs: bool = False) -> None:
    """Write an HDF5 weight file. A shared parameter is stored only under its owner."""
    _require_whole(net, "save_hdf5")
    owners = {(entry.layer, entry.index) for entry in net.learnable}

    def owned(arrays: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray | None]]:
        return {
            name: [array if (name, index) in owners else None for index, array in enumerate(arrays.get(name, []))]
            for name in net.layer_names
        }

    weights.write_hdf5(path, owned(_arrays(net)), owned(_arrays(net, diff=True)) if diffs else None)


def _arrays(net: Views, diff: bool = False) -> dict[str, list[np.ndarray]]:
    def array(blob: Any) -> np.ndarray:
        return (blob.read_diff() if diff else blob.read()).detach().cpu().numpy()

    return {name: [array(blob) for blob in blobs] for name, blobs in net.params.items()}


def to_proto(net: Views) -> Any:
    """The NetParameter of the built net: see Net.to_proto."""
    param = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layers:
        spec = param.layer.add()
        spec.CopyFrom(layer.spec)
        spec.ClearField("blobs")
        if "(automatic)" in spec.top:
            spec.top[:] = [name for name in spec.top if name != "(automatic)"]
    return param


def share(net: Views, other: Views) -> bool:
    """Use the parameters of another net: see Net.share_with. Returns False if they were already shared."""
    if not isinstance(other, Views):
        raise ArgumentType(f"share_with takes a Net, got {other!r:.80}, a {type(other).__name__}")
    require_common(net, other)
    mine, changed = net.layer_dict, False
    for theirs in other.layers:
        layer = mine.get(theirs.name)
        if layer is None:
            log.info("net.cpp:677", f"Ignoring source layer {theirs.name}")
            continue
        shapes = [blob.shape for blob in theirs.param_blobs]
        check_blobs(layer, layer.param_blobs, shapes, str(other.path or other.name))
        for index, blob in enumerate(theirs.param_blobs):
            changed = layer.use_weights(index, blob) or changed
    return changed
