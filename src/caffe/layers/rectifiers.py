"""Activations of forks: variants of ReLU, and layers that multiply by random numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.activation import RandomInTraining
from caffe.layers.base import Layer, Lowering, Records, shape_text
from caffe.layers.support.limited import limited
from caffe.proto import caffe_pb2

__all__ = ["APL", "SELU", "CReLU", "EltwiseAffine", "HardSigmoid", "HardSwish", "Insanity", "Mish", "NegReLU", "Noise"]
__all__ += ["RReLU", "ReLU6", "SELUDropout", "ScaleFilter", "SeLU", "SeLUDropout", "SpatialDropout"]


class ReLU6(Layer):
    """ReLU with an upper limit of 6.

    bottom x, top y of the same shape

        y = min(max(x, 0), 6)

    Source: Howard et al., arXiv:1704.04861 (MobileNet).
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(
            not self.opt.negative_slope, "negative_slope is not implemented; remove it, or write ReLU and Clip"
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)


class NegReLU(Layer, options="relu_param"):
    """The negative part of x, which ReLU sets to 0.

    bottom x, top y of the same shape

        y = min(x, 0)

    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), neg_relu_layer.cpp.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(not self.opt.negative_slope, "negative_slope is not implemented; remove it")

    def forward(self, x: Tensor) -> Tensor:
        return -F.relu(-x)


class CReLU(Layer):
    """Concatenates ReLU(x) and ReLU(-x) along the channels.

    bottom x (N, C, ...), top y (N, 2 C, ...)

        y[:, :C] = max(x, 0),  y[:, C:] = max(-x, 0)

    Source: Shang et al., arXiv:1603.05201.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(x), F.relu(-x)], 1)


class Mish(Layer):
    """A smooth, non-monotonic variant of ReLU.

    bottom x, top y of the same shape

        y = x tanh(log(1 + exp(x)))

    Source: Misra, arXiv:1908.08681; ChenYingpeng/darknet2caffe (YOLOv4).
    """

    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(x)


class SELU(Layer):
    """Scaled exponential linear unit, which keeps mean 0 and variance 1 through a net.

    bottom x, top y of the same shape

        y = lambda x if x > 0 else lambda alpha (exp(x) - 1)

    Source: Klambauer et al., arXiv:1706.02515; jolibrain/caffe.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.factor = getattr(self.opt, "lambda")

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.opt.alpha) * self.factor


class SeLU(SELU, options="selu_param"):
    """SELU under the name that the sources of jolibrain's fork and of Synopsys' Caffe use.

    bottom x, top y of the same shape

        y = lambda x if x > 0 else lambda alpha (exp(x) - 1)

    Source: Klambauer et al., arXiv:1706.02515; Synopsys' Caffe, selu_layer.cpp.
    """


class HardSigmoid(Layer):
    """A sigmoid of three straight lines.

    bottom x, top y of the same shape

        y = min(max(alpha x + beta, 0), 1), by default 0.2 x + 0.5

    MobileNet v3 divides by 6: alpha is 0.166667 there.
    Source: Synopsys' Caffe, hard_sigmoid_layer.cpp; eric612/MobileNet-YOLO.
    """

    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        return limited(x * self.opt.alpha + self.opt.beta, 0, 1)


class HardSwish(Layer):
    """x times a sigmoid of three straight lines.

    bottom x, top y of the same shape

        y = x min(max(x + 3, 0), 6) / 6

    Source: Howard et al., arXiv:1905.02244 (MobileNet v3); Synopsys' Caffe, hard_swish_layer.cpp.
    """

    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x)


class SELUDropout(RandomInTraining, options="selu_dropout_param"):
    """Sets a random share of the elements to alpha in training, then restores mean 0 and variance 1.

    bottom x, top y of the same shape, q = 1 - dropout_ratio

        TRAIN  y = a (x or alpha) + b,  a = (q + q (1 - q) alpha^2)^-1/2,  b = -a (1 - q) alpha        TEST  y = x

    Source: Klambauer et al., arXiv:1706.02515; jolibrain/caffe, selu_dropout_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        ratio, alpha = self.opt.dropout_ratio, self.opt.alpha
        self.require(0 < ratio < 1, f"dropout_ratio is {ratio:g}, expected a number above 0 and below 1")
        self.factor = ((1 - ratio) * (1 + ratio * alpha**2)) ** -0.5
        self.offset = -self.factor * ratio * alpha

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand_like(x) >= self.opt.dropout_ratio
        return torch.where(kept, x, self.opt.alpha) * self.factor + self.offset


class SeLUDropout(SELUDropout, options="selu_dropout_param"):
    """SELUDropout under the name that the sources of Synopsys' Caffe use.

    bottom x, top y of the same shape, equation as for SELUDropout

    Source: Synopsys' Caffe, selu_dropout_layer.cpp.
    """


class Insanity(RandomInTraining):
    """Randomized leaky ReLU: in training, each negative element is divided by a random number.

    bottom x, top y of the same shape

        TRAIN  y = x if x > 0 else x / r, r uniform in [lb, ub)
        TEST   y = x if x > 0 else x / ((ub - lb) / (log ub - log lb)); the mean of 1 / r

    Source: Xu et al., arXiv:1505.00853; happynear/caffe-windows, insanity_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        low, high = self.opt.lb, self.opt.ub
        self.require(0 < low <= high, f"lb {low:g} and ub {high:g} must be positive, and lb not above ub")
        self.mean = low if low == high else (high - low) / (math.log(high) - math.log(low))

    def forward(self, x: Tensor) -> Tensor:
        by = torch.empty_like(x).uniform_(self.opt.lb, self.opt.ub) if self.training else self.mean
        return torch.where(x > 0, x, x / by)


class RReLU(RandomInTraining):
    """Randomized leaky ReLU: in training, each negative element is divided by a random number.

    bottom x, top y of the same shape, a = negative_slope_lower, b = negative_slope_upper

        TRAIN  y = x if x > 0 else x / r, r uniform in [a, b)
        TEST   y = x if x > 0 else 2 x / (a + b)

    Insanity has another divisor in TEST.
    Source: Xu et al., arXiv:1505.00853; happynear/caffe-windows, rrelu_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        for name in ("negative_slope_lower", "negative_slope_upper"):
            self.require(self.opt.HasField(name), f"{name} must be given")
        low, high = self.opt.negative_slope_lower, self.opt.negative_slope_upper
        fact = f"negative_slope_lower {low:g} and negative_slope_upper {high:g} must be positive"
        self.require(0 < low <= high, f"{fact}, and the lower not above the upper")
        self.mean = (low + high) / 2

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.opt.negative_slope_lower, self.opt.negative_slope_upper
        by = torch.empty_like(x).uniform_(low, high) if self.training else self.mean
        return torch.where(x > 0, x, x / by)


class ScaleFilter(RandomInTraining):
    """Multiplies each channel of each item by a random number in training.

    bottom x (N, C, ...), top y of the same shape

        TRAIN  y[n, c] = r x[n, c], r uniform in [min_scale, max_scale)        TEST  y = x

    Source: OpenVINO training toolbox, scale_filter_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        for name in ("min_scale", "max_scale"):
            self.require(self.opt.HasField(name), f"{name} must be given")
        fact = f"min_scale {self.opt.min_scale:g} is above max_scale {self.opt.max_scale:g}"
        self.require(self.opt.min_scale <= self.opt.max_scale, fact)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        scales = x.new_empty(*x.shape[:2], *[1] * (x.dim() - 2))
        return x * scales.uniform_(self.opt.min_scale, self.opt.max_scale)


class SpatialDropout(RandomInTraining):
    """Sets a random share of the channels to zero in training and scales up the others.

    bottom x (N, C, ...), top y of the same shape

        TRAIN  y[n, c] = mask[n, c] x[n, c] / (1 - dropout_ratio)        TEST  y = x

    Source: Tompson et al., arXiv:1411.4280; TimoSaemann/caffe-enet, spatial_dropout_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        fact = f"dropout_ratio is {self.opt.dropout_ratio:g}, expected a number above 0 and below 1"
        self.require(0 < self.opt.dropout_ratio < 1, fact)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * F.dropout(x.new_ones(*x.shape[:2], *[1] * (x.dim() - 2)), self.opt.dropout_ratio)


class EltwiseAffine(Layer):
    """Applies a learned slope and offset, for each channel or one for all.

    bottom x (N, C, ...), top y of the same shape

        y = slope[c] x + offset[c]

    Blobs: slope, offset, each (C), or () with channel_shared. The default values are 1.0001 and 0.0001.
    Source: happynear/caffe-windows, eltwise_affine_layer.cpp.
    """

    slope: Tensor
    offset: Tensor

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        shape = () if opt.channel_shared else (x.shape[1],)
        for name, field, first in (("slope", "slope_filler", 1.0001), ("offset", "bias_filler", 0.0001)):
            given = getattr(opt, field) if opt.HasField(field) else caffe_pb2.FillerParameter(value=first)
            self.add_blob(name, shape, given)

    def forward(self, x: Tensor) -> Tensor:
        each = (-1, *[1] * (x.dim() - 2))
        return x * self.slope.reshape(each) + self.offset.reshape(each)


class Noise(RandomInTraining):
    """Adds normally distributed noise in training.

    bottom x, top y of the same shape

        TRAIN  y = x + bias + gaussian_std z, z standard normal        TEST  y = x

    Source: happynear/caffe-windows, noise_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(self.opt.gaussian_std > 0, "gaussian_std must be given and positive")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.opt.bias + self.opt.gaussian_std * torch.randn_like(x) if self.training else x


class APL(Layer):
    """Adaptive piecewise linear unit: ReLU with learned hinges for each element of an item.

    bottom x (N, ...) of K elements an item, top y of the same shape

        y = max(x, 0) + sum over s of slope[s] max(offset[s] - x, 0)

    Blobs: slope, offset, each (1, 1, sums, K), stored as K rows of `sums` values. The default fillers are uniform in
    +-0.5 / sums for slope and gaussian with std 0.5 for offset. decay_mult and save_mem have no effect.
    Source: Agostinelli et al., arXiv:1412.6830, apl_layer.cpp.
    """

    without_effect = (
        "decay_mult",
        "save_mem",
    )

    slope: Tensor
    offset: Tensor

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(opt.sums > 0, "sums must be given and positive")
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, ...)")
        shape = (1, 1, opt.sums, x.shape[1:].numel())
        uniform = caffe_pb2.FillerParameter(type="uniform", min=-0.5 / opt.sums, max=0.5 / opt.sums)
        normal = caffe_pb2.FillerParameter(type="gaussian", std=0.5)
        self.add_blob("slope", shape, opt.slope_filler if opt.HasField("slope_filler") else uniform)
        self.add_blob("offset", shape, opt.offset_filler if opt.HasField("offset_filler") else normal)

    def forward(self, x: Tensor) -> Tensor:
        slope, offset = (blob.reshape(-1, self.opt.sums) for blob in (self.slope, self.offset))
        hinges = F.relu(offset - x.flatten(1).unsqueeze(2))
        return F.relu(x) + (hinges * slope).sum(2).view(x.shape)
