"""Exchanges tensors among some processes of a group, for nets whose blobs or layers are divided over processes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from caffe.errors import ParallelError
from caffe.parallel.group import Group, Pending
from caffe.parallel.processes import Processes

__all__ = ["Exchange"]

# torch 2.13 renames these two, and deprecates the old names
_ALL_GATHER: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_REDUCE_SCATTER: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_HEADER = 10  # numbers that are sent before a tensor whose shape the receiver does not know


class Exchange:
    """Some processes of a group, of which this is number `rank` of `size`.

    Every process of the exchange must make the same calls in the same order. Each call raises ParallelError if
    another process is lost or does not answer within the time limit.
    """

    def __init__(self, group: Group, ranks: Sequence[int], handle: Any) -> None:
        """Use `among`, which also creates the process group of torch."""
        assert isinstance(group, Processes)
        self.ranks, self.rank, self.size = list(ranks), list(ranks).index(group.rank), len(ranks)
        self._group, self._handle = group, handle

    @classmethod
    def among(cls, group: Group, parts: Sequence[Sequence[int]]) -> Exchange:
        """Return the exchange of this process. `parts` are lists of ranks, and must be equal in all processes.

        Raises ParallelError if the group does not use torch.distributed.
        """
        if not isinstance(group, Processes):
            raise ParallelError(f"{type(group).__name__} does not connect its processes with torch.distributed")
        own: Exchange | None = None
        with group.noticing("connecting to the others"):
            for ranks in parts:
                handle = dist.new_group(list(ranks), timeout=timedelta(seconds=group.limit))
                if group.rank in ranks:
                    own = cls(group, ranks, handle)
        assert own is not None
        return own

    def sum(self, values: Tensor) -> None:
        """Sum a contiguous tensor over the processes, in place."""
        self._reduce(values, dist.ReduceOp.SUM)

    def largest(self, values: Tensor) -> None:
        """Compute the elementwise maximum over the processes, in place."""
        self._reduce(values, dist.ReduceOp.MAX)

    def _reduce(self, values: Tensor, operation: Any) -> None:
        if self.size > 1:
            with self._group.noticing("adding up tensors"):
                dist.all_reduce(values, operation, group=self._handle)

    def gather(self, own: Tensor) -> Tensor:
        """Return the tensors of all processes as one of shape (size, *shape). The shapes must be equal."""
        made = own.new_empty((self.size, *own.shape))
        with self._group.noticing("gathering tensors"):
            _ALL_GATHER(made.view(-1), own.contiguous().view(-1), group=self._handle)
        return made

    def scatter_sum(self, values: Tensor) -> Tensor:
        """Sum a tensor (size, *shape) over the processes, and return entry `rank` of the sum, (*shape)."""
        made = values.new_empty(values.shape[1:])
        with self._group.noticing("adding up parts of tensors"):
            _REDUCE_SCATTER(made.view(-1), values.contiguous().view(-1), group=self._handle)
        return made

    def swap(self, values: Tensor) -> Tensor:
        """Send entry r of a tensor (size, *shape) to process r. Returns the received entries, stacked."""
        values = values.contiguous()
        made = torch.empty_like(values)
        with self._group.noticing("swapping parts of tensors"):
            dist.all_to_all_single(made.view(-1), values.view(-1), group=self._handle)
        return made

    def spread(self, values: Tensor, source: int) -> None:
        """Broadcast a contiguous tensor from process `source` to the others, in place."""
        with self._group.noticing("sending tensors"):
            dist.broadcast(values, self.ranks[source], group=self._handle)

    def spread_any(self, values: Tensor | None, source: int, device: torch.device) -> Tensor:
        """Broadcast a tensor of any shape from process `source`. The others pass None."""
        header = _header(values) if values is not None else torch.zeros(_HEADER, dtype=torch.int64)
        header = header.to(device)
        self.spread(header, source)
        made, order = _described(header.tolist(), device)
        if values is not None:
            made = values.detach().contiguous(memory_format=order)
        self.spread(_flat(made), source)
        return made

    def post(self, values: Tensor, to: int) -> Pending:
        """Start to send a tensor of any shape to process `to`, which calls `take`."""
        header = _header(values).to(values.device)
        dense = values.detach().contiguous(memory_format=_order(values))
        with self._group.noticing("sending to another stage"):
            sent = [
                dist.isend(part, self.ranks[to], group=self._handle) for part in (header, _flat(dense)) if part.numel()
            ]
        return _Sent(self._group, sent, (header, dense))

    def take(self, source: int, device: torch.device) -> tuple[Tensor, bool]:
        """Receive the next tensor that process `source` posts, and whether it requires a gradient there."""
        header = torch.zeros(_HEADER, dtype=torch.int64, device=device)
        with self._group.noticing("waiting for another stage"):
            dist.recv(header, self.ranks[source], group=self._handle)
            numbers = header.tolist()
            made, _ = _described(numbers, device)
            if made.numel():
                dist.recv(_flat(made), self.ranks[source], group=self._handle)
        return made, bool(numbers[1])


class _Sent(Pending):
    def __init__(self, group: Processes, works: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        self._group, self._works, self._tensors = group, works, tensors  # keeps the tensors alive until they are sent

    def wait(self) -> None:
        with self._group.noticing("sending to another stage"):
            for work in self._works:
                work.wait()
        self._tensors = ()


def _order(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _header(x: Tensor) -> Tensor:
    """Encode a tensor as numbers: the number of axes, whether a gradient is required, the layout, and the sizes."""
    numbers = [x.dim(), int(x.requires_grad), int(_order(x) is torch.channels_last), *x.shape]
    if len(numbers) > _HEADER:
        raise ParallelError(f"a tensor of {x.dim()} axes cannot be sent, at most {_HEADER - 3} are possible")
    return torch.tensor(numbers + [0] * (_HEADER - len(numbers)), dtype=torch.int64)


def _described(numbers: Sequence[int], device: torch.device) -> tuple[Tensor, torch.memory_format]:
    """Allocate the tensor that a header describes, and return it with its layout."""
    order = torch.channels_last if numbers[2] else torch.contiguous_format
    shape = numbers[3 : 3 + numbers[0]]
    return torch.empty(shape, dtype=torch.float32, device=device, memory_format=order), order


def _flat(x: Tensor) -> Tensor:
    """Return the elements of a dense tensor in memory order, (N,)."""
    return x.as_strided((x.numel(),), (1,))
