"""The update of one tensor, whole or divided into pieces that fit into the processor's cache."""

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
"""Elements per piece. The fastest of 2^15 to 2^22 on a processor with 2 MB of cache per core."""


def length(x: Tensor) -> float:
    """The L2 norm of a tensor."""
    return float(torch.linalg.vector_norm(x))


@dataclass
class Update:
    """The inputs of a tensor's update: data, gradient and histories (of the same shape), rate and decay."""

    data: Tensor
    diff: Tensor
    history: Sequence[Tensor]
    rate: float
    decay: float
    owner: ParamBlob | None = None
    """The blob whose diff is `diff`, if no other blob shares that memory."""
    norm: Callable[[Tensor], float] = length
    """The L2 norm of a whole tensor, of which this process may hold a part."""
    multiplier: float = 1.0
    """The factor (lr_mult) by which `rate` differs from the solver's rate."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Data, gradient and histories."""
        return self.data, self.diff, *self.history

    def subtracted(self, amount: Tensor) -> None:
        """Set the diff to `amount`, which was subtracted from the data.

        With an `owner`, the copy is made on first access.
        """
        if self.owner is None:
            self.diff.copy_(amount)
        else:
            self.owner.borrow_diff(amount)

    def pieces(self) -> Iterator[Update]:
        """Yield updates of consecutive parts of the tensors; only this update if it is small or the strides differ."""
        if self.data.device.type != "cpu" or self.data.numel() <= _PIECE or not alike(self.tensors):
            yield self
            return
        parts = (flat(tensor).split(_PIECE) for tensor in self.tensors)
        for data, diff, *history in zip(*parts, strict=True):
            yield Update(data, diff, history, self.rate, self.decay)


def flat(tensor: Tensor) -> Tensor:
    """View a dense tensor as one axis, in memory order. Without it, torch's kernels copy channels-last tensors."""
    return tensor.as_strided((tensor.numel(),), (1,))


def alike(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors are dense and have the same strides, dtype and device."""
    first = tensors[0]
    if not first.is_contiguous() and not torch.ops.aten.is_non_overlapping_and_dense(first):
        return False
    stride, dtype, device = first.stride(), first.dtype, first.device
    for tensor in tensors:
        if tensor.dtype is not dtype or tensor.stride() != stride or tensor.device != device:
            return False
    return True


def lay_like(tensor: Tensor, history: list[Tensor], indices: Iterable[int]) -> None:
    """Convert a blob's histories to the strides of its data, which access through `net.params` can change."""
    stride = tensor.stride()
    for index in indices:
        if history[index].stride() != stride:
            history[index] = torch.empty_like(tensor, requires_grad=False).copy_(history[index])


def clipping(limit: float, squares: Callable[[], float]) -> float:
    """Return the factor that limits the L2 norm of all gradients together to `limit`; 1 if `limit` is negative.

    `squares` returns the sum of the squares of all gradients.
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
