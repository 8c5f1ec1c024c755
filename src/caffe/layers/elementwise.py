"""Element-wise arithmetic of blobs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Layer, Lowering, Records, shape_text
from caffe.proto import caffe_pb2

PROD, SUM, MAX = (caffe_pb2.EltwiseParameter.EltwiseOp.Value(name) for name in ("PROD", "SUM", "MAX"))


class Eltwise(Layer, bottoms=(2, None)):
    """Element-wise sum, product or maximum of blobs.

    bottoms x_1 ... x_n and top y, all of one shape

        SUM   y = sum of coeff_i x_i          PROD  y = product of x_i        MAX  y = largest x_i

    The gradient of MAX goes to one bottom. In a tie the second bottom wins over the first, and both win over later
    ones. With stable_prod_grad: false the gradient of PROD is dy y / x_i, which is NaN where x_i is 0.
    Source: BVLC eltwise_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        for i, x in enumerate(bottoms):
            shapes = f"{shape_text(x.shape)}, {self.bottom_name(0)} has {shape_text(bottoms[0].shape)}"
            self.require(
                x.shape == bottoms[0].shape, f"{self.bottom_name(i)} has shape {shapes}; expected equal shapes"
            )
        self.forgets_top = self.opt.operation == SUM
        self.coeff, coeffs = list(self.opt.coeff) or [1.0] * len(bottoms), len(self.opt.coeff)
        fact = f"has {coeffs} coeff and {len(bottoms)} bottoms; give none, or one for each bottom"
        self.require(coeffs in (0, len(bottoms)), fact)
        self.require(not (coeffs and self.opt.operation == PROD), "coeff works with operation SUM only, not with PROD")
        if coeffs and self.opt.operation == MAX:
            log.warning("eltwise_layer.cpp:10", f'layer "{self.name}" (Eltwise): operation MAX does not use coeff')

    def forward(self, *bottoms: Tensor) -> Tensor:
        if self.opt.operation == MAX:
            first = torch.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])
            return functools.reduce(lambda y, x: torch.where(x > y, x, y), bottoms[2:], first)
        if self.opt.operation == PROD:
            return functools.reduce(torch.mul, bottoms) if self.opt.stable_prod_grad else _Product.apply(*bottoms)
        y = bottoms[0] if self.coeff[0] == 1 else bottoms[0] * self.coeff[0]
        for x, c in zip(bottoms[1:], self.coeff[1:], strict=True):
            y = torch.add(y, x, alpha=c)
        return y


class _Product(torch.autograd.Function):
    """A product whose gradient for a factor is product / factor, as in Caffe with stable_prod_grad: false."""

    @staticmethod
    def forward(ctx: Any, *factors: Tensor) -> Tensor:
        y = functools.reduce(torch.mul, factors)
        ctx.save_for_backward(y, *factors)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        y, *factors = ctx.saved_tensors
        return tuple(grads[0] * (y / x) for x in factors)


class Axpy(Layer, bottoms=3):
    """Scales each channel of x and adds y: the excitation and the shortcut of SENet.

    bottoms: a (N, C) or (N, C, 1, 1), x (N, C, ...), y of x's shape   top z of x's shape

        z[n, c, p] = a[n, c] x[n, c, p] + y[n, c, p]

    Source: Hu et al., arXiv:1709.01507 (SENet), axpy_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, a: Tensor, x: Tensor, y: Tensor) -> None:
        fact = f"{self.bottom_name(1)} has shape {shape_text(x.shape)}, {self.bottom_name(2)} {shape_text(y.shape)}"
        self.require(x.dim() > 1 and x.shape == y.shape, f"{fact}; expected equal shapes (N, C, ...)")
        fact = f"{self.bottom_name(0)} has shape {shape_text(a.shape)}"
        fits = a.shape[:2] == x.shape[:2] and a.numel() == x.shape[:2].numel()
        self.require(fits, f"{fact}, expected one number for each of {x.shape[0]} x {x.shape[1]} channels")

    def forward(self, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.addcmul(y, a.reshape(*x.shape[:2], *[1] * (x.dim() - 2)), x)
