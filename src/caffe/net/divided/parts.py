"""Slices of blobs: each process holds a slice of a learnable blob, of its gradient and of its histories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caffe.layers.base import Layer
from caffe.parallel.exchange import Exchange

__all__ = ["Part", "even", "part_of", "swap_blob", "whole_shape"]


@dataclass(frozen=True)
class Part:
    """How a blob of `shape` is split along `axis`: process r holds the indices bounds[r] to bounds[r + 1] - 1."""

    shape: tuple[int, ...]
    axis: int
    bounds: tuple[int, ...]

    def own_shape(self, rank: int) -> tuple[int, ...]:
        """The shape of the slice of process `rank`. A blob without axes is treated as a blob of shape (1,)."""
        shape = list(self.shape or (1,))
        shape[self.axis] = self.bounds[rank + 1] - self.bounds[rank]
        return tuple(shape)

    def cut(self, whole: Tensor, rank: int) -> Tensor:
        """Return the slice of process `rank`: a copy in the layout of `whole`, or `whole` if the slice is all of it."""
        start, stop = self.bounds[rank], self.bounds[rank + 1]
        spread = whole.detach().reshape(self.shape or (1,))
        if stop - start == spread.shape[self.axis]:
            return whole.detach()
        return spread.narrow(self.axis, start, stop - start).clone()

    def collect(self, own: Tensor, exchange: Exchange, keep: bool) -> Tensor | None:
        """Return the whole blob on the CPU, or None unless `keep`. All processes must call this method."""
        whole = torch.empty(self.shape or (1,)) if keep else None
        for rank in range(exchange.size):
            shape = self.own_shape(rank)
            if not min(shape):
                continue
            held = (
                own.detach().reshape(shape).contiguous()
                if rank == exchange.rank
                else torch.empty(shape, device=own.device)
            )
            exchange.spread(held, rank)
            if whole is not None:
                whole.narrow(self.axis, self.bounds[rank], shape[self.axis]).copy_(held)
        return None if whole is None else whole.reshape(self.shape)


def even(shape: Sequence[int], axis: int, count: int) -> Part:
    """Split a blob into `count` slices of equal size. The last slices are smaller if the size is not divisible."""
    size = (tuple(shape) or (1,))[axis]
    step = -(-size // count)
    return Part(tuple(shape), axis, tuple(min(size, rank * step) for rank in range(count + 1)))


def _memory_order(x: Tensor) -> torch.memory_format:
    """The layout of a dense tensor."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def part_of(old: Tensor, part: Part, rank: int) -> Tensor:
    """Return the slice of a parameter or buffer for process `rank`. Its attribute `whole_shape` is the whole shape."""
    value = part.cut(old, rank)
    new: Any = nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
    new.whole_shape, new.whole_order = part.shape, _memory_order(old)
    return new  # type: ignore[no-any-return]


def whole_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a blob's tensor, or of the whole blob if the tensor is a slice of it."""
    shape: tuple[int, ...] = getattr(tensor, "whole_shape", tuple(tensor.shape))
    return shape


def swap_blob(layers: Iterable[Layer], old: Tensor, new: Tensor) -> None:
    """Replace the parameter or buffer `old` in all layers that use it."""
    for layer in layers:
        for name, held in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            if held is old:
                setattr(layer, name, new)
