"""Mixed precision: which layers run in 16 bits, where values are converted, and copies of the weights.

The net's own weights stay float32: users see them, snapshots store them and update rules change them. Layers that are
faster in 16 bits use rounded copies of the weights, called shadows. Each run rounds them again, so that updates too
small for 16 bits accumulate. Values keep their type between layers and are converted, once, only if a reader needs the
other type.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from caffe import log, torch_internals
from caffe.blob import ParamBlob
from caffe.errors import NetError
from caffe.layers.base import Layer, Lowering
from caffe.layers.dense import InnerProduct
from caffe.net.plan.loss_scale import LossScale
from caffe.net.plan.rewrite import Call
from caffe.net.plan.rewrite.product import FusedProduct
from caffe.parameter_memory import WeightWatch
from caffe.proto import caffe_pb2

__all__ = ["LowPrecision", "check_precision", "dtype_of"]

_FEW_ROWS, _LARGE_WEIGHT = 16, 1 << 21
"""Inner products with at most so many rows and at least so many weights train in float32 on a CPU."""
_DTYPES = {"FLOAT": torch.float32, "BFLOAT16": torch.bfloat16, "FLOAT16": torch.float16}


def dtype_of(precision: int | str) -> torch.dtype:
    """The torch dtype for a value of SolverParameter's `precision`, or for its name."""
    name = precision if isinstance(precision, str) else caffe_pb2.SolverParameter.Precision.Name(precision)
    return _DTYPES[name]


def check_precision(dtype: torch.dtype, device: torch.device) -> None:
    """Raise a `NetError` if the device does not support the dtype. Warn once if it is slow there."""
    if dtype not in _DTYPES.values():
        names = ", ".join(str(known) for known in _DTYPES.values())
        raise NetError(f"a net cannot run in {dtype}; expected one of {names}")
    if dtype is torch.float16 and device.type != "cuda":
        raise NetError(
            f"FLOAT16 needs a GPU, and the net is on the device {device}: processors have no fast arithmetic for it; "
            "use BFLOAT16 (--precision bf16), which has the range of float32"
        )
    if dtype is torch.bfloat16:
        _warn_if_slow(device.type)


@functools.cache
def _warn_if_slow(kind: str) -> None:
    if not _has_bfloat16(kind):
        what = "this processor" if kind == "cpu" else "this GPU"
        log.warning("precision.py", f"{what} has no arithmetic for BFLOAT16: it is emulated, and slower than FLOAT")


def _has_bfloat16(kind: str) -> bool:
    """Whether the device has instructions for products of bfloat16 matrices."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch_internals.has_bfloat16_arithmetic()


class LowPrecision:
    """Converts a net's calls to a 16-bit type, `dtype`. With a `scale`, gradients in that type are scaled."""

    def __init__(self, dtype: torch.dtype, scale: LossScale | None = None) -> None:
        self.dtype, self.scale = dtype, scale
        self._twins: list[tuple[Layer, Layer]] = []  # a layer, and its copy with shadows in place of weights
        self._shadows: dict[tuple[int, torch.dtype], _Shadow] = {}  # by the weight's id
        self._masters: list[ParamBlob] = []  # the blobs of the layers that have shadows
        self._weight_watch: WeightWatch | None = None

    def lower(self, calls: Sequence[Call], count: int, losses: frozenset[int]) -> tuple[list[Call], int]:
        """Insert conversions into the calls. Returns the calls and the new number of places; `count` is the old one.

        Tops of ALWAYS layers are 16 bits wide, and tops of FOLLOW layers whose bottoms all are. Values at the places
        `losses` stay float32.
        """
        low: set[int] = set()
        converted: dict[int, int] = {}  # for a place, the place of the value in the other type
        changed: list[Call] = []
        for call in calls:
            lowered = _wants_low(call, low, losses) and not self._bound_by_weights(call)
            reads = []
            for place, cut in call.reads:
                if (place in low) != lowered:
                    if place not in converted:
                        converted[place], count = count, count + 1
                        changed.append(self._conversion(call, place, converted[place], lowered))
                    place = converted[place]
                reads.append((place, cut))
            call = self._low_call(call) if lowered else call
            changed.append(replace(call, reads=tuple(reads)))
            low.update(call.writes if lowered else ())
        return changed, count

    @torch.no_grad()
    def refresh(self, always: bool = True) -> None:
        """Round the current weights into their shadows. Unless `always`, only if they may have changed."""
        for layer, twin in self._twins:
            twin.training = layer.training
        for shadow in self._shadows.values():
            shadow.follow()
        if self._weight_watch is None:
            self._weight_watch = WeightWatch([blob.weights for blob in self._masters])
        copies = [shadow for shadow in self._shadows.values() if shadow.rounded]
        if copies and (self._weight_watch.changed() or always):
            torch_internals.foreach_copy([shadow.leaf for shadow in copies], [shadow.master for shadow in copies])

    def _bound_by_weights(self, call: Call) -> bool:
        """Whether a step of the call takes longer in 16 bits: on a CPU, a product of few rows and large weights.

        Such a product takes the time in which its weights are read. In training, float32 moves 12 bytes for a weight
        (two products read it, and its gradient is written), 16 bits 18 bytes: conversions of the weight and of its
        gradient are 12 of them.
        """
        layer = call.layer
        if not call.backward or not isinstance(layer, InnerProduct) or not call.kept:
            return False
        weight = next(iter(layer._parameters.values()))
        if weight is None or weight.device.type != "cpu" or not weight.requires_grad:
            return False
        rows = call.kept[0].count // layer.opt.num_output
        return rows <= _FEW_ROWS and weight.numel() >= _LARGE_WEIGHT

    def _low_call(self, call: Call) -> Call:
        if isinstance(call.run, FusedProduct):
            return replace(call, run=replace(call.run, dtype=self.dtype))
        layer = self._twin(call.layer)
        return call if layer is call.layer else replace(call, layer=layer, run=layer.forward)

    def _conversion(self, reader: Call, place: int, target: int, lowered: bool) -> Call:
        dtype = self.dtype if lowered else torch.float32
        layer = _Convert(dtype, self.scale, reader.layer.channels_last)
        return Call(layer, layer.forward, ((place, False),), (target,), (), True)

    def _twin(self, layer: Layer) -> Layer:
        """A copy of the layer with shadows as weights, or the layer itself if it uses the weights as they are."""
        if not layer._parameters or (layer.lowering is Lowering.FOLLOW and self.scale is None):
            return layer
        dtype = self.dtype if layer.lowering is Lowering.ALWAYS else torch.float32
        twin = copy.copy(layer)
        twin._parameters = {  # type: ignore[assignment]
            name: master if master is None else self._shadow(master, dtype)
            for name, master in layer._parameters.items()
        }
        self._twins.append((layer, twin))
        self._masters += layer.param_blobs
        return twin

    def _shadow(self, master: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
        key = id(master), dtype
        if key not in self._shadows:
            self._shadows[key] = _Shadow(master, dtype, self.scale)
        return self._shadows[key].leaf


def _wants_low(call: Call, low: set[int], losses: frozenset[int]) -> bool:
    kind = call.layer.lowering
    if kind is Lowering.NEVER or losses.intersection(call.writes):
        return False
    return kind is Lowering.ALWAYS or all(place in low for place, _ in call.reads)


class _Shadow:
    """A copy of a weight in another type. It replaces the weight in a layer and adds its unscaled gradient in float32.

    A shadow of the same type shares the weight's memory, and serves only to unscale the gradient.
    """

    def __init__(self, master: nn.Parameter, dtype: torch.dtype, scale: LossScale | None) -> None:
        self.master, self.scale = master, scale
        self.rounded = dtype != master.dtype
        value = torch.empty_like(master, dtype=dtype) if self.rounded else master.detach()
        self.leaf = nn.Parameter(value)
        self.leaf.register_post_accumulate_grad_hook(self._hand_on)

    def follow(self) -> None:
        """Update `requires_grad` and the memory to those of the weight."""
        self.leaf.requires_grad_(self.master.requires_grad)
        if not self.rounded:
            self.leaf.data = self.master.data

    def _hand_on(self, leaf: Tensor) -> None:
        grad, leaf.grad = leaf.grad, None
        assert grad is not None
        share = 1.0 if self.scale is None else 1 / self.scale.value
        if self.master.grad is not None:
            self.master.grad.add_(grad, alpha=share)
            return
        self.master.grad = torch.empty_like(self.master, requires_grad=False).copy_(grad)
        if share != 1:
            self.master.grad.mul_(share)


class _Convert(Layer, abstract=True):
    """Converts a value to another type. Its gradient is converted back, and is scaled while it is 16 bits wide."""

    type = "Convert"
    bottoms = tops = (1, 1)

    def __init__(self, dtype: torch.dtype, scale: LossScale | None, last: bool) -> None:
        super().__init__(caffe_pb2.LayerParameter(name="convert", type=self.type, bottom=["x"], top=["y"]))
        self.dtype, self.scale, self.last = dtype, scale, last

    def forward(self, x: Tensor) -> Tensor:
        order = torch.channels_last if self.last and x.dim() == 4 else torch.preserve_format
        y = x.to(self.dtype, memory_format=order)
        return y if self.scale is None else _Rescale.apply(x, y, self.scale)


class _Rescale(torch.autograd.Function):
    """Convert x to another type. The gradient is scaled when converted to 16 bits and unscaled when converted back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scale: LossScale) -> Tensor:
        ctx.dtype, ctx.scale = x.dtype, scale
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        factor = 1 / ctx.scale.value if ctx.dtype == torch.float32 else ctx.scale.value
        return (grads[0].float() * factor).to(ctx.dtype), None, None
