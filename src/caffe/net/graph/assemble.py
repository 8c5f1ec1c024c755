"""Builds a graph from a prototxt: read, check, filter by state, insert splits, build. Errors name file and line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from caffe import log, python_code
from caffe.errors import ArgumentType
from caffe.net.graph.build import build
from caffe.net.graph.rules import filter_net, insert_splits, makers
from caffe.net.graph.step import Graph
from caffe.proto import caffe_pb2, text, upgrade

__all__ = ["assemble", "load_param"]


def load_param(network: str | Path | Any) -> tuple[Any, Path | None]:
    """Read and upgrade the NetParameter of a file; returns it with the path. A given NetParameter is copied."""
    if isinstance(network, (str, Path)):
        return upgrade.read_net(network), Path(network)
    if not isinstance(network, caffe_pb2.NetParameter):
        raise ArgumentType(
            f"a net is made from a prototxt's path or a NetParameter, got {network!r:.80}, a {type(network).__name__}"
        )
    param = caffe_pb2.NetParameter()
    param.CopyFrom(network)
    upgrade.upgrade_net(param, "NetParameter")
    return param, None


def assemble(
    param: Any, path: Path | None, device: torch.device, python_layers: bool | None = None
) -> tuple[Graph, Callable[[int], str]]:
    """Build a net whose `state` is set. Returns the graph, and a function from a layer's index to its file and line.

    Raises NetError and LayerError.
    """
    upgrade.check_modern(param, str(path or ""))
    filtered, indices = filter_net(param)
    log.info("net.cpp:53", f"Initializing net from parameters: \n{text.dumps(filtered)}")

    def place(index: int | None) -> str:
        """File and line of layer `index` of the unfiltered net."""
        if path is None:
            return ""
        line = None if index is None else text.layer_line(path, index, param.layer[index].name)
        return f"{path}:{line}" if line else str(path)

    split = insert_splits(
        filtered, lambda index: place(indices[index]), lambda bottom: makers(param, indices, bottom, place)
    )
    origin = _origins(filtered, split, indices)

    def locate(index: int) -> str:
        return place(origin[index])

    python_code.check_python_layers(split, python_layers, locate)
    return build(split, device, locate), locate


def _origins(filtered: Any, split: Any, indices: Sequence[int]) -> list[int | None]:
    """The index in the file for each layer of `split`. None for an automatic Split."""
    given = iter(zip(filtered.layer, indices, strict=True))
    origins: list[int | None] = []
    following = next(given, None)
    for layer in split.layer:
        if following is not None and (layer.name, layer.type) == (following[0].name, following[0].type):
            origins.append(following[1])
            following = next(given, None)
        else:
            origins.append(None)
    return origins
