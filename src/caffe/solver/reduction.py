"""Averages gradients over several processes. Where possible, this overlaps with the backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caffe.errors import ParallelError
from caffe.net import Net
from caffe.parallel.group import Group, Pending

__all__ = ["Reduction"]

_ROOM = 16  # numbers that are sent with the gradients
_SMALL, _LARGE = 1 << 18, 25 << 18  # elements of a bucket: 1 MB for the first and the last, 25 MB for the others


@dataclass
class _Bucket:
    """Gradients that are reduced together: one flat tensor, and a view of it for each blob, by the blob's index."""

    flat: Tensor
    views: dict[int, Tensor]
    missing: set[int] = field(default_factory=set)
    """During backward: the indices of blobs whose gradient has not been copied into `flat` yet."""
    pending: Pending | None = None


class Reduction:
    """Averages a net's gradients, and a few additional numbers, over the processes of a group.

    The gradients are copied into a few flat tensors, the buckets. Each bucket is summed over the processes and divided
    by their number; afterwards the gradients of the parameters are views of the buckets. The buckets are in the order
    in which backward computes the gradients. After `arm`, a bucket is sent as soon as all its gradients are computed;
    the last bucket is sent by `run`.
    """

    def __init__(self, group: Group, net: Net, apart: Collection[int] = ()) -> None:
        """`apart` are the ids of blobs whose gradients are reduced elsewhere."""
        self.group, self._net = group, net
        self.waited = 0.0
        """Time in seconds that this process waited for the others in the last reduction."""
        trained = [entry.blob for entry in reversed(net.learnable) if entry.tensor.requires_grad]
        self._blobs = [blob for blob in trained if id(blob) not in apart]
        self._parameters = [blob.parameter for blob in self._blobs]
        self._check_layout([(tuple(parameter.shape), parameter.stride()) for parameter in self._parameters])
        self._buckets = [self._bucket(part) for part in _parts([blob.count for blob in self._blobs])]
        self._numbers = self._buckets[-1].flat[-_ROOM:]
        self._armed, self._hooked = False, False

    @property
    def bytes(self) -> int:
        """Bytes that a reduction sums. In a ring of n processes, each process sends 2 (n - 1) / n times this number."""
        return sum(bucket.flat.numel() * bucket.flat.element_size() for bucket in self._buckets)

    def _bucket(self, part: Sequence[int]) -> _Bucket:
        last = not part or part[-1] == len(self._blobs) - 1
        count = sum(self._parameters[index].numel() for index in part) + _ROOM * last
        flat, start, views = torch.zeros(count, device=self._net.device), 0, {}
        for index in part:
            views[index] = _part(flat, start, self._parameters[index])
            start += self._parameters[index].numel()
        return _Bucket(flat, views)

    def _check_layout(self, layout: object) -> None:
        """Raise ParallelError unless the parameters have the same shapes and strides in all processes."""
        others = self.group.gather(layout)
        different = [rank for rank, other in enumerate(others) if other != others[0]]
        if different:
            raise ParallelError(
                f"rank {different[0]} has parameters of other shapes, or in another order in memory, than rank 0: "
                "every process must build the same net, with the same versions of this package and of PyTorch"
            )

    # -- while backward runs ---------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Send buckets during the next backward pass as they fill up, if `_can_overlap` allows it."""
        self._armed = self._can_overlap()
        if self._armed and not self._hooked:
            for index, parameter in enumerate(self._parameters):
                parameter.register_post_accumulate_grad_hook(self._hook(index))
            self._hooked = True
        for bucket in self._buckets:
            bucket.missing, bucket.pending = set(bucket.views), None

    def _can_overlap(self) -> bool:
        """Whether each gradient is complete after one accumulation by autograd into the parameter that has the hook."""
        net = self._net
        plain = net.runs_as_one and net.loss_scale is None and net.device.type == "cpu" and len(self._buckets) > 1
        same = all(blob.parameter is own for blob, own in zip(self._blobs, self._parameters, strict=True))
        return plain and same and not any(blob.tied for blob in self._blobs)

    def _hook(self, index: int) -> Callable[[Tensor], None]:
        bucket = next(bucket for bucket in self._buckets if index in bucket.views)

        def made(parameter: Tensor) -> None:
            if self._armed and parameter.grad is not None:
                with torch.no_grad():
                    _copy(parameter.grad, bucket.views[index])
                bucket.missing.discard(index)
                self._send_filled()

        return made

    def _send_filled(self) -> None:
        """Send the full buckets in order, up to the first incomplete one. The last bucket is never sent here."""
        for bucket in self._buckets[:-1]:
            if bucket.missing:
                return
            if bucket.pending is None:
                bucket.pending = self.group.start_sum(bucket.flat)

    # -- after backward --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def run(self, numbers: Sequence[float]) -> list[float]:
        """Replace each gradient by its mean over the processes; returns the means of `numbers`."""
        if len(numbers) > _ROOM:
            raise ValueError(f"{len(numbers)} numbers, expected at most {_ROOM}")
        self._armed = False
        self._numbers[: len(numbers)] = torch.tensor(list(numbers))
        for bucket in self._buckets:
            if bucket.pending is None:
                for index, view in bucket.views.items():
                    _copy(self._blobs[index].present_diff(), view)
                bucket.pending = self.group.start_sum(bucket.flat)
        begin = time.perf_counter()
        for bucket in self._buckets:
            assert bucket.pending is not None
            bucket.pending.wait()
            bucket.pending = None
            bucket.flat.mul_(1 / self.group.size)
            for index, view in bucket.views.items():
                self._blobs[index].adopt_diff(view)
        self.waited = time.perf_counter() - begin
        return self._numbers[: len(numbers)].tolist()


def _parts(counts: Sequence[int]) -> list[list[int]]:
    """Divide blobs with these element counts into buckets; returns the indices of each.

    The last bucket is as small as the first: it is sent after backward, and the one before it during the backward pass
    of the net's first layers, which have few weights and take long. Without blobs, one empty bucket.
    """
    tail = len(counts)
    while tail and sum(counts[tail - 1 :]) <= _SMALL:
        tail -= 1
    parts: list[list[int]] = [[]]
    filled, limit = 0, _SMALL
    for index, count in enumerate(counts):
        if filled and (filled + count > limit or index == tail):
            parts.append([])
            filled, limit = 0, _LARGE
        parts[-1].append(index)
        filled += count
    return parts


def _copy(diff: Tensor | None, view: Tensor) -> None:
    """Copy a gradient into its bucket; None means zeros.

    Does nothing if the gradient is a view of the bucket already.
    """
    if diff is None:
        view.zero_()
    elif diff.data_ptr() != view.data_ptr():
        view.copy_(diff)


def _part(flat: Tensor, start: int, parameter: Tensor) -> Tensor:
    """Return the part of `flat` that begins at `start`, in the shape and strides of a parameter."""
    part = flat[start : start + parameter.numel()]
    if parameter.is_contiguous() or not torch.ops.aten.is_non_overlapping_and_dense(parameter):
        return part.view(parameter.shape)
    return part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
