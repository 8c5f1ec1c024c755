"""C3D's layers for videos, whose blobs are (N, C, L, H, W) with L frames."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, Loss, Lowering, shape_text
from caffe.layers.convolution import Convolution, Deconvolution, convolve, deconvolve
from caffe.layers.loss import FLT_MIN, floored
from caffe.layers.softmax import Softmax
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.geometry import Slide, margins, pad_axes
from caffe.layers.support.labels import class_labels
from caffe.proto import caffe_pb2

__all__ = ["Convolution3D", "Deconvolution3D", "Pooling3D", "VoxelSoftmax", "VoxelSoftmaxWithLoss"]

_CONVOLUTION = ("kernel_depth", "temporal_stride", "temporal_pad", "filter_group")
_POOLING = ("kernel_depth", "temporal_stride")
MAX, AVE = caffe_pb2.PoolingParameter.MAX, caffe_pb2.PoolingParameter.AVE


class _Video(Layer, abstract=True):
    """Base of the layers here that have a window. Their options are in one of two fields."""

    def options_of(self, other: str) -> None:
        """Read the options from the field `other` of C3D 1.1, if it is given."""
        mine = str(self.options)
        both = self.spec.HasField(other) and self.spec.HasField(mine)
        self.require(not both, f"has {other} (C3D 1.1) and {mine} (C3D 1.0); keep one")
        if self.spec.HasField(other):
            self.opt = getattr(self.spec, other)

    def video(self, x: Tensor) -> None:
        """Raise an error unless the bottom has exactly five axes."""
        self.require(x.dim() == 5, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, L, H, W)")

    def single(self, name: str, default: int) -> int:
        """An option that is given at most once, for both height and width."""
        value = getattr(self.opt, name)
        if isinstance(value, int):
            return value if self.opt.HasField(name) else default
        values = list(value)
        self.require(len(values) <= 1, f"{name} is given {len(values)} times; give one for height and width")
        return values[0] if values else default

    def without_sides(self) -> None:
        """Raise an error if height and width are given separately."""
        sides = [f"{n}_{s}" for n in ("kernel", "stride", "pad") for s in "hw" if _has(self.opt, f"{n}_{s}")]
        self.require(not sides, f"{', '.join(sides)} is not C3D's; give one size for height and width")

    def spans(self, padded: str) -> Slide:
        """The window that the options describe, frames first."""
        size, depth = self.single("kernel_size", 0), self.opt.kernel_depth
        self.require(size > 0 and depth > 0, "kernel_size and kernel_depth must be given and positive")
        stride, pad = self.single("stride", 1), self.single("pad", 0)
        steps = (self.opt.temporal_stride, stride, stride)
        self.require(min(steps) > 0, f"temporal_stride and stride {steps[:2]} must be positive")
        before = getattr(self.opt, padded) if padded else 0
        return Slide((depth, size, size), steps, (before, pad, pad), (1, 1, 1))


class _Filter3D(_Video, abstract=True):
    """Base of Convolution3D and Deconvolution3D: their common options."""

    bias_axes: tuple[int, ...] = (1, 1, 1, 1)
    more_options = ("convolution3d_param",)
    honours = tuple(f"ConvolutionParameter.{name}" for name in _CONVOLUTION)

    def channel_axis(self, x: Tensor) -> int:
        """1; C3D has no option for it."""
        self.options_of("convolution3d_param")
        self.video(x)
        return 1

    def window(self, axes: int) -> Slide:
        """Kernel, stride and padding for frames, height and width."""
        self.without_sides()
        spread = _has(self.opt, "dilation") and any(d != 1 for d in self.opt.dilation)
        self.require(not spread, "dilation is not C3D's; remove it, or write Convolution with a bottom of 5 axes")
        return self.spans("temporal_pad")

    def counts(self, channels: int) -> tuple[int, int]:
        """The number of channels of the top, and one group: C3D's groups save memory and do not change results."""
        fact = f"group is {self.opt.group}; C3D has no groups. Write Convolution with a bottom of 5 axes"
        self.require(self.opt.group == 1, fact)
        self.require(self.opt.num_output > 0, "num_output must be given and positive")
        return self.opt.num_output, 1


class Convolution3D(_Filter3D, Convolution, options="convolution_param"):
    """Convolution over frames, rows and columns.

    bottom x (N, C, L, H, W), top y (N, num_output, L', H', W')
    L' = (L + 2 temporal_pad - kernel_depth) / temporal_stride + 1; H', W' with pad, kernel_size and stride

        y[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, stride p - pad + k]

    Blobs: weight (num_output, C, depth, size, size), bias (1, 1, 1, 1, num_output). The options are in
    convolution3d_param or, as in C3D 1.0, in convolution_param. filter_group does not change the result.
    Source: Tran et al., arXiv:1412.0767 (C3D).
    """

    def filter(self, x: Tensor) -> Tensor:
        lack = margins(self, self.slide, x.shape[2:])
        x = pad_axes(x, [0] * len(lack), lack)
        return convolve(x, self.weight, None if self.bias is None else self.bias.flatten(), self.slide, 1)


class Deconvolution3D(_Filter3D, Deconvolution, options="convolution_param"):
    """Transposed convolution over frames, rows and columns.

    bottom x (N, C, L, H, W), top y (N, num_output, L', H', W')
    L' = temporal_stride (L - 1) + kernel_depth - 2 temporal_pad; H', W' with stride, kernel_size and pad

        y[n, o, stride p - pad + k] = bias[o] + sum over c, p, k of weight[c, o, k] x[n, c, p]

    Blobs: weight (C, num_output, depth, size, size), bias (1, 1, 1, 1, num_output); options as for Convolution3D.
    Source: Tran et al., arXiv:1412.0767 (C3D), deconvolution3d_layer.cpp.
    """

    def filter(self, x: Tensor) -> Tensor:
        self.check_size(x.shape[2:])
        return deconvolve(x, self.weight, None if self.bias is None else self.bias.flatten(), self.slide, 1)


class Pooling3D(_Video, options="pooling_param"):
    """Maximum or mean of each channel over a sliding window of frames, rows and columns.

    bottom x (N, C, L, H, W), top y (N, C, L', H', W'); L' = ceil((L - kernel_depth) / temporal_stride) + 1,
    H' = ceil((H + 2 pad - kernel_size) / stride) + 1, W' likewise

        MAX  y = max of x over the window        AVE  y = sum of x / cells of the window that lie in the padded video

    Of equal maxima only the first gets the gradient; in C3D each does. The options are in pooling3d_param or, as in C3D
    1.0, in pooling_param. pad is for AVE only.
    Source: Tran et al., arXiv:1412.0767 (C3D), pool3d_layer.cpp.
    """

    lowering = Lowering.FOLLOW
    more_options = ("pooling3d_param",)
    honours = tuple(f"PoolingParameter.{name}" for name in _POOLING)

    def setup(self, x: Tensor) -> None:
        self.options_of("pooling3d_param")
        self.video(x)
        self.require(self.opt.pool in (MAX, AVE), "pool: STOCHASTIC is not implemented in C3D; write MAX or AVE")
        self.without_sides()
        others = [name for name in ("global_pooling", "round_mode") if _has(self.opt, name)]
        self.require(not others, f"{', '.join(others)} is not an option of C3D's pooling; remove it")
        self.slide = self.spans("")
        self.require(self.opt.pool == AVE or not any(self.slide.pad), "pad is for pool: AVE only, as in C3D")
        self.reach(x)

    def forward(self, x: Tensor) -> Tensor:
        slide, reach = self.slide, self.reach(x)
        behind = [far - n - p for far, n, p in zip(reach, x.shape[2:], slide.pad, strict=True)]
        if self.opt.pool == MAX:
            return F.max_pool3d(pad_axes(x, slide.pad, behind, torch.finfo(x.dtype).min), slide.kernel, slide.stride)
        y = F.avg_pool3d(pad_axes(x, slide.pad, behind), slide.kernel, slide.stride)
        for axis, (n, k, s, p) in enumerate(zip(x.shape[2:], slide.kernel, slide.stride, slide.pad, strict=True)):
            left = (n + 2 * p - torch.arange(y.shape[2 + axis], device=x.device) * s).clamp(max=k)
            y = y * (k / left.to(y.dtype)).view(-1, *[1] * (2 - axis))
        return y

    def reach(self, x: Tensor) -> list[int]:
        """The number of cells that the windows cover, including padding, for frames, rows and columns."""
        slide, found = self.slide, []
        for n, k, s, p in zip(x.shape[2:], slide.kernel, slide.stride, slide.pad, strict=True):
            count = -(-(n + 2 * p - k) // s) + 1
            fits = count > 0 and p < k and (count - 1) * s < n + p
            fact = f"windows of {slide.kernel} with stride {slide.stride} and pad {slide.pad}"
            self.require(fits, f"{fact} do not fit a bottom of {shape_text(x.shape[2:])}: some hold no cell")
            found.append(max((count - 1) * s + k, n + p))
        return found


class VoxelSoftmax(Softmax, options="softmax_param"):
    """Scores to probabilities over the channels of each voxel: Softmax along axis 1.

    bottom x (N, C, L, H, W), top y of the same shape

        y = exp(x - max x) / sum exp(x - max x)

    Source: C3D 1.0 (Tran et al., arXiv:1511.06681, voxel to voxel), voxel_wise_softmax_layer.cpp.
    """


class VoxelSoftmaxWithLoss(Loss, bottoms=2, options="softmax_param"):
    """Multinomial logistic loss of the softmax over the channels of each voxel.

    bottoms: scores x (N, C, L, H, W), labels (N, 1, L, H, W)   top: loss ()

        loss = -sum over voxels with label < C of log max(softmax(x)[label], FLT_MIN) / (N L H W)

    The gradient ignores the clamp. A label of C or more adds nothing to the loss, but its voxel has the gradient
    softmax(x) / (N L H W), as in the source.
    Source: C3D 1.0, voxel_wise_softmax_loss_layer.cpp.
    """

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.require(x.dim() > 2, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, L, H, W)")
        items = x.numel() // x.shape[1] if x.shape[1] else 0
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {items}: one for each voxel of shape"
        self.require(label.numel() == items, f"{fact} {shape_text(x.shape)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        rows = x.flatten(2)
        classes = rows.shape[1]
        raw = label.detach().reshape(rows.shape[0], -1)
        beyond = raw >= classes
        index = class_labels(self, raw.where(~beyond, 0), classes)
        log = F.log_softmax(rows, 1)
        picked = floored(log.gather(1, index.unsqueeze(1)).squeeze(1), math.log(FLT_MIN))
        cost = torch.where(beyond, _all_scores(rows, beyond), -picked)
        return cost.sum() / max(1, raw.numel())


def _all_scores(rows: Tensor, beyond: Tensor) -> Tensor:
    """0 with the gradient softmax(rows), for voxels whose label is not a class."""
    if is_exact():
        if bool(beyond.any()):
            tell(f"{int(beyond.sum())} of {beyond.numel()} labels are not a class")
        return torch.zeros_like(rows[:, 0])
    total = rows.logsumexp(1)
    return total - total.detach()


def _has(opt: Any, name: str) -> bool:
    """Whether the options have the field and give it."""
    return any(field.name == name for field, _ in opt.ListFields())
