"""Rewrite that saves memory: cheap values are recomputed in backward rather than stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.activation import ReLU
from caffe.layers.convolution import convolution_gradients, is_convolution
from caffe.net.plan.rewrite.batch_norm import coefficients, normalization
from caffe.net.plan.rewrite.call import Call, readers
from caffe.net.plan.rewrite.product import is_plain

__all__ = ["normalize_again"]


def normalize_again(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Merge BatchNorm, Scale, an optional ReLU and the convolution that is the only reader into one call.

    Values between these layers are not stored: backward recomputes them from BatchNorm's bottom, which is stored
    anyway.
    """
    alone = {place for place, count in readers(calls).items() if count == 1} - wanted
    maker: dict[int, Call] = {}
    room = _Room()
    gone: set[int] = set()
    changed = []
    for call in calls:
        if is_convolution(call.layer) and is_plain(call):
            before = _before(call, maker, alone)
            parts = normalization(before[-1]) if before else None
            if parts is not None:
                gone.update(map(id, before))
                run = _Normalized(*parts, relu=len(before) == 2, layer=call.layer, room=room)
                backward = any(part.backward for part in (*before, call))
                call = replace(call, run=run, reads=before[-1].reads, backward=backward, merged=(parts[0],))
        maker.update(dict.fromkeys(call.writes, call))
        changed.append(call)
    return [call for call in changed if id(call) not in gone]


def _before(call: Call, maker: Mapping[int, Call], alone: Collection[int]) -> list[Call]:
    """The call that computes a bottom which only the convolution reads. For a ReLU, also the call before it."""
    found: list[Call] = []
    for _ in range(2):
        place, cut = call.reads[0]
        if cut or place not in alone or place not in maker:
            break
        call = maker[place]
        found.append(call)
        if type(call.layer) is not ReLU or call.layer.opt.negative_slope:
            break
    return found


class _Room:
    """A buffer for one temporary value at a time, which all merged calls reuse."""

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def like(self, x: Tensor) -> Tensor:
        """A tensor in the buffer with x's shape, type and memory order."""
        size = x.numel() * x.element_size()
        if len(self._bytes) < size:
            self._bytes = torch.empty(size, dtype=torch.uint8)
        return self._bytes[:size].view(x.dtype).as_strided(x.shape, torch.empty_like(x, device="meta").stride())


@dataclass(frozen=True, eq=False)
class _Normalized:
    """Runs the layers as one on the CPU with batch statistics, else one by one."""

    norm: Any
    scale: Any
    relu: bool
    layer: Any
    room: _Room = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        factor, shift = (None, None) if self.scale is None else coefficients(self.scale)
        norm, layer = self.norm, self.layer
        if not self._fits(x):
            y = norm.normalize(x, factor, shift)
            return layer.forward(F.relu(y) if self.relu else y)
        mean, variance = torch.zeros_like(norm.mean), torch.zeros_like(norm.variance)
        z = _Again.apply(x, factor, shift, layer.weight, layer.bias, mean, variance, self)
        norm.learn(x, mean, variance)
        return z

    def _fits(self, x: Tensor) -> bool:
        if (
            x.device.type != "cpu"
            or torch.compiler.is_compiling()
            or self.norm.uses_running
            or self.norm.processes.size > 1
        ):
            return False
        if not torch.ops.aten.is_non_overlapping_and_dense(x):
            return False  # a slice of a blob: torch's kernel with `out` gives wrong results for it
        slide = self.layer.slide
        return x.shape[1] == len(self.norm.mean) and 1 <= len(slide.pad) <= 3 and slide.is_plain(x.shape[2:])

    def normalized(
        self, x: Tensor, factor: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The convolution's input, in `room`, and the batch's mean and 1 / deviation. Fills `mean` and `variance`."""
        y, made = self.room.like(x), (torch.empty_like(mean), torch.empty_like(mean))
        run = torch.ops.aten.native_batch_norm.out
        options = True, 1.0, self.norm.opt.eps
        run(x, factor, shift, mean, variance, *options, out=y, save_mean=made[0], save_invstd=made[1])
        return torch.relu_(y) if self.relu else y, *made

    @property
    def options(self) -> tuple[Any, ...]:
        """The convolution's options for torch."""
        slide = self.layer.slide
        return slide.stride, slide.pad, slide.dilation, False, (0,) * len(slide.pad), self.layer.group


class _Again(torch.autograd.Function):
    """z = convolution(relu(batch_norm(x))). Saves x, and recomputes the convolution's input in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factor: Tensor | None,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        call: _Normalized,
    ) -> Tensor:
        y, *_ = call.normalized(x, factor, shift, mean, variance)
        ctx.save_for_backward(x, factor, shift, weight)
        ctx.call = call
        return torch.convolution(y, weight, bias, *call.options)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, shift, weight = ctx.saved_tensors
        call, needs = ctx.call, list(ctx.needs_input_grad)
        y, mean, deviation = call.normalized(x, factor, shift, *torch.zeros_like(call.norm.mean).expand(2, -1).clone())
        dy, dw, db = convolution_gradients(dz, y, weight, call.options, [any(needs[:3]), needs[3], needs[4]])
        grads: Sequence[Tensor | None] = (None, None, None)
        if dy is not None:
            if call.relu:
                torch.ops.aten.threshold_backward(dy, y, 0, grad_input=dy)
            statistics = None, None, mean, deviation, True, call.norm.opt.eps
            grads = torch.ops.aten.native_batch_norm_backward(dy, x, factor, *statistics, needs[:3])
        return *grads, dw, db, None, None, None
