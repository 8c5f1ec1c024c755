"""How `shard: FULL` and `tensor_parallel` cut the blobs of a layer, also while the net is built.

A process that built the whole net first would hold it once, although it needs only its part. Here each layer is cut as
soon as its blobs are filled, so that the peak is the largest layer and the parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from caffe.errors import ParallelError
from caffe.layers.base import Layer
from caffe.layers.dense import InnerProduct
from caffe.net import Net
from caffe.net.divided.parts import Part, even, part_of, swap_blob, whole_shape
from caffe.net.graph.build import adapting
from caffe.parallel.group import Group

__all__ = ["cut_while_building", "parts_of"]

_SMALL = 1 << 12
"""Values of a blob that stays whole in every process under shard: FULL, since it costs a message of its own."""


_PIECE = 1 << 18


def parts_of(param: Any, size: int, layer: Layer) -> list[Part | None]:
    """How each blob of a layer is cut over `size` processes; None for one of which every process has the whole."""
    shapes = [whole_shape(tensor) for tensor in layer.tensors]
    if param.shard == param.FULL:
        return [
            even(shape, 0, size) if isinstance(x, torch.nn.Parameter) and math.prod(shape) >= _SMALL else None
            for x, shape in zip(layer.tensors, shapes, strict=True)
        ]
    count = param.tensor_parallel
    if count == 1 or type(layer) is not InnerProduct or layer.outputs < count:
        return [None] * len(shapes)
    return [even(shape, int(bool(layer.opt.transpose) and not number), count) for number, shape in enumerate(shapes)]


@contextmanager
def cut_while_building(param: Any, group: Group, spec: Any, trained: Net | None = None) -> Iterator[None]:
    """Cut the blobs of a net that the block builds from `spec`; of a test net those that are cut in `trained`.

    Does nothing where blobs must be whole at first: to load weight files, to share them between layers, and in a
    pipeline, whose stages are found only when the net is known. Raises ParallelError if the processes have filled a
    blob with different values.
    """
    names = [each.name for layer in spec.layer for each in layer.param if each.name]
    divides = param.shard == param.FULL or param.tensor_parallel != 1
    if group.size == 1 or not divides or group.share(bool(param.weights)) or len(set(names)) < len(names):
        yield
        return
    names_cut = None if trained is None else {layer.name for layer in trained.layers if _is_cut(layer)}
    rank = group.rank % (group.size if param.shard == param.FULL else param.tensor_parallel)
    sums: list[int] = []

    def cut(layer: Layer) -> None:
        if names_cut is not None and layer.name not in names_cut:
            return
        for tensor, part in zip(layer.tensors, parts_of(param, group.size, layer), strict=True):
            if part is not None:
                sums.append(_sum_of_bits(tensor))
                swap_blob([layer], tensor, part_of(tensor, part, rank))

    with adapting(cut):
        yield
    if any(others != sums for others in group.gather(sums)):
        raise ParallelError(
            f"rank {group.rank}: the processes have filled the net with different values; every process must build the "
            "same net, with the same versions of this package and of PyTorch"
        )


def _sum_of_bits(tensor: Tensor) -> int:
    """A checksum, which takes little memory and is equal on all machines."""
    pieces = tensor.detach().reshape(-1).split(_PIECE)
    return sum(int(piece.view(torch.int32).sum(dtype=torch.int64)) for piece in pieces)


def _is_cut(layer: Layer) -> bool:
    return any(hasattr(tensor, "whole_shape") for tensor in layer.tensors)
