"""Losses of face recognition: class centres, angular margins and triplets."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, has_values, shape_text
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import class_labels
from caffe.layers.support.products import linear

__all__ = ["Arcface", "CenterLoss", "LabelSpecificAdd", "LargeMarginInnerProduct", "MarginInnerProduct", "TripletLoss"]


class _Centers(torch.autograd.Function):
    """Half the mean squared distance from the centres, with the source's gradient for the centres."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, centers: Tensor, index: Tensor) -> Tensor:
        off = x - centers[index]
        ctx.save_for_backward(off, index)
        ctx.count = len(centers)
        return off.square().sum() / (2 * len(x))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        off, index = ctx.saved_tensors
        number = off.new_zeros(ctx.count).index_add(0, index, torch.ones_like(off[:, 0]))
        moved = off.new_zeros(ctx.count, off.shape[1]).index_add(0, index, -off)
        return grads[0] * off / len(off), moved / (1 + number).unsqueeze(1), None


class CenterLoss(Loss, bottoms=2):
    """Pulls the features of each class towards a learned centre.

    bottoms: x (N, ...), with K features from `axis` on; labels (N)   top: loss ()

        loss = sum of |x - center[label]|^2 / (2 N)

    Blob: centers (num_output, K). The gradient of a center is the sum of center - x over the items of its class,
    divided by 1 + their number. As in the source it is not divided by N nor multiplied by the loss weight.
    Source: Wen et al., ECCV 2016; ydwen/caffe-face, center_loss_layer.cpp.
    """

    centers: Tensor

    def setup(self, x: Tensor, label: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_output > 0, "num_output must be given and positive")
        self.require(
            not opt.distance_type, "distance_type is an option of MNN's layer, which is not implemented; remove it"
        )
        start = self.axis(opt.axis, x)
        self.require(start == 1, f"axis is {opt.axis}, expected 1: a label for each of the {x.shape[0]} items")
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {x.shape[0]}"
        self.require(label.numel() == x.shape[0], fact)
        self.add_blob("centers", (opt.num_output, x.shape[1:].numel()), opt.center_filler)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        index, rows = class_labels(self, label.flatten(), self.opt.num_output), x.flatten(1)
        if is_exact():
            tell("the gradient of the centers is not the slope")
            return (rows - self.centers[index]).square().sum() / (2 * len(x))
        made: Tensor = _Centers.apply(rows, self.centers, index)
        return made


def margin(cosine: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """psi = (-1)^k cos(m angle) - 2 k for an angle in [k pi / m, (k + 1) pi / m], and its derivative."""
    c, sign = cosine, cosine.sign()
    if times == 1:
        return c, torch.ones_like(c)
    if times == 2:
        return 2 * sign * c.square() - 1, 4 * sign * c
    if times == 3:
        one = (c.abs() - 0.5).sign()
        return one * (4 * c**3 - 3 * c) + sign * (1 + one) - 2, one * (12 * c.square() - 3)
    three = sign * (2 * c.square() - 1).sign()
    return three * (8 * c**4 - 8 * c.square() + 1) + 2 * sign + three - 3, three * (32 * c**3 - 16 * c)


class _Margin(Layer, abstract=True):
    """Base of both products: the weights, and lambda, which decreases with each run."""

    exempt = (1,)
    constant = (1,)
    effects = Effects.VALUES | Effects.CHECKS | Effects.BUFFERS
    weight: Tensor
    runs: Tensor

    def setup(self, x: Tensor, label: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_output > 0, "num_output must be given and positive")
        start = self.axis(opt.axis, x)
        self.require(start == 1, f"axis is {opt.axis}, expected 1: a label for each of the {x.shape[0]} items")
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {x.shape[0]}"
        self.require(label.numel() == x.shape[0], fact)
        self.times = opt.type + 1
        self.add_blob("weight", (opt.num_output, x.shape[1:].numel()), opt.weight_filler)
        self.register_buffer("runs", torch.full((1,), float(opt.iteration)))

    def next_weight(self, x: Tensor) -> Tensor:
        """Count this run, and return its lambda (1)."""
        if has_values(x):
            self.runs.add_(1)
        opt = self.opt
        value = opt.base * (1 + opt.gamma * self.runs) ** -opt.power
        return value.clamp(min=opt.lambda_min).to(x.dtype)


class _Sphere(torch.autograd.Function):
    """The product of SphereFace's layer with its gradients. The gradient of the weights ignores the margin."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, named: Tensor, share: Tensor, times: int) -> Tensor:
        ctx.save_for_backward(x, weight, named, share)
        ctx.times = times
        plain = linear(x, weight, None)
        if times == 1:
            return plain
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        psi = length * margin(plain / length, times)[0]
        return (psi.where(named, plain) + share * plain) / (1 + share)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, named, share = ctx.saved_tensors
        (dy,) = grads
        by_weight = dy.t() @ x
        if ctx.times == 1:
            return dy @ weight, by_weight, None, None, None
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        cosine = linear(x, weight, None) / length
        psi, slope = margin(cosine, ctx.times)
        along = (psi - cosine * slope) / length
        norm = (slope.square() + along.square()).sqrt()
        by_x = (dy * (slope / norm).where(named, 1)) @ weight + (dy * (along / norm).where(named, 0)).sum(1, True) * x
        return (by_x + share * (dy @ weight)) / (1 + share), by_weight, None, None, None


class MarginInnerProduct(_Margin, bottoms=2, tops=(1, 2)):
    """SphereFace's product: multiplies the angle between an item and its class by m.

    bottoms: x (N, ...), with K features from `axis` on; labels (N)   tops: y (N, num_output); optionally lambda (1)

        y = w x, at the label (lambda w x + |x| psi) / (1 + lambda);  |w| = 1
        psi = (-1)^k cos(m a) - 2 k, a the angle between w and x in [k pi / m, (k + 1) pi / m], m = 1 ... 4 by `type`
        lambda = max(base (1 + gamma run)^-power, lambda_min), runs counted from `iteration` + 1 on

    Blob: weight w (num_output, K); each run scales its rows to length 1. As in the source, the gradient of w is that of
    w x alone. At the label the gradient of x, the sum of a part along w and one along x, is scaled to length 1.
    Source: Liu et al., arXiv:1704.08063; wy1iu/sphereface, margin_inner_product_layer.cpp.
    """

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        rows = x.flatten(1)
        index = class_labels(self, label.flatten(), self.opt.num_output)
        named = torch.nn.functional.one_hot(index.clamp(0, self.opt.num_output - 1), self.opt.num_output).bool()
        share = self.next_weight(x)
        if is_exact():
            tell("the gradient is the source's, not the slope")
            plain = linear(rows, torch.nn.functional.normalize(self.weight), None)
            length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            psi = length * margin(plain / length, self.times)[0]
            y = plain if self.times == 1 else (psi.where(named, plain) + share * plain) / (1 + share)
        else:
            if has_values(x):
                self.normalize()
            y = _Sphere.apply(rows, self.weight, named, share, self.times)
        return (y, share.detach())[: self.top_count]

    @torch.no_grad()
    def normalize(self) -> None:
        """Scale the weights of each class to length 1, in place, as the source does in its forward pass."""
        length = torch.linalg.vector_norm(self.weight, dim=1, keepdim=True)
        if bool(((length - 1).abs() > 1e-6).any()):
            self.weight.div_(length)


class LargeMarginInnerProduct(_Margin, bottoms=2, tops=(1, 2), options="largemargin_inner_product_param"):
    """L-Softmax's product: multiplies the angle between an item and its class by m.

    bottoms: x (N, ...), with K features from `axis` on; labels (N)   tops: y (N, num_output); optionally lambda (1)

        y = w x, at the label (lambda w x + |w| |x| psi) / (1 + lambda), psi and lambda as for MarginInnerProduct

    Blob: weight w (num_output, K).
    Source: Liu et al., arXiv:1612.02295; wy1iu/LargeMargin_Softmax_Loss, largemargin_inner_product_layer.cpp.
    """

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        rows = x.flatten(1)
        index = class_labels(self, label.flatten(), self.opt.num_output)
        named = torch.nn.functional.one_hot(index.clamp(0, self.opt.num_output - 1), self.opt.num_output).bool()
        share = self.next_weight(x)
        y = linear(rows, self.weight, None)
        if self.times > 1:
            lengths = (torch.linalg.vector_norm(z, dim=1) for z in (rows, self.weight))
            product = torch.outer(*lengths) + 1e-9
            psi = product * margin(y / product, self.times)[0]
            y = (psi.where(named, y) + share * y) / (1 + share)
        return (y, share.detach())[: self.top_count]


class _OfLabel(Layer, abstract=True):
    """Base of the layers that change each item's score for its label."""

    exempt = (1,)
    constant = (1,)
    effects = Effects.CHECKS

    def setup(self, x: Tensor, label: Tensor) -> None:
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C)"
        self.require(x.dim() > 1 and x.shape[2:].numel() == 1, fact)
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {x.shape[0]}"
        self.require(label.numel() == x.shape[0], fact)

    def named(self, x: Tensor, label: Tensor, ignore: int | None = None) -> Tensor:
        """Return a mask of x's shape that marks the label of each item. Items with the label `ignore` have no mark."""
        index = class_labels(self, label.flatten(), x.shape[1], ignore).unsqueeze(1)
        return (torch.arange(x.shape[1], device=x.device) == index).view(x.shape)


class LabelSpecificAdd(_OfLabel, bottoms=2):
    """Adds a bias to each item's score for its label. In AM-Softmax the bias is minus the margin.

    bottoms: x (N, C), labels (N)   top y (N, C)

        y[n, label] = x[n, label] + bias if x[n, label] > -bias;  y = x elsewhere, and in TEST

    As in the source, transform_test has no effect in TEST. The gradient is that of the identity.
    Source: Wang et al., arXiv:1801.05599; happynear/caffe-windows, label_specific_add_layer.cpp.
    """

    without_effect = ("transform_test",)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        if not self.training:
            return x.clone()
        return x + self.opt.bias * (self.named(x, label) & (x > -self.opt.bias))


class Arcface(_OfLabel, bottoms=2):
    """Adds the margin m to the angle between each item and its class.

    bottoms: cosines x (N, C), labels (N); an item of the label -1 is not changed   top y (N, C)

        y[n, label] = cos(a + m) if cos a >= cos(pi - m), else cos a - m sin(pi - m);  cos a = x[n, label]

    A cosine of +-1 takes the second case. Values of x beyond +-1 count as +-1, with gradient 1 there.
    Source: Deng et al., arXiv:1801.07698; a public arcface_layer.cpp.
    """

    def setup(self, x: Tensor, label: Tensor) -> None:
        super().setup(x, label)
        self.require(0 <= self.opt.m < math.pi, f"m is {self.opt.m:g}, expected an angle from 0 to below pi")

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Cosines within -1 ... 1: beyond them, the gradient of the source is not the slope."""
        place = torch.arange(x.numel(), dtype=x.dtype, device=x.device).view(x.shape)
        return 0.9 * place.sin() if index == 0 else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        m = self.opt.m
        sine = (1 - x.square()).clamp(min=1e-30).sqrt()
        turns = (x >= math.cos(math.pi - m)) & (sine > 1e-6)
        limited = x + (x.clamp(-1, 1) - x).detach()
        y = torch.where(turns, x * math.cos(m) - sine * math.sin(m), limited - math.sin(math.pi - m) * m)
        return torch.where(self.named(x, label, -1), y, x)


class TripletLoss(Loss, bottoms=3):
    """Triplet loss: pulls an anchor closer to a positive item than to a negative one, by a margin.

    bottoms: anchors a, positives p, negatives n, each (N, C)   top: loss ()

        loss = sum of max(0, margin + |a - p|^2 - |a - n|^2) / (2 N)

    Source: Schroff et al., arXiv:1503.03832; happynear/caffe-windows, triplet_loss_layer.cpp.
    """

    constant = ()
    exempt = ()
    effects = Effects.NONE

    def setup(self, a: Tensor, p: Tensor, n: Tensor) -> None:
        others = [name for name in ("mu", "sample") if self.opt.HasField(name)]
        self.require(not others, f"{', '.join(others)} is an option of another fork's layer; remove it")
        for i, x in enumerate((a, p, n)):
            fits = x.shape == a.shape and x.dim() > 1 and x.shape[2:].numel() == 1
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected (N, C), the same for all bottoms"
            self.require(fits, fact)

    def forward(self, a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        near, far = ((a - x).flatten(1).square().sum(1) for x in (p, n))
        return (self.opt.margin + near - far).clamp(min=0).sum() / (2 * len(a))
