"""The private names of torch that this package uses. All other modules take them from here.

A release of torch may rename or remove any of them. Each has a fallback, described in `NAMES`: the package is then
slower, or one feature raises an error, but no results change. `Tensor._version` and `Tensor._is_view`, which autograd's
notes describe, are used directly.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "NAMES",
    "compile_errors",
    "convolution_pointwise",
    "convolution_pointwise_",
    "cpp_compiler",
    "default_cache",
    "find",
    "foreach_copy",
    "foreach_lerp",
    "functorch_settings",
    "fused_adam",
    "fused_adamw",
    "fused_sgd",
    "gradients",
    "has_bfloat16_arithmetic",
    "has_onednn",
    "is_mutable_operator",
    "linear_operator",
    "linear_pointwise",
    "onednn_takes",
    "reorder_convolution_weight",
    "reorder_linear_weight",
    "sequence_number",
    "set_grad_enabled",
    "small_convolution",
    "strong_wolfe",
]

NAMES = {
    "torch.ops.mkldnn._linear_pointwise": "matrix products run by torch's default library",
    "torch.ops.mkldnn._convolution_pointwise": "inference does not merge activations into convolutions",
    "torch.ops.mkldnn._convolution_pointwise_": "inference does not merge sums into convolutions",
    "torch.ops.mkldnn._reorder_convolution_weight": "weights of convolutions are not laid out in advance",
    "torch.ops.mkldnn._reorder_linear_weight": "weights of fully connected layers are not laid out in advance",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "16-bit layers run by torch's default kernels",
    "torch._C._nn.thnn_conv2d": "small convolutions run by torch's default kernels",
    "torch.ops.aten._slow_conv2d_backward": "small convolutions run by torch's default kernels",
    "torch.cpu._is_avx512_bf16_supported": "BFLOAT16 warns that it is slow",
    "torch.cpu._is_amx_tile_supported": "BFLOAT16 warns that it is slow",
    "torch._foreach_copy_": "tensors are copied one by one",
    "torch._foreach_lerp_": "the moving average is updated tensor by tensor",
    "torch._fused_sgd_": "SGD and Nesterov run their `step`",
    "torch._fused_adam_": "Adam runs its `step`",
    "torch._fused_adamw_": "AdamW runs its `step`",
    "torch.optim.lbfgs._strong_wolfe": "LBFGS and BFGS are refused",
    "torch.autograd.Variable._execution_engine": "backward of single layers takes longer",
    "torch._C._set_grad_enabled": "backward layer by layer takes longer",
    "torch.autograd._get_sequence_nr": "traces name the layers of forward only",
    "torch._functorch.config": "compiled nets store more for backward",
    "torch._dynamo.exc.TorchDynamoException": "an error of torch.compile is shown as torch raises it",
    "torch._inductor.cpp_builder": "a missing compiler is noticed at the first run",
    "torch._ops.OpOverload": "every layer is converted to OpenVINO without the check that it changes nothing in place",
}
"""Each name with the effect of its absence."""


def find(name: str) -> Any:
    """Return the object in torch with a dotted name, or None. A module is returned only if it is already imported."""
    value, path = None, ""
    for part in name.split("."):
        path = f"{path}.{part}" if path else part
        value = getattr(value, part, None) or sys.modules.get(path)
        if value is None:
            return None
    return value


def _operator(name: str, overload: str = "default") -> Any:
    packet = find(f"torch.ops.mkldnn.{name}")
    return None if packet is None else getattr(packet, overload, None)


os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
"""Number of kernels that oneDNN caches, one for each shape of each layer's passes.

The default of 1024 is too small for a net that is trained on images of many sizes. oneDNN reads the variable when it
creates its first kernel.
"""


# -- oneDNN's kernels ------------------------------------------------------------------------------------------------

_AVAILABLE = torch.backends.mkldnn.is_available()
linear_operator = find("torch.ops.mkldnn._linear_pointwise")
linear_pointwise = _operator("_linear_pointwise")
convolution_pointwise = _operator("_convolution_pointwise"), _operator("_convolution_pointwise", "binary")
"""Without and with another tensor that is added."""
convolution_pointwise_ = _operator("_convolution_pointwise_", "binary")
reorder_convolution_weight = find("torch.ops.mkldnn._reorder_convolution_weight")
reorder_linear_weight = find("torch.ops.mkldnn._reorder_linear_weight")
_KERNELS = (linear_pointwise, *convolution_pointwise, convolution_pointwise_)


def has_onednn() -> bool:
    """Whether all the kernels above exist."""
    return _AVAILABLE and None not in (*_KERNELS, reorder_convolution_weight, reorder_linear_weight)


def onednn_takes(dtype: torch.dtype) -> bool:
    """Whether these kernels compute in a dtype without emulation."""
    if not has_onednn():
        return False
    if dtype is torch.bfloat16:
        supported = find("torch.ops.mkldnn._is_mkldnn_bf16_supported")
        return supported is not None and bool(supported())
    return dtype is torch.float32


_im2col_convolution: Any = find("torch._C._nn.thnn_conv2d")
_im2col_gradients: Any = getattr(find("torch.ops.aten._slow_conv2d_backward"), "output_mask", None)


def small_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int]
) -> Tensor:
    """Return the convolution of x (N, C, H, W), by im2col and a matrix product for each item."""
    if _im2col_convolution is None or _im2col_gradients is None:
        return torch.nn.functional.conv2d(x, weight, bias, tuple(stride), tuple(pad))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        made: Tensor = _SmallConvolution.apply(x, weight, bias, kernel, stride, pad)
        return made
    y: Tensor = _im2col_convolution(x, weight, kernel, bias, stride, pad)
    return y


class _SmallConvolution(torch.autograd.Function):
    """`small_convolution` whose gradients are computed from tensors in C order.

    For other orders torch's kernel computes wrong gradients of the weight, or gradients in another order than the
    weight's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *window: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)  # the inputs, not the copies: a second derivative goes through them
        ctx.window = kernel, stride, pad = window
        y: Tensor = _im2col_convolution(_with_c_strides(x), _with_c_strides(weight), kernel, bias, stride, pad)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = map(_with_c_strides, ctx.saved_tensors)
        wanted = ctx.needs_input_grad[:3]
        return *_im2col_gradients(_with_c_strides(dy), x, weight, *ctx.window, wanted), None, None, None


def _with_c_strides(x: Tensor) -> Tensor:
    """x (N, C, H, W) with the strides of C order, also along axes of size 1, where `contiguous` keeps any stride."""
    _, c, h, w = x.shape
    return x if x.stride() == (c * h * w, h * w, w, 1) else x.clone(memory_format=torch.contiguous_format)


def has_bfloat16_arithmetic() -> bool:
    """Whether the processor has instructions for bfloat16 matrix products."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return onednn_takes(torch.bfloat16)
    tests = find("torch.cpu._is_avx512_bf16_supported"), find("torch.cpu._is_amx_tile_supported")
    return any(test is not None and test() for test in tests)


# -- several tensors at once -----------------------------------------------------------------------------------------


def foreach_copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target."""
    if (copy := find("torch._foreach_copy_")) is not None:
        copy(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def foreach_lerp(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each target by the fraction `weight` towards its end."""
    if (lerp := find("torch._foreach_lerp_")) is not None:
        lerp(targets, ends, weight)
        return
    for target, end in zip(targets, ends, strict=True):
        target.lerp_(end, weight)


fused_sgd: Callable[..., None] | None = find("torch._fused_sgd_")
fused_adam: Callable[..., None] | None = find("torch._fused_adam_")
fused_adamw: Callable[..., None] | None = find("torch._fused_adamw_")


def strong_wolfe() -> Callable[..., Any] | None:
    """Return torch's line search for LBFGS."""

    return find("torch.optim.lbfgs._strong_wolfe")


# -- autograd and the compiler ---------------------------------------------------------------------------------------


def sequence_number() -> int:
    """Return the number that autograd will give the next node; 0 if torch does not provide it."""
    number = find("torch.autograd._get_sequence_nr")
    return 0 if number is None else number()


_grad_switch = find("torch._C._set_grad_enabled") or torch.set_grad_enabled


def set_grad_enabled(on: bool) -> bool:
    """Switch autograd's recording on or off for this thread, without a context. Returns the former state.

    The caller must restore that state. torch's context managers take ten times as long.
    """
    before = torch.is_grad_enabled()
    _grad_switch(on)
    return before


autograd_engine = find("torch.autograd.Variable._execution_engine")


def gradients(
    tops: tuple[Tensor, ...], diffs: tuple[Tensor, ...], leaves: tuple[Tensor, ...]
) -> Sequence[Tensor | None]:
    """Return the gradients of `leaves` for the gradients `diffs` of `tops`; None for a leaf that no top depends on.

    The graph is kept. Calling autograd's engine directly takes a quarter of the time of `torch.autograd.grad`, which
    also imports a compiler if it is given `diffs`.
    """
    if autograd_engine is not None:
        grads: Sequence[Tensor | None] = autograd_engine.run_backward(
            tops, diffs, True, False, leaves, allow_unreachable=True, accumulate_grad=False
        )
        return grads
    with torch.enable_grad():
        root = _Root.apply(diffs, *tops)
    return torch.autograd.grad(root, leaves, retain_graph=True, allow_unused=True)


class _Root(torch.autograd.Function):
    """A scalar whose gradient for each top is the given diff."""

    @staticmethod
    def forward(ctx: Any, diffs: Sequence[Tensor], *tops: Tensor) -> Tensor:
        ctx.diffs = diffs
        return tops[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.diffs


def functorch_settings(settings: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Return a context with these settings of torch's ahead-of-time autograd."""
    config = find("torch._functorch.config")
    return contextlib.nullcontext() if config is None else config.patch(dict(settings))


def compile_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that torch.compile raises for unsupported code."""
    error = find("torch._dynamo.exc.TorchDynamoException")
    return () if error is None else (error,)


def default_cache() -> str:
    """Return torch's default folder for compiled code."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:
        return ""
    return str(default_cache_dir())


def cpp_compiler() -> str | None:
    """Return the C++ compiler of torch.compile; None if there is none, "" if torch does not provide its name."""
    try:
        from torch._inductor import cpp_builder, exc
    except ImportError:
        return ""
    try:
        return str(cpp_builder.get_cpp_compiler())
    except exc.InvalidCxxCompiler:
        return None


def is_mutable_operator(target: Any) -> bool:
    """Whether an entry of a graph is an operator of torch that modifies its arguments."""
    overload = find("torch._ops.OpOverload")
    return overload is not None and isinstance(target, overload) and bool(target._schema.is_mutable)
