"""Fillers, which initialize the blobs of layers.

A filler is a function registered under its prototxt name by `@filler("name")`. It gets the tensor to fill in place and
the FillerParameter, and draws from torch's default generator, so `caffe.set_random_seed` makes it repeatable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from caffe.errors import LayerError, did_you_mean
from caffe.proto import caffe_pb2
from caffe.proto.forks import foreign_value
from caffe.registry import Registry

__all__ = ["check_filler", "fill", "filler", "filler_types", "is_zero"]

Filler = Callable[[Tensor, Any], None]
FILLERS: Registry[Filler] = Registry("filler type", LayerError, "fillers")
_FILLERS = FILLERS.items  # the same dictionary: scripts that build nets without filling them replace its functions
_WIDEST = torch.finfo(torch.float32).max


def filler(name: str) -> Callable[[Filler], Filler]:
    """Register the decorated function as the filler type `name`."""

    def register(function: Filler) -> Filler:
        FILLERS.add(name, function)
        return function

    return register


def filler_types() -> list[str]:
    """The names of all fillers, sorted."""
    return FILLERS.names()


def fill(tensor: Tensor, param: Any) -> None:
    """Fill `tensor` in place as the FillerParameter `param` says."""
    check_filler(param, _raise)
    if not tensor.numel():
        return
    with torch.no_grad():
        FILLERS.find(param.type)(tensor, param)


def is_zero(param: Any) -> bool:
    """Whether the FillerParameter `param` fills with zeros."""
    return param.type == "constant" and param.value == 0


def check_filler(param: Any, error: Callable[[str], Any]) -> None:
    """Call `error` with a message if `param` names an unknown filler, or an invalid range."""
    if param.type not in FILLERS:
        hint = foreign_value(param.type) or did_you_mean(param.type, FILLERS.items)
        error(f'unknown filler type "{param.type}"{hint} {FILLERS.known()}')
    if param.type == "uniform" and not (param.min <= param.max and param.max - param.min <= _WIDEST):
        error(f'filler "uniform": min is {param.min:g} and max {param.max:g}; expected min <= max, both finite')
    if param.type == "gaussian" and not param.std >= 0:
        error(f'filler "gaussian": std is {param.std:g}, expected at least 0')


@filler("constant")
def constant(tensor: Tensor, param: Any) -> None:
    """Set every element to `value`."""
    tensor.fill_(param.value)


@filler("uniform")
def uniform(tensor: Tensor, param: Any) -> None:
    """Uniform on [min, max)."""
    _no_sparse(param)
    tensor.uniform_(param.min, param.max)


@filler("gaussian")
def gaussian(tensor: Tensor, param: Any) -> None:
    """Normal with `mean` and `std`; with `sparse` >= 0, about that many inputs of each output are not zero.

    Source: Martens 2010, section 5; BVLC filler.hpp keeps an element with probability sparse / shape[0].
    """
    tensor.normal_(param.mean, param.std)
    if param.sparse >= 0:
        if tensor.dim() < 1:
            _raise('filler "gaussian": sparse needs a blob with at least one axis')
        tensor.mul_(torch.empty_like(tensor).bernoulli_(min(1.0, param.sparse / tensor.shape[0])))


@filler("positive_unitball")
def positive_unitball(tensor: Tensor, param: Any) -> None:
    """Uniform on [0, 1), then each first-axis slice is divided by its sum."""
    _no_sparse(param)
    rows = tensor.uniform_(0, 1).view(tensor.shape[0] if tensor.dim() else 1, -1)
    rows.div_(rows.sum(1, keepdim=True))


@filler("xavier")
def xavier(tensor: Tensor, param: Any) -> None:
    """Uniform on [-a, a) with a = sqrt(3 / n), n by `variance_norm`.

    Source: Glorot and Bengio, AISTATS 2010; with Caffe's choice of the fan-in alone by default.
    """
    _no_sparse(param)
    bound = math.sqrt(3.0 / _fan(tensor, param))
    tensor.uniform_(-bound, bound)


@filler("msra")
def msra(tensor: Tensor, param: Any) -> None:
    """Normal with standard deviation sqrt(2 / n), n by `variance_norm`.

    Source: He et al., arXiv:1502.01852, equation 10.
    """
    _no_sparse(param)
    tensor.normal_(0.0, math.sqrt(2.0 / _fan(tensor, param)))


@filler("bilinear")
def bilinear(tensor: Tensor, param: Any) -> None:
    """The kernel of bilinear upsampling, for a Deconvolution with group = channels; (C, 1, K, K).

    Source: Long et al., arXiv:1411.4038; BVLC filler.hpp.
    """
    _no_sparse(param)
    if tensor.dim() != 4 or tensor.shape[2] != tensor.shape[3]:
        _raise(f'filler "bilinear": expected a blob with 4 axes and a square kernel, got shape {tuple(tensor.shape)}')
    size = tensor.shape[3]
    half = math.ceil(size / 2)
    centre = (size - 1) / (2 * half)
    ramp = 1 - (torch.arange(size, dtype=tensor.dtype, device=tensor.device) / half - centre).abs()
    tensor.copy_(ramp[:, None] * ramp)


def _fan(tensor: Tensor, param: Any) -> float:
    """n of `variance_norm`: inputs per output, outputs per input, or the mean of both."""
    fan_in = tensor.numel() / tensor.shape[0] if tensor.dim() else 1.0
    fan_out = tensor.numel() / tensor.shape[1] if tensor.dim() > 1 else float(tensor.numel())
    norm = caffe_pb2.FillerParameter.VarianceNorm
    choices = {norm.Value("FAN_IN"): fan_in, norm.Value("FAN_OUT"): fan_out}
    return choices.get(param.variance_norm, (fan_in + fan_out) / 2)


def _no_sparse(param: Any) -> None:
    if param.sparse != -1:
        _raise(f'filler "{param.type}" does not support sparse; only "gaussian" does')


def _raise(fact: str) -> None:
    raise LayerError(fact)
