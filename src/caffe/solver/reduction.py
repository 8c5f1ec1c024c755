"""The gradients of several processes, averaged."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe.errors import ParallelError
from caffe.net import Net
from caffe.parallel.group import Group

__all__ = ["Reduction"]

_ROOM = 16  # numbers that go with the gradients


class Reduction:
    """Averages a net's gradients over the processes of a group, with a few numbers beside them.

    The gradients are copied into one tensor, which is added up over the processes and divided by their number. The
    parameters' gradients then lie in that tensor. Its layout is that of the parameters when it was made.
    """

    def __init__(self, group: Group, net: Net) -> None:
        self.group = group
        self.waited = 0.0
        """Seconds of the last reduction in which this process waited for others."""
        self._blobs = [entry.blob for entry in net.learnable if entry.tensor.requires_grad]
        layout = [(tuple(blob.parameter.shape), blob.parameter.stride()) for blob in self._blobs]
        self._check_layout(layout)
        count = sum(blob.parameter.numel() for blob in self._blobs)
        self._flat = torch.zeros(count + _ROOM, device=net.device)
        self._views: list[Tensor] = []
        start = 0
        for blob in self._blobs:
            self._views.append(_part(self._flat, start, blob.parameter))
            start += blob.parameter.numel()
        self._numbers = self._flat[count:]

    @property
    def bytes(self) -> int:
        """What a reduction adds up, in bytes. A ring of n processes sends 2 (n - 1) / n times as much from each."""
        return self._flat.numel() * self._flat.element_size()

    def _check_layout(self, layout: object) -> None:
        """Raise ParallelError unless the parameters of all processes lie in memory alike."""
        others = self.group.gather(layout)
        different = [rank for rank, other in enumerate(others) if other != others[0]]
        if different:
            raise ParallelError(
                f"rank {different[0]} has parameters of other shapes, or in another order in memory, than rank 0: "
                "every process must build the same net, with the same versions of this package and of PyTorch"
            )

    @torch.no_grad()
    def run(self, numbers: Sequence[float]) -> list[float]:
        """Replace each gradient by its mean over the processes; returns the means of `numbers`."""
        if len(numbers) > _ROOM:
            raise ValueError(f"{len(numbers)} numbers, expected at most {_ROOM}")
        for blob, view in zip(self._blobs, self._views, strict=True):
            diff = blob.present_diff()
            if diff is None:
                view.zero_()
            elif diff.data_ptr() != view.data_ptr():
                view.copy_(diff)
        self._numbers[: len(numbers)] = torch.tensor(list(numbers))
        begin = time.perf_counter()
        self.group.sum(self._flat)
        self.waited = time.perf_counter() - begin
        self._flat.mul_(1 / self.group.size)
        for blob, view in zip(self._blobs, self._views, strict=True):
            blob.adopt_diff(view)
        return self._numbers[: len(numbers)].tolist()


def _part(flat: Tensor, start: int, parameter: Tensor) -> Tensor:
    """The part of `flat` from `start` on, in the shape and memory order of a parameter."""
    part = flat[start : start + parameter.numel()]
    if parameter.is_contiguous() or not torch.ops.aten.is_non_overlapping_and_dense(parameter):
        return part.view(parameter.shape)
    return part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
