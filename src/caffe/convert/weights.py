"""Converts the weights of a net to files of tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import torch as bridge
from caffe.convert.matching import Group, Match, match
from caffe.convert.tensors import form_of, read_tensors, write_tensors
from caffe.errors import DataError
from caffe.layers.base import Layer
from caffe.layers.dense import Scale
from caffe.layers.normalization import BatchNorm
from caffe.net import Net
from caffe.proto import weights
from caffe.proto.caffe_pb2 import TEST
from caffe.registry import LAYERS

__all__ = ["export_weights", "import_weights"]

_TORCH = {"mean": "running_mean", "variance": "running_var"}


def export_weights(source: str | Path, out: str | Path, model: str = "") -> int:
    """Write the blobs of a .caffemodel or HDF5 file as tensors, "layer.weight" and "layer.bias"; returns their number.

    With the net's prototxt, the names are those of `caffe.torch.load(model).state_dict()`. Without it, they are derived
    from the layer types in the file.
    """
    if model:
        module = bridge.load(model, source)
        tensors: Mapping[str, Tensor] = module.state_dict()
    else:
        kinds = {layer.name: layer.type for layer in weights.skeleton(source).layer}
        tensors = {
            f"{layer}.{_blob_name(kinds.get(layer, ''), index)}": torch.from_numpy(np.array(array))
            for layer, arrays in weights.read(source).items()
            for index, array in enumerate(arrays)
            if array is not None
        }
    write_tensors(out, tensors)
    return len(tensors)


def _blob_name(kind: str, index: int) -> str:
    names = LAYERS.items.get(kind, Layer).blob_names
    return names[index] if index < len(names) else f"blob{index}"


def import_weights(
    source: str | Path, out: str | Path, model: str, listed: Mapping[str, str] | None = None, by_order: bool = False
) -> Match:
    """Write a .caffemodel (or .h5) for a net from a file of tensors; returns the match.

    Layers without a tensor are omitted, so they keep the values of their fillers. A missing bias is 0, and a missing
    factor of BatchNorm is 1. Raises DataError if no tensor matches. See `match` for the rules.
    """
    tensors = read_tensors(source)
    with closing(Net(model, TEST)) as net:
        names, groups = _blobs(net)
        found = match(tensors, {blob: shape for blob, (_, _, shape) in names.items()}, groups, listed, by_order)
        if not found.found:
            raise DataError("\n".join([f"{source}: no tensor matches a blob of {model}", *found.lines()]))
        data: dict[str, list[np.ndarray]] = {}
        for blob, (layer, index, shape) in names.items():
            if blob in found.found:
                value = tensors[found.found[blob][0]].to(torch.float32).numpy().reshape(shape)
            elif blob in found.left_blobs:
                continue
            else:
                value = _missing(blob, shape, found)
            data.setdefault(layer, []).append(value)
            assert len(data[layer]) == index + 1
        if form_of(out) == "hdf5":
            weights.write_hdf5(out, dict(data))
        else:
            weights.write(out, _spec(net, data), data)
    return found


def _missing(blob: str, shape: tuple[int, ...], found: Match) -> np.ndarray:
    """Return the value of a missing blob of a layer whose other blobs are in the file."""
    kind = blob.rpartition(".")[2]
    if kind not in ("bias", "factor"):
        raise DataError(
            f"{blob}: the file contains other blobs of the layer, but not this one; shape {shape} is needed"
        )
    if kind == "bias":
        found.notes.append(f"{blob} is 0, because the file does not contain it")
    return np.full(shape, kind == "factor", np.float32)


def _spec(net: Any, data: Mapping[str, object]) -> Any:
    """Return the net's message, with only the layers that are written."""
    spec = net.to_proto()
    for index in reversed(range(len(spec.layer))):
        if spec.layer[index].name not in data:
            del spec.layer[index]
    return spec


def _blobs(net: Any) -> tuple[dict[str, tuple[str, int, tuple[int, ...]]], list[Group]]:
    """Return layer, index and shape of each blob "layer.name", and the groups that correspond to torch modules."""
    names: dict[str, tuple[str, int, tuple[int, ...]]] = {}
    groups: list[Group] = []
    normalized: dict[str, Group] = {}  # keys are the tops of BatchNorm layers
    for step in net.steps:
        layer = step.layer
        own = {}
        for index, blob in enumerate(layer.param_blobs):
            kind = blob.parameter_name
            names[f"{layer.name}.{kind}"] = (layer.name, index, tuple(blob.shape))
            own[_TORCH.get(kind, kind)] = f"{layer.name}.{kind}"
        if isinstance(layer, Scale) and step.bottom_names[0] in normalized:
            group = normalized[step.bottom_names[0]]
            group.names.append(layer.name)
            group.blobs = {**own, **group.blobs}
        elif own:
            groups.append(Group([layer.name], own))
            if isinstance(layer, BatchNorm):
                normalized[step.top_names[0]] = groups[-1]
    return names, groups
