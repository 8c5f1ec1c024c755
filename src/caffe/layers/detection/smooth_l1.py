"""SmoothL1Loss, the regression loss of bounding boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Loss, shape_text
from caffe.layers.loss import same_batch

__all__ = ["SmoothL1Loss", "smooth_l1"]


class SmoothL1Loss(Loss, bottoms=(2, 4)):
    """A loss that is quadratic for small differences and linear for large ones.

    bottoms: a (N, ...), b with as many elements; optionally the weights w_in and w_out, both 1 by default
    top: loss ()

        d = w_in (a - b);   f(d) = sigma^2 d^2 / 2 for |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2)
        loss = sum w_out f(d) / N

    Three bottoms are used by SSD and Fast R-CNN, four by Faster R-CNN. The weights get no gradient.
    Source: Girshick, arXiv:1504.08083, smooth_L1_loss_layer.cu.
    """

    constant = (2, 3)
    exempt = (2, 3)
    more_options = ("smoothl1_param",)
    effects = Effects.NONE

    def setup(self, a: Tensor, *others: Tensor) -> None:
        given = [name for name in ("smooth_l1_loss_param", "smoothl1_param") if self.spec.HasField(name)]
        self.require(len(given) < 2, f"has {' and '.join(given)}; keep one")
        self.sigma = getattr(self.spec, given[0]).sigma if given else 1.0
        self.require(self.sigma > 0, f"sigma is {self.sigma:g}, expected a number above 0")
        for index, x in enumerate(others, 1):
            same_batch(self, a, x)
            fact = f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, {self.bottom_name(0)}"
            self.require(a.numel() == x.numel(), f"{fact} {shape_text(a.shape)}; expected equal counts per item")

    def forward(self, a: Tensor, b: Tensor, inside: Tensor | None = None, outside: Tensor | None = None) -> Tensor:
        d = a - b.reshape(a.shape)
        if inside is not None:
            d = d * inside.detach().reshape(a.shape)
        cost = smooth_l1(d, self.sigma)
        if outside is not None:
            cost = cost * outside.detach().reshape(a.shape)
        return cost.sum() / a.shape[0]


def smooth_l1(d: Tensor, sigma: float = 1) -> Tensor:
    """f(d) of SmoothL1Loss, in functions that all engines support."""
    size, edge = d.abs(), 1 / sigma**2
    return torch.where(size < edge, d.square() * (sigma**2 / 2), size - edge / 2)
