"""Normalization layers: BatchNorm, LRN, MVN, Normalize."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, shape_text
from caffe.layers.pooling import Grid, mean_pool
from caffe.layers.support.batch_norm import batch_norm
from caffe.layers.support.exact import is_exact, tell
from caffe.parallel.differentiable import summed
from caffe.parallel.group import ALONE, Group
from caffe.proto import caffe_pb2

__all__ = ["LRN", "MVN", "BatchNorm", "Normalize", "SimpleNormalize"]


class _Running(Layer, abstract=True):
    """Base of BatchNorm: decides which statistics are used."""

    effects = Effects.BUFFERS
    blob_names = ("mean", "variance", "factor")
    given: bool | None  # None: the phase decides

    @property
    def uses_running(self) -> bool:
        """Whether the running statistics are used: `use_global_stats` if given, else only in TEST."""
        return not self.training if self.given is None else self.given

    @property
    def effects_now(self) -> Effects:
        return Effects.NONE if self.uses_running else self.effects


class _Scaled(_Running, abstract=True):
    """Base of BatchNorm: the built-in scale and bias of NVCaffe's and Intel's Caffe."""

    scale: Tensor
    bias: Tensor
    mean: Tensor
    processes: Group = ALONE
    """Whose batches count as one."""

    def by_batch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """y by the statistics of the batch, their mean (C), and the variance (C) over m - 1."""
        if self.processes.size > 1:
            return _joint_batch_norm(x, weight, bias, self.opt.eps, self.processes)
        mean, variance = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        return batch_norm(x, weight, bias, mean, variance, True, self.opt.eps), mean, variance

    @cached_property
    def scaled(self) -> bool:
        """Whether the options ask for a built-in scale and bias."""
        opt = self.opt
        intel = opt.HasField("use_weight_bias") and opt.use_weight_bias
        nvidia = opt.HasField("scale_filler") or (opt.HasField("bias_filler") and not opt.HasField("use_weight_bias"))
        return bool(opt.scale_bias or intel or nvidia)

    def add_scale(self, channels: int) -> None:
        """Declare the blobs scale and bias (C), if the layer has them."""
        if not self.scaled:
            return
        given = next((name for name in ("scale_filler", "filler") if self.opt.HasField(name)), None)
        ones = caffe_pb2.FillerParameter(value=1)
        self.add_blob("scale", (channels,), getattr(self.opt, given) if given else ones)
        if self.opt.bias_term:
            self.add_blob("bias", (channels,), self.opt.bias_filler if self.opt.HasField("bias_filler") else None)

    def behind(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Combine the built-in scale and bias with those of the Scale layer that follows."""
        if not self.scaled:
            return weight, bias
        own = self.bias if self.opt.bias_term else None
        if weight is None:
            return self.scale, own
        if own is not None:
            bias = own * weight if bias is None else own * weight + bias
        return self.scale * weight, bias


class BatchNorm(_Scaled):
    """Normalizes each channel to mean 0 and variance 1, with batch statistics in TRAIN and running ones in TEST.

    bottom x (N, C, ...), top y of the same shape; m = cells of a channel

        y = (x - E[x]) / sqrt(Var[x] + eps), E and Var of the batch, Var over m; in TEST the statistics / factor
        statistics <- moving_average_fraction statistics + (E[x], m / (m - 1) Var[x], 1), in batch mode only

    Blobs, never trained: the statistics mean (C), variance (C), factor (1).  With factor 0, y = x / sqrt(eps).
    scale_bias (NVCaffe) or use_weight_bias (Intel) adds two trained blobs, scale (C) and bias (C), which are applied to
    y. The multipliers in param blocks apply to these two only.
    Source: Ioffe and Szegedy, arXiv:1502.03167; BVLC batch_norm_layer.cpp.
    """

    forgets_top = True
    lowering = Lowering.FOLLOW  # the statistics are float32 for any type of x
    mean: Tensor
    variance: Tensor
    factor: Tensor

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        self.require(
            self.scaled or all(param.lr_mult == 0 for param in self.spec.param),
            "its blobs are statistics and not trained; set lr_mult: 0 in its param blocks, or remove them",
        )
        self.given = self.opt.use_global_stats if self.opt.HasField("use_global_stats") else None
        self.records = Records.EACH if self.given else Records.UNKNOWN
        self.add_blob("mean", (x.shape[1],), trained=False)
        self.add_blob("variance", (x.shape[1],), trained=False)
        self.add_blob("factor", (1,), trained=False)
        self.add_scale(x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x)

    def normalize(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Compute `weight` y + `bias`, with weight and bias (C), in one pass: BatchNorm followed by Scale."""
        if x.shape[1] != len(self.mean):
            self.error(f"{self.bottom_name(0)} has {x.shape[1]} channels, the layer was set up for {len(self.mean)}")
        weight, bias = self.behind(weight, bias)
        if self.uses_running:
            mean, variance = self.running()
            return batch_norm(x, weight, bias, mean, variance, False, self.opt.eps)
        y, mean, variance = self.by_batch(x, weight, bias)
        self.learn(x, mean, variance)
        return y

    def running(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (C) from the blobs."""
        share = torch.where(self.factor.eq(0), 0, self.factor.reciprocal())
        return self.mean * share, self.variance * share

    @torch.no_grad()
    def learn(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with the mean and variance (C) of a batch x."""
        variance = variance if x.numel() > x.shape[1] else torch.zeros_like(variance)  # m - 1 is 0 for one cell
        fraction = self.opt.moving_average_fraction
        self.mean.mul_(fraction).add_(mean)
        self.variance.mul_(fraction).add_(variance)
        self.factor.mul_(fraction).add_(1)


class LRN(Layer):
    """Local response normalization: divides each value by the energy of its neighbours.

    bottom x (N, C, H, W), top y of the same shape; n = local_size, odd

        ACROSS_CHANNELS  y = x (k + alpha / n sum of x^2 over n channels around) ^ -beta
        WITHIN_CHANNEL   y = x (1 + alpha / n^2 sum of x^2 over n x n cells around) ^ -beta

    Cells beyond the bottom are 0.  WITHIN_CHANNEL ignores `k`, as in Caffe.
    Source: Krizhevsky et al., NIPS 2012, section 3.3; BVLC lrn_layer.cpp.
    """

    records = Records.EACH
    forgets_top = True
    lowering = Lowering.FOLLOW  # _AcrossChannels accumulates in float32 for any type of x

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        size = self.opt.local_size
        self.require(size % 2 == 1, f"local_size {size} must be odd, so that the window has a middle")
        if self.opt.norm_region != caffe_pb2.LRNParameter.ACROSS_CHANNELS:
            self.lowering = Lowering.NEVER

    def forward(self, x: Tensor) -> Tensor:
        opt, reach = self.opt, self.opt.local_size // 2
        if opt.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
            rate = opt.alpha / opt.local_size
            way = _AcrossChannelsPlain if torch.compiler.is_compiling() else _AcrossChannels
            return way.apply(x, min(reach, x.shape[1]), rate, opt.beta, opt.k)
        kernel = tuple(2 * min(reach, size) + 1 for size in x.shape[2:])  # a larger kernel sees only cells outside x
        energy = mean_pool(x.square(), Grid(kernel, pad=tuple(size // 2 for size in kernel)))
        share = math.prod(kernel) / opt.local_size**2
        return x * (energy * (opt.alpha * share) + 1) ** -opt.beta


class MVN(Layer):
    """Normalizes each channel of each image to mean 0 and, with normalize_variance, to standard deviation 1.

    bottom x (N, C, ...), top y of the same shape; mean and sigma over the axes from 2 on, from 1 with across_channels

        y = (x - mean) / (sigma + eps)

    eps is added to the standard deviation, not to the variance, and the gradient treats sigma + eps as sigma.
    Source: BVLC mvn_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() >= 1, f"{self.bottom_name(0)} is a single number, expected (N, C, ...)")

    def forward(self, x: Tensor) -> Tensor:
        kept = x.shape[: 1 if self.opt.across_channels else 2]
        rows = x.reshape(math.prod(kept), -1)
        centred = rows - rows.mean(1, keepdim=True)
        if not self.opt.normalize_variance:
            return centred.view_as(x)
        variance = centred.square().mean(1, keepdim=True)
        if is_exact() and self.opt.eps > 1e-6 * variance.min().sqrt():
            tell("eps held constant")
            return (centred / (variance.clamp(min=1e-300).sqrt() + self.opt.eps)).view_as(x)
        with torch.no_grad():  # sqrt(variance + extra) = sigma + eps, where extra is a constant for autograd
            extra = (2 * variance.sqrt() + self.opt.eps) * self.opt.eps
        return (centred * (variance + extra).rsqrt()).view_as(x)


def _joint_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, processes: Group
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize with statistics over the batches of all processes: y, the mean, and the variance over m - 1."""
    axes, each = [0, *range(2, x.dim())], (-1, *[1] * (x.dim() - 2))
    wide = x.float()
    sums = torch.cat([wide.sum(axes), wide.new_tensor([x.numel() / x.shape[1]])])
    *_, count = total = summed(sums, processes)
    mean = total[:-1] / count
    centred = wide - mean.view(each)
    variance = summed(centred.square().sum(axes), processes) / count
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    y = centred * scale.view(each) + (0 if bias is None else bias.view(each))
    return y.to(x.dtype), mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach()


class _AcrossChannels(torch.autograd.Function):
    """y = x s^-beta with s = k + rate W(x^2), W the sum over the channels up to `reach` away.

        dx = s^-beta dy - 2 beta rate x W(dy y / s)

    Processes a few images at a time, so that the data of its passes stay in the processor's cache. Saves only x and s
    for backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int, rate: float, beta: float, k: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        s, y = torch.empty_like(x, dtype=wide), torch.empty_like(x)
        ctx.save_for_backward(x, s)
        ctx.options = reach, rate, beta
        constant = s.new_full((), k)
        for xi, si, yi in zip(*(_parts(t, x) for t in (x, s, y)), strict=True):
            xi = xi.to(wide)
            square = xi.square()
            _add_neighbours(torch.add(constant, square, alpha=rate, out=si), square, reach, rate)
            _write(yi, torch.mul, _inverse_power(si, beta), xi)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, s = ctx.saved_tensors
        reach, rate, beta = ctx.options
        dx = torch.empty_like(x)
        for xi, si, dyi, dxi in zip(*(_parts(t, x) for t in (x, s, dy, dx)), strict=True):
            xi = xi.to(s.dtype)
            direct = _inverse_power(si, beta).mul_(dyi.to(s.dtype))
            ratio = (direct * xi).div_(si)
            spread = _add_neighbours(ratio.clone(), ratio, reach, 1.0)
            _write(dxi, torch.addcmul, direct, spread, xi, value=-2 * beta * rate)
        return dx, None, None, None, None


class _AcrossChannelsPlain(torch.autograd.Function):
    """The same function in plain formulas, which torch.compile fuses into one pass over the data each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int, rate: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.options = reach, rate, beta, k
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * _inverse_power(k + rate * _window(wide.square(), reach), beta)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        reach, rate, beta, k = ctx.options
        (x,) = ctx.saved_tensors
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        s = k + rate * _window(x.square(), reach)
        direct = _inverse_power(s, beta) * dy
        dx = direct - 2 * beta * rate * x * _window(direct * x / s, reach)
        return dx.to(dy.dtype), None, None, None, None


def _window(x: Tensor, reach: int) -> Tensor:
    """The sum of x[:, c - reach ... c + reach]."""
    padded = F.pad(x, (0, 0, 0, 0, reach, reach))
    return sum((padded.narrow(1, i, x.shape[1]) for i in range(1, 2 * reach + 1)), padded.narrow(1, 0, x.shape[1]))


class Normalize(Layer, tops=(1, 2), options="norm_param"):
    """Scales the vector of channels in each cell, or each item, to length 1.

    bottom x (N, C, ...), top y of the same shape. SSD's layer, if norm_param or param blocks are given:
        y = scale x / sqrt(sum x^2 + eps), the sum over all axes but the first, or over C if across_spatial is false
    Blob: scale (), or (C) if channel_shared is false; it is not trained with fix_scale (ParseNet).
    happynear's layer, if normalize_param or no options are given, has no blob:

        L2  y = x / norm, norm = sqrt(sum x^2 + 1e-6)      L1  y = x / norm, norm = sum |x| + 1e-6,    sums over C

    Its optional second top is norm (N, 1, ...), which passes a gradient to x only with bp_norm.
    Source: Liu et al., arXiv:1506.04579 and arXiv:1512.02325, normalize_layer.cpp; happynear/caffe-windows.
    """

    records = Records.EACH
    more_options = ("normalize_param",)
    scale: Tensor

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        ours, other = self.spec.HasField("norm_param"), self.spec.HasField("normalize_param")
        self.require(not (ours and other), "has norm_param (SSD) and normalize_param (happynear); keep one")
        self.scaled = ours or (not other and len(self.spec.param) > 0)
        if not self.scaled:
            self._setup_plain()
            return
        self.require(self.top_count == 1, "has a second top, which only happynear's layer has; remove norm_param")
        shape = () if self.opt.channel_shared else (x.shape[1],)
        fill = self.opt.scale_filler if self.opt.HasField("scale_filler") else caffe_pb2.FillerParameter(value=1)
        self.add_blob("scale", shape, fill, trained=not self.opt.fix_scale)

    def _setup_plain(self) -> None:
        param = self.spec.normalize_param
        known = param.normalize_type in ("L1", "L2")
        self.require(known, f'normalize_type is "{param.normalize_type}", expected "L1" or "L2"')
        self.require(not param.fix_gradient, "fix_gradient is not implemented; remove it to train by the true gradient")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.scaled:
            axes = list(range(1, x.dim())) if self.opt.across_spatial else [1]
            y = x / (x.square().sum(axes, keepdim=True) + self.opt.eps).sqrt()
            return y * (self.scale if self.opt.channel_shared else self.scale.reshape(-1, *[1] * (x.dim() - 2)))
        param = self.spec.normalize_param
        if param.normalize_type == "L1":
            norm = x.abs().sum(1, keepdim=True) + 1e-6
        else:
            norm = (x.square().sum(1, keepdim=True) + 1e-6).sqrt()
        if self.top_count == 1:
            return x / norm
        return x / norm, norm if param.bp_norm else norm.detach()


class SimpleNormalize(Layer):
    """Scales each item to length 1.

    bottom x (N, ...), top y of the same shape

        y = x / sqrt(sum x^2), the sum over all axes but the first

    Source: the first Normalize of happynear/caffe-windows, under its name in yuqj1991's fork.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")

    def forward(self, x: Tensor) -> Tensor:
        return x * x.square().sum(list(range(1, x.dim())), keepdim=True).rsqrt()


def _parts(t: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    """Split `t` along the batch axis; on the CPU, so that a part of `like` has about a megabyte."""
    if like.device.type != "cpu" or not like.numel():
        return (t,)
    return t.split(max(1, 2**18 * len(like) // like.numel()))


def _add_neighbours(total: Tensor, x: Tensor, reach: int, factor: float) -> Tensor:
    """total[:, c] + factor (x[:, c - reach ... c + reach] without x[:, c]), in place."""
    for step in range(1, reach + 1):
        total[:, step:].add_(x[:, :-step], alpha=factor)
        total[:, :-step].add_(x[:, step:], alpha=factor)
    return total


def _write(out: Tensor, operation: Any, *operands: Tensor, **options: Any) -> None:
    """Store the operation's result in `out`. For a narrower type torch's `out=` would use another memory order."""
    if out.dtype == operands[0].dtype:
        operation(*operands, out=out, **options)
    else:
        out.copy_(operation(*operands, **options))


def _inverse_power(s: Tensor, beta: float) -> Tensor:
    """s ^ -beta. The usual beta 3/4 is computed with square roots, which are much faster than a power."""
    if beta != 0.75:
        return s**-beta
    root = s.rsqrt()
    return root.sqrt() * root
