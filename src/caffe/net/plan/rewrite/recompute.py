"""Rewrite that saves memory: cheap values are recomputed in backward rather than stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.activation import Clip, ReLU
from caffe.layers.base import Layer
from caffe.layers.convolution import convolution_gradients, is_convolution
from caffe.layers.rectifiers import ReLU6
from caffe.layers.support.limited import neighbours
from caffe.net.plan.rewrite.batch_norm import coefficients, normalization
from caffe.net.plan.rewrite.call import Call, is_plain_relu, readers
from caffe.net.plan.rewrite.product import is_plain

__all__ = ["clip_again", "normalize_again"]


def normalize_again(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Merge BatchNorm, Scale, an optional ReLU and the convolution that is the only reader into one call.

    Values between these layers are not stored: backward recomputes them from BatchNorm's bottom, which is stored
    anyway.
    """
    room = _Room()

    def join(call: Call, maker: Mapping[int, Call], alone: Collection[int]) -> tuple[list[Call], Call] | None:
        before = _before(call, maker, alone)
        parts = normalization(before[-1]) if before else None
        if parts is None:
            return None
        run = _Normalized(*parts, relu=len(before) == 2, layer=call.layer, room=room)
        return before, replace(call, run=run, reads=before[-1].reads, merged=(parts[0],))

    return _joined(calls, wanted, join)


_Join = Callable[[Call, Mapping[int, Call], Collection[int]], tuple[list[Call], Call] | None]


def _joined(calls: Sequence[Call], wanted: frozenset[int], join: _Join) -> list[Call]:
    """Merge convolutions with calls before them. `join` gets a convolution, the maker of each value and the values that
    have one reader; it returns the calls to remove and the call for all of them, or None.
    """
    alone = {place for place, count in readers(calls).items() if count == 1} - wanted
    maker: dict[int, Call] = {}
    gone: set[int] = set()
    changed = []
    for call in calls:
        found = join(call, maker, alone) if is_convolution(call.layer) and is_plain(call) else None
        if found is not None:
            before, call = found
            gone.update(map(id, before))
            call = replace(call, backward=call.backward or any(part.backward for part in before))
        maker.update(dict.fromkeys(call.writes, call))
        changed.append(call)
    return [call for call in changed if id(call) not in gone]


def _before(call: Call, maker: Mapping[int, Call], alone: Collection[int]) -> list[Call]:
    """The call that computes a bottom which only the convolution reads. For a ReLU, also the call before it."""
    found: list[Call] = []
    for _ in range(2):
        maker_of_bottom = _maker(call, maker, alone)
        if maker_of_bottom is None:
            break
        call = maker_of_bottom
        found.append(call)
        if type(call.layer) is not ReLU or call.layer.opt.negative_slope:
            break
    return found


def _maker(call: Call, maker: Mapping[int, Call], alone: Collection[int]) -> Call | None:
    """The call that computes the bottom, if only this call reads it, gradients included."""
    place, cut = call.reads[0]
    return None if cut or place not in alone else maker.get(place)


def clip_again(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Merge a Clip or ReLU6, with the ReLU before it if there is one, and the convolution that is the only reader into
    one call.

    The convolution's input is not stored: backward computes it from the activation's bottom, which is stored anyway.
    """
    room = _Room()

    def join(call: Call, maker: Mapping[int, Call], alone: Collection[int]) -> tuple[list[Call], Call] | None:
        clip = _maker(call, maker, alone)
        if clip is None or type(clip.layer) not in (Clip, ReLU6):
            return None
        relu = _maker(clip, maker, alone)
        before = [relu, clip] if relu is not None and is_plain_relu(relu) else [clip]
        activations = tuple(part.layer for part in before)
        limits = _limits(activations)
        if limits is None:
            return None
        return before, replace(call, run=_Clipped(activations, limits, call.layer, room), reads=before[0].reads)

    return _joined(calls, wanted, join)


class _Limits(NamedTuple):
    """The activation max(low, min(x, high)). Its gradient is 0 beyond the limits, and also at a limit that is open."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def interval(self, dtype: torch.dtype) -> tuple[float, float]:
        """The numbers of this type between which the gradient is that of the top."""
        below, above = neighbours(dtype, self.low, self.high)
        return self.low if self.low_open else below, self.high if self.high_open else above


def _limits(activations: Sequence[Layer]) -> _Limits | None:
    """A ReLU6, a Clip, or a ReLU and a Clip, as one. None for other activations, and if low is above high."""
    last: Any = activations[-1]
    if type(last) is ReLU6:
        return _Limits(0.0, 6.0, low_open=True, high_open=True) if len(activations) == 1 else None
    low, high = last.opt.min, last.opt.max
    if len(activations) == 2:
        return _Limits(0.0, high, low_open=True) if low <= 0 < high else None
    return _Limits(low, high) if low <= high else None


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
        return x.shape[1] == len(self.norm.mean) and _direct(self.layer, x)

    def normalized(
        self, x: Tensor, factor: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The convolution's input, in `room`, and the batch's mean and 1 / deviation. Fills `mean` and `variance`."""
        y, made = self.room.like(x), (torch.empty_like(mean), torch.empty_like(mean))
        run = torch.ops.aten.native_batch_norm.out
        options = True, 1.0, self.norm.opt.eps
        run(x, factor, shift, mean, variance, *options, out=y, save_mean=made[0], save_invstd=made[1])
        return torch.relu_(y) if self.relu else y, *made


def _direct(layer: Any, x: Tensor) -> bool:
    """Whether torch's convolution of one call computes the layer's top from x, and its kernels can write values like x
    into other memory, which gives wrong results for a slice of a blob."""
    if not torch.ops.aten.is_non_overlapping_and_dense(x):
        return False
    return 1 <= len(layer.slide.pad) <= 3 and bool(layer.slide.is_plain(x.shape[2:]))


def _options(layer: Any) -> tuple[Any, ...]:
    """The convolution's options for torch."""
    slide = layer.slide
    return slide.stride, slide.pad, slide.dilation, False, (0,) * len(slide.pad), layer.group


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
        return torch.convolution(y, weight, bias, *_options(call.layer))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, shift, weight = ctx.saved_tensors
        call, needs = ctx.call, list(ctx.needs_input_grad)
        y, mean, deviation = call.normalized(x, factor, shift, *torch.zeros_like(call.norm.mean).expand(2, -1).clone())
        dy, dw, db = convolution_gradients(dz, y, weight, _options(call.layer), [any(needs[:3]), needs[3], needs[4]])
        grads: Sequence[Tensor | None] = (None, None, None)
        if dy is not None:
            if call.relu:
                torch.ops.aten.threshold_backward(dy, y, 0, grad_input=dy)
            statistics = None, None, mean, deviation, True, call.norm.opt.eps
            grads = torch.ops.aten.native_batch_norm_backward(dy, x, factor, *statistics, needs[:3])
        return *grads, dw, db, None, None, None


@dataclass(frozen=True, eq=False)
class _Clipped:
    """Runs the activations and the convolution as one on the CPU, else one by one."""

    activations: tuple[Layer, ...]
    limits: _Limits
    layer: Any
    room: _Room = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        layer = self.layer
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not _direct(layer, x):
            for each in self.activations:
                x = each.forward(x)
            made: Tensor | tuple[Tensor, ...] = layer.forward(x)
            return made
        z: Tensor = _ClipAgain.apply(x, layer.weight, layer.bias, self)
        return z

    def clipped(self, x: Tensor) -> Tensor:
        """The convolution's input, in the room."""
        return torch.clamp(x, *self.limits[:2], out=self.room.like(x))


class _ClipAgain(torch.autograd.Function):
    """z = convolution(max(low, min(x, high))). Saves x, and computes the convolution's input again in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: _Clipped) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.call = call
        return torch.convolution(call.clipped(x), weight, bias, *_options(call.layer))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        call = ctx.call
        options, wanted = _options(call.layer), ctx.needs_input_grad[:3]
        dy, dw, db = convolution_gradients(dz, call.clipped(x), weight, options, wanted)
        if dy is not None:
            torch.ops.aten.hardtanh_backward(dy, x, *call.limits.interval(x.dtype), grad_input=dy)
        return dy, dw, db, None
