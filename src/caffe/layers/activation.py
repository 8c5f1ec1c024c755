"""Activation functions, which act on each element separately."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, is_exported
from caffe.layers.support.limited import limited
from caffe.parallel.group import ALONE, Group
from caffe.proto import caffe_pb2

__all__ = [
    "BNLL",
    "ELU",
    "AbsVal",
    "Clip",
    "Dropout",
    "Exp",
    "Log",
    "PReLU",
    "Power",
    "ReLU",
    "Sigmoid",
    "Swish",
    "TanH",
    "Threshold",
]


class AbsVal(Layer):
    """Absolute value.

    bottom x, top y of the same shape

        y = |x|

    Source: BVLC absval_layer.cpp.
    """

    records = Records.EACH

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class BNLL(Layer):
    """Binomial normal log likelihood, a smooth ReLU.

    bottom x, top y of the same shape

        y = log(1 + exp(x))

    The gradient is exact for x up to 50, as in Caffe.
    Source: BVLC bnll_layer.cpp.
    """

    records = Records.EACH

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, threshold=50)


class Clip(Layer):
    """Clamps values to a range. Clamped values get no gradient; values equal to a limit do.

    bottom x, top y of the same shape

        y = max(min, min(x, max))

    If `min` is greater than `max`, every output is `min`.
    Source: BVLC clip_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        return limited(x, self.opt.min, max(self.opt.min, self.opt.max))


class ELU(Layer):
    """Exponential linear unit.

    bottom x, top y of the same shape

        y = x if x > 0 else alpha (exp(x) - 1)

    Source: Clevert et al., arXiv:1511.07289; BVLC elu_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.opt.alpha)


class Exp(Layer):
    """Exponential function with a configurable base.

    bottom x, top y of the same shape

        y = base ^ (shift + scale x)

    The default base -1 stands for e.
    Source: BVLC exp_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        self.rate = _log_base(self)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.rate * self.opt.scale, self.rate * self.opt.shift
        return torch.exp(x * scale + shift if shift else x * scale)


class Log(Layer):
    """Logarithm with a configurable base.

    bottom x, top y of the same shape

        y = log_base(shift + scale x)

    The default base -1 stands for e.
    Source: BVLC log_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        self.rate = _log_base(self)
        self.require(self.rate != 0, "base 1 has no logarithm; give another base, or none for e")

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x * self.opt.scale + self.opt.shift) / self.rate


class Power(Layer):
    """Power of a linear function.

    bottom x, top y of the same shape

        y = (shift + scale x) ^ power

    If `scale` or `power` is 0, y is constant and its gradient is 0, also where the formula's derivative is undefined.
    Source: BVLC power_layer.cpp.
    """

    records = Records.EACH

    def forward(self, x: Tensor) -> Tensor:
        power, scale, shift = self.opt.power, self.opt.scale, self.opt.shift
        if power == 0 or scale == 0:
            return torch.where(torch.zeros_like(x, dtype=torch.bool), x, torch.full_like(x, shift) ** power)
        inner = x if (scale, shift) == (1, 0) else x * scale + shift
        return inner**power if power != 1 else inner


class PReLU(Layer):
    """ReLU with a learned slope for negative values: one slope for each channel, or one for all.

    bottom x (N, C, ...), top y of the same shape

        y = x if x > 0 else weight[c] x

    Blob: weight (C), or () with `channel_shared`. Its default value is 0.25.
    Source: He et al., arXiv:1502.01852; BVLC prelu_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW
    weight: Tensor

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() >= 2, f"{self.bottom_name(0)} has {x.dim()} axes, expected at least 2: (N, C, ...)")
        quarter = caffe_pb2.FillerParameter(type="constant", value=0.25)
        fill = self.opt.filler if self.opt.HasField("filler") else quarter
        self.add_blob("weight", () if self.opt.channel_shared else (x.shape[1],), fill)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if weight.dim() and x.shape[1] != len(weight):
            self.error(f"{self.bottom_name(0)} has {x.shape[1]} channels, the layer was set up for {len(weight)}")
        weight = weight.to(x.dtype)
        if torch.is_grad_enabled() and not is_exported():
            y: Tensor = _PReLU.apply(x, weight)
            return y
        return F.prelu(x, weight)


class ReLU(Layer):
    """Rectified linear unit. With a `negative_slope` other than 0 it is a leaky ReLU.

    bottom x, top y of the same shape

        y = x if x > 0 else negative_slope x

    Source: Nair and Hinton, ICML 2010; BVLC relu_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        slope = self.opt.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)


class Sigmoid(Layer):
    """Logistic function.

    bottom x, top y of the same shape

        y = 1 / (1 + exp(-x))

    Source: BVLC sigmoid_layer.cpp.
    """

    records = Records.EACH

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()


class Swish(Layer):
    """A smooth, non-monotonic variant of ReLU. With beta 1 it is also known as SiLU.

    bottom x, top y of the same shape

        y = x sigmoid(beta x)

    Source: Ramachandran et al., arXiv:1710.05941; BVLC swish_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def forward(self, x: Tensor) -> Tensor:
        beta = self.opt.beta
        return F.silu(x) if beta == 1 else x * torch.sigmoid(x * beta)


class TanH(Layer):
    """Hyperbolic tangent.

    bottom x, top y of the same shape

        y = tanh(x)

    Source: BVLC tanh_layer.cpp.
    """

    records = Records.EACH

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


class Threshold(Layer):
    """Compares each element with a threshold. The layer has no gradient.

    bottom x, top y of the same shape

        y = 1 if x > threshold else 0

    Source: BVLC threshold_layer.cpp.
    """

    records = Records.EACH
    constant = (0,)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.opt.threshold).to(x.dtype)


class RandomInTraining(Layer, abstract=True):
    """Base of the layers that draw random numbers in TRAIN only."""

    effects = Effects.RANDOM

    @property
    def draws(self) -> bool:
        """Whether a forward pass draws random numbers now."""
        return self.training

    @property
    def effects_now(self) -> Effects:
        return self.effects if self.draws else Effects.NONE


class Dropout(RandomInTraining):
    """Sets a random share of the elements to zero in training, and scales the others to keep the expected value.

    bottom x, top y of the same shape

        TRAIN  y = mask x / (1 - dropout_ratio), mask = 1 with probability 1 - dropout_ratio
        TEST   y = x
        scale_train: false       TRAIN  y = mask x        TEST  y = (1 - dropout_ratio) x
        sample_weights_test      TEST as TRAIN

    `net.monte_carlo()` makes a net in TEST draw masks too. As in Caffe, a ratio outside [0, 1] is an error only when
    a forward pass in TRAIN uses it.
    Source: Srivastava et al., JMLR 2014; BVLC dropout_layer.cpp; py-faster-rcnn (scale_train); SegNet.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW
    honours = ("DropoutParameter.scale_train", "DropoutParameter.sample_weights_test")
    processes: Group = ALONE  # the processes that draw one common mask for all of their batches

    @property
    def draws(self) -> bool:
        return self.training or bool(self.opt.sample_weights_test)

    def forward(self, x: Tensor) -> Tensor:
        ratio, scaled = self.opt.dropout_ratio, self.opt.scale_train
        if not self.draws:
            return x if scaled else x * (1 - ratio)
        if not 0 <= ratio <= 1:
            return x if x.is_meta else self.error(f"dropout_ratio {ratio:g} is not a probability; give one from 0 to 1")
        if self.processes.size > 1 and not x.is_meta:
            return x * self._mask(x, ratio)
        return F.dropout(x, ratio) if scaled else x * torch.empty_like(x).bernoulli_(1 - ratio)

    def _mask(self, x: Tensor, ratio: float) -> Tensor:
        """This process's rows of the common mask, which covers the batches of all processes."""
        rank, size = self.processes.rank, self.processes.size
        order = torch.channels_last if x.dim() == 4 and not x.is_contiguous() else torch.contiguous_format
        whole = torch.ones((len(x) * size, *x.shape[1:]), dtype=x.dtype, device=x.device).to(memory_format=order)
        drawn = F.dropout(whole, ratio) if self.opt.scale_train else torch.empty_like(whole).bernoulli_(1 - ratio)
        return drawn[rank::size]


class _PReLU(torch.autograd.Function):
    """torch's prelu with a branch-free backward pass, which is several times faster on the CPU.

    dx = dy where x > 0, else w dy;  dw[c] = sum of x dy where x <= 0
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.prelu(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        over = torch.ops.aten.threshold_backward(dy, x, 0)
        under = dy - over
        slopes = weight.reshape(-1, *(1,) * (x.dim() - 2))
        return over.addcmul(under, slopes), (under * x).sum_to_size(slopes.shape).view_as(weight)


def _log_base(layer: Layer) -> float:
    """The natural logarithm of the option `base`. A base of -1 means e."""
    base = layer.opt.base
    if base == -1:
        return 1.0
    layer.require(0 < base < math.inf, f"base {base:g} must be positive and finite, or -1 for e")
    return math.log(base)
