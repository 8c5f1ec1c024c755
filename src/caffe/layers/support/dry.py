"""Dry runs: shape inference by calling `forward` with meta tensors, which have no values.

For meta tensors torch runs its functions in Python, and first imports a compiler, which takes most of a second. This
module computes the result shapes of common functions with plain arguments directly. torch handles all other calls,
and raises the errors for wrong arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["FastShapes", "without_values"]

Rule = Callable[..., Tensor | None]
_RULES: dict[Any, Rule] = {}


class FastShapes(TorchFunctionMode):
    """A context in which the rules below replace torch's functions for meta tensors, where a rule applies."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule, kwargs, made = _RULES.get(func), kwargs or {}, None
        if rule is not None:
            with suppress(Exception):  # arguments that are wrong, or that the rule does not support
                made = rule(*args, **kwargs)
        return func(*args, **kwargs) if made is None else made


@contextmanager
def without_values(module: nn.Module) -> Iterator[None]:
    """A context in which the module's parameters and buffers are meta tensors of the same shapes.

    A parameter of which this process holds a part (caffe.net.divided) has the shape of the whole there.
    """
    stores: list[Any] = [store for part in module.modules() for store in (part._parameters, part._buffers)]
    held = [(store, dict(store)) for store in stores if any(x is not None and not x.is_meta for x in store.values())]
    try:
        for store, tensors in held:
            store.update({name: None if x is None else _empty(whole_shape(x), x.dtype) for name, x in tensors.items()})
        yield
    finally:
        for store, tensors in held:
            store.clear()
            store.update(tensors)


def whole_shape(x: Tensor) -> Sequence[int]:
    """The shape of a blob's tensor, or of the whole blob if the tensor is a part of it."""
    return getattr(x, "whole_shape", x.shape)


def _rule(*names: str, spaces: Sequence[Any] = (torch, Tensor, F)) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule for torch's functions of these names. None falls back to torch."""

    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES.update({getattr(space, name): rule for space in spaces if hasattr(space, name)})
        return rule

    return register


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _meta(*operands: Any) -> bool:
    """Whether all tensors among the operands are meta tensors."""
    return all(x.is_meta for x in operands if isinstance(x, Tensor))


def _real(*operands: Any) -> bool:
    """Whether all tensors among the operands are meta tensors of one floating type."""
    types = {x.dtype for x in operands if isinstance(x, Tensor)}
    return len(types) == 1 and types.pop().is_floating_point and _meta(*operands)


def _fits(x: Tensor | None, *shape: int) -> bool:
    return x is None or x.shape == shape


def _each(value: int | Sequence[int], count: int) -> Sequence[int]:
    """Expand an option to one value for each of `count` axes."""
    return [value] * count if isinstance(value, int) else value


def _joint(*operands: Any) -> tuple[int, ...] | None:
    """The broadcast shape of the operands, or None if they cannot be broadcast."""
    sizes = []
    for axis in zip_longest(*(x.shape[::-1] for x in operands if isinstance(x, Tensor)), fillvalue=1):
        kinds = set(axis) - {1}
        if len(kinds) > 1:
            return None
        sizes.append(kinds.pop() if kinds else 1)
    return tuple(sizes[::-1])


def _into(out: Tensor | None, shape: tuple[int, ...] | None, dtype: torch.dtype) -> Tensor | None:
    """A result of this shape: `out` if it was given and matches."""
    if shape is None or out is None:
        return None if shape is None else _empty(shape, dtype)
    return out if out.is_meta and out.shape == shape and out.dtype == dtype else None


@_rule(
    *("abs", "celu", "clamp_min", "elu", "exp", "gelu", "hardtanh", "leaky_relu", "log", "logsigmoid"),
    *("nan_to_num", "neg", "pow", "reciprocal", "relu", "relu6", "rsqrt", "selu", "sigmoid", "sigmoid_", "silu"),
    *("softplus", "sqrt", "square", "tanh", "tanh_", "trunc", "__pow__"),
)
def _alike(x: Any, *numbers: Any, out: Tensor | None = None, **options: Any) -> Tensor | None:
    """The rule of element-wise functions."""
    if not isinstance(x, Tensor) or not _real(x) or any(isinstance(y, Tensor) for y in (*numbers, *options.values())):
        return None
    return _into(out, x.shape, x.dtype)


@_rule("clamp")
def _clamp(x: Tensor, *limits: Any, **named: Any) -> Tensor | None:
    whole = all(limit is None or isinstance(limit, int) for limit in (*limits, *named.values()))
    return _empty(x.shape, x.dtype) if _meta(x) and whole else _alike(x, *limits, **named)


@_rule("dropout")
def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    return _alike(x) if 0 <= p <= 1 else None


@_rule("softmax", "log_softmax")
def _softmax(x: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor | None:
    return _alike(x) if isinstance(dim, int) and -x.dim() <= dim < x.dim() and dtype is None else None


@_rule("prelu")
def _prelu(x: Tensor, weight: Tensor) -> Tensor | None:
    plain = _real(x, weight) and x.dim() > 1 and weight.dim() < 2 and weight.numel() in (1, x.shape[1])
    return _empty(x.shape, x.dtype) if plain else None


@_rule("batch_norm", spaces=[torch])
def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *_: Any) -> Tensor | None:
    channels = (weight, bias, mean, variance)
    plain = _real(x, *channels) and x.dim() > 1 and all(_fits(y, x.shape[1]) for y in channels)
    return _empty(x.shape, x.dtype) if plain else None


@_rule("empty_like", "ones_like", "zeros_like")
def _fresh(x: Tensor, dtype: torch.dtype | None = None, memory_format: Any = None) -> Tensor | None:
    return _empty(x.shape, dtype or x.dtype) if x.is_meta else None


@_rule("add", "maximum", "minimum", "mul", "sub", "__radd__", "__rmul__", "__rsub__")
def _arithmetic(x: Any, y: Any, *, alpha: float = 1, out: Tensor | None = None) -> Tensor | None:
    dtype = torch.result_type(x, y)
    return _into(out, _joint(x, y), dtype) if _meta(x, y) and dtype != torch.bool else None


@_rule("div", "true_divide")
def _quotient(x: Any, y: Any, *, out: Tensor | None = None) -> Tensor | None:
    return _arithmetic(x, y, out=out) if torch.result_type(x, y).is_floating_point else None


@_rule("add_", "div_", "mul_", "sub_", "addcmul_")
def _in_place(x: Tensor, *others: Any, alpha: float = 1, value: float = 1) -> Tensor | None:
    return _into(x, _joint(x, *others), x.dtype) if _real(x, *others) else None


@_rule("eq", "ge", "gt", "le", "lt", "ne")
def _comparison(x: Tensor, y: Any) -> Tensor | None:
    return _into(None, _joint(x, y), torch.bool) if _meta(x, y) else None


@_rule("logical_not", "__invert__")
def _opposite(x: Tensor) -> Tensor | None:
    return _empty(x.shape, x.dtype) if _meta(x) and x.dtype == torch.bool else None


@_rule("where", spaces=[torch])
def _where(condition: Tensor, x: Any, y: Any) -> Tensor | None:
    plain = _meta(condition, x, y) and condition.dtype == torch.bool
    return _into(None, _joint(condition, x, y), torch.result_type(x, y)) if plain else None


@_rule("where", spaces=[Tensor])
def _where_method(x: Tensor, condition: Tensor, y: Any) -> Tensor | None:
    return _where(condition, x, y)


@_rule("sum")
def _sum(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor | None:
    axes = range(x.dim()) if dim in (None, ()) else _each(dim, 1)
    gone = {i % x.dim() for i in axes if -x.dim() <= i < x.dim()}
    sizes = [1 if i in gone else n for i, n in enumerate(x.shape) if keepdim or i not in gone]
    dtype = x.dtype if x.is_floating_point() else torch.int64
    return _empty(sizes, dtype) if _meta(x) and len(gone) == len(axes) else None


@_rule("mean")
def _mean(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor | None:
    return _sum(x, dim, keepdim) if _real(x) else None


@_rule("cat", spaces=[torch])
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if not _real(*tensors) or not -first.dim() <= dim < first.dim() or any(x.dim() != first.dim() for x in tensors):
        return None
    sizes = [set(axis) for axis in zip(*(x.shape for x in tensors), strict=True)]
    sizes[dim] = {sum(x.shape[dim] for x in tensors)}
    return _empty([size.pop() for size in sizes], first.dtype) if all(len(size) == 1 for size in sizes) else None


@_rule("linear", spaces=[F])
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    plain = _real(x, weight, bias) and weight.dim() == 2 and x.shape[-1:] == weight.shape[1:]
    return _empty((*x.shape[:-1], len(weight)), x.dtype) if plain and _fits(bias, len(weight)) else None


@_rule("addmm", spaces=[torch])
def _addmm(y: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor | None:
    if not _real(y, a, b) or not a.dim() == b.dim() == 2 or a.shape[1] != b.shape[0]:
        return None
    shape = (a.shape[0], b.shape[1])
    return _into(out, shape, a.dtype) if y.shape == shape else None


@_rule("conv1d", "conv2d", "conv3d", spaces=[torch])
def _convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor | None:
    count = weight.dim() - 2
    axes = zip(
        x.shape[2:], weight.shape[2:], *(_each(option, count) for option in (stride, padding, dilation)), strict=True
    )
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    plain = _real(x, weight, bias) and _fits(bias, len(weight)) and x.shape[1] == weight.shape[1] * groups
    fits = min(*x.shape[1:], *sizes) > 0 and len(weight) % groups == 0
    return _empty((len(x), len(weight), *sizes), x.dtype) if plain and fits else None


@_rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", spaces=[torch])
def _transposed_convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor | None:  # fmt: skip
    options = (_each(option, weight.dim() - 2) for option in (stride, padding, dilation))
    axes = zip(x.shape[2:], weight.shape[2:], *options, strict=True)
    sizes = [(n - 1) * s + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in axes]
    outputs = weight.shape[1] * groups
    plain = _real(x, weight, bias) and _fits(bias, outputs) and output_padding == 0
    fits = x.shape[1] == len(weight) and len(weight) % groups == 0 and min(*x.shape[1:], *sizes) > 0
    return _empty((len(x), outputs, *sizes), x.dtype) if plain and fits else None


@_rule("max_pool2d", spaces=[F])
def _max_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:  # fmt: skip
    plain = dilation in (1, (1, 1)) and not return_indices
    return _pooled(x, kernel_size, stride, padding, ceil_mode) if plain else None


@_rule("avg_pool2d", spaces=[F])
def _mean_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor | None:  # fmt: skip
    return _pooled(x, kernel_size, stride, padding, ceil_mode) if divisor_override != 0 else None


def _pooled(x: Tensor, kernel: Any, stride: Any, pad: Any, ceil: bool) -> Tensor | None:
    sizes = []
    options = (_each(option, 2) for option in (kernel, kernel if stride is None else stride, pad))
    for n, k, s, p in zip(x.shape[2:], *options, strict=True):
        count = (n + 2 * p - k + (s - 1) * ceil) // s + 1
        sizes.append(count - (ceil and (count - 1) * s >= n + p))
        if not 0 <= 2 * p <= k:
            return None
    return _empty((*x.shape[:2], *sizes), x.dtype) if _real(x) and min(*x.shape[1:], *sizes) > 0 else None


@_rule("nll_loss")
def _nll_loss(x: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "", **nones: Any) -> Tensor | None:
    plain = reduction == "none" and set(nones.values()) <= {None} and x.dim() > 1 and target.dtype == torch.long
    return _empty(target.shape, x.dtype) if plain and _real(x) and target.shape == x[:, 0].shape else None


@_rule("binary_cross_entropy_with_logits")
def _cross_entropy(x: Tensor, target: Tensor, reduction: str = "mean", **nones: Any) -> Tensor | None:
    plain = reduction == "none" and set(nones.values()) <= {None} and x.shape == target.shape
    return _alike(x) if plain and _real(x, target) else None


@_rule("gather")
def _gather(x: Tensor, dim: int, index: Tensor) -> Tensor | None:
    plain = x.is_meta and index.dtype == torch.long and x.dim() == index.dim() and -x.dim() <= dim < x.dim()
    others = (axis == dim % x.dim() or a <= b for axis, (a, b) in enumerate(zip(index.shape, x.shape, strict=False)))
    return _empty(index.shape, x.dtype) if plain and all(others) else None


@_rule("embedding", spaces=[F])
def _embedding(index: Tensor, weight: Tensor, **_: Any) -> Tensor | None:
    plain = _real(weight) and weight.dim() == 2 and index.dtype == torch.long
    return _empty((*index.shape, weight.shape[1]), weight.dtype) if plain else None
