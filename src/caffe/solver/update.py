"""What one tensor needs for its update, whole or in pieces that stay in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe import log
from caffe.blob import ParamBlob

__all__ = ["Update", "alike", "clipping", "flat", "lay_like", "length"]

_PIECE = 1 << 18
"""Elements of a piece: the fastest of 2^15 to 2^22 on a processor with 2 MB of cache a core."""


def length(x: Tensor) -> float:
    """The L2 norm of a tensor."""
    return float(torch.linalg.vector_norm(x))


@dataclass
class Update:
    """What one tensor needs for its update: data, gradient, histories (all of one shape), and its own constants."""

    data: Tensor
    diff: Tensor
    history: Sequence[Tensor]
    rate: float
    decay: float
    owner: ParamBlob | None = None
    """The blob whose diff `diff` is, where nothing else shares that memory."""
    norm: Callable[[Tensor], float] = length
    """The L2 norm of a whole tensor, of which this process may have a part."""

    def subtracted(self, amount: Tensor) -> None:
        """Make `amount`, what was subtracted from the data, the diff; copied only where somebody looks at it."""
        if self.owner is None:
            self.diff.copy_(amount)
        else:
            self.owner.borrow_diff(amount)

    def pieces(self) -> Iterator[Update]:
        """This update as updates of consecutive parts; itself where it is small or its tensors lie differently."""
        tensors = (self.data, self.diff, *self.history)
        if self.data.device.type != "cpu" or self.data.numel() <= _PIECE or not alike(tensors):
            yield self
            return
        parts = (flat(tensor).split(_PIECE) for tensor in tensors)
        for data, diff, *history in zip(*parts, strict=True):
            yield Update(data, diff, history, self.rate, self.decay)


def flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements in the order of memory; torch's kernels copy what has its channels last."""
    return tensor.as_strided((tensor.numel(),), (1,))


def alike(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors lie in memory in the same order, without gaps, in one type and on one device."""
    first = tensors[0]
    dense = first.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(first)
    return dense and all(
        tensor.stride() == first.stride() and tensor.dtype == first.dtype and tensor.device == first.device
        for tensor in tensors
    )


def lay_like(tensor: Tensor, history: list[Tensor], indices: Iterable[int]) -> None:
    """Keep a blob's histories in the memory order of its data, which a look at `net.params` can change."""
    for index in indices:
        if history[index].stride() != tensor.stride():
            history[index] = torch.empty_like(tensor, requires_grad=False).copy_(history[index])


def clipping(limit: float, squares: Callable[[], float]) -> float:
    """What to multiply all gradients with so that their common L2 norm is at most `limit`; below 0 there is none.

    `squares` gives the sum of the squares of all gradients.
    """
    if limit < 0:
        return 1.0
    norm = math.sqrt(squares())
    if not norm > limit:
        return 1.0
    log.info(
        "sgd_solver.cpp:99",
        f"Gradient clipping: scaling down gradients (L2 norm {log.number(norm)} > {log.number(limit)}) "
        f"by scale factor {log.number(limit / norm)}",
    )
    return limit / norm
