"""Layers of DeepLab that refine a map of scores: DenseCRF, DomainTransform, AdaptiveBiasChannel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.loss import FLT_MIN
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import number_text
from caffe.layers.support.lattice import Lattice
from caffe.layers.support.values import untraced

__all__ = ["AdaptiveBiasChannel", "DenseCRF", "DomainTransform"]


def _check_sizes(layer: Layer, index: int, x: Tensor, sizes: Tensor) -> None:
    fact = f"{layer.bottom_name(index)} has shape {shape_text(sizes.shape)}, expected ({x.shape[0]}, 2, ...)"
    fits = sizes.dim() > 0 and sizes.shape[0] == x.shape[0] and sizes.shape[1:].numel() >= 2
    layer.require(fits, f"{fact}: height and width of each image")


class _Field(Layer, abstract=True):
    """Base of DenseCRF: the inference for an image."""

    def _mean_field(self, scores: Tensor, rows: int, columns: int, colours: Tensor | None) -> Tensor:
        """The result (H W, C) for the scores (H W, C) of an image."""
        opt = self.opt
        down, across = (torch.arange(n, device=scores.device, dtype=scores.dtype) for n in (rows, columns))
        places = torch.stack([across.repeat(rows), down.repeat_interleave(columns)], 1)
        points = [(weight, places / std) for weight, std in zip(opt.pos_w, opt.pos_xy_std, strict=True)]
        if colours is not None:
            for weight, std, tone in zip(opt.bi_w, opt.bi_xy_std, opt.bi_rgb_std, strict=True):
                points.append((weight, torch.cat([places / std, colours / tone], 1)))
        kernels = []
        for weight, point in points:
            lattice = Lattice(point)
            kernels.append((weight / (lattice.filter(scores.new_ones(len(scores), 1)) + 1e-20), lattice))
        found = scores.softmax(1)
        for _ in range(opt.max_iter):
            total = scores
            for share, lattice in kernels:
                total = total + share * lattice.filter(found)
            found = total.softmax(1)
        return found if opt.output_probability else found.clamp(min=FLT_MIN).log()

    def check_kernels(self) -> None:
        """Check the options of the kernels."""
        opt = self.opt
        fact = f"has {len(opt.pos_w)} pos_w and {len(opt.pos_xy_std)} pos_xy_std, expected equal numbers"
        self.require(len(opt.pos_w) == len(opt.pos_xy_std), fact)
        counts = {len(opt.bi_w), len(opt.bi_xy_std), len(opt.bi_rgb_std)}
        self.require(len(counts) == 1, "bi_w, bi_xy_std and bi_rgb_std must be given equally often")
        deviations = (*opt.pos_xy_std, *opt.bi_xy_std, *opt.bi_rgb_std)
        self.require(all(each > 0 for each in deviations), "deviations must be above 0")
        self.require(opt.max_iter >= 0, f"max_iter is {opt.max_iter}, expected 0 or more")


class DenseCRF(_Field, bottoms=(2, 3)):
    """Mean-field inference in a fully connected conditional random field. The layer has no gradient.

    bottoms: scores x (N, C, H, W); height and width of each image (N, 2, ...); optionally the images (N, 3, H, W)
    top q (N, C, H, W), 0 outside of an image

        q = softmax(x);  max_iter times  q <- softmax(x + sum over kernels of w K q / K 1)

    K is Gaussian, of the places (pos_xy_std, w = pos_w), and of places and colours (bi_xy_std, bi_rgb_std, w = bi_w),
    approximated on a permutohedral lattice, as in the source. output_probability: false gives log q.
    Source: Krähenbühl and Koltun, arXiv:1210.5644; Chen et al., arXiv:1412.7062 (DeepLab), densecrf_layer.cpp.
    """

    constant = (0, 1, 2)
    effects = Effects.VALUES

    def setup(self, x: Tensor, sizes: Tensor, image: Tensor | None = None) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        _check_sizes(self, 1, x, sizes)
        self.check_kernels()
        self.require(
            (image is not None) == bool(self.opt.bi_w), "bi_w and a third bottom, the images, must be given together"
        )
        if image is not None:
            wanted = (x.shape[0], 3, *x.shape[2:])
            fact = f"{self.bottom_name(2)} has shape {shape_text(image.shape)}, expected {wanted}"
            self.require(tuple(image.shape) == wanted, fact)

    def forward(self, x: Tensor, sizes: Tensor, image: Tensor | None = None) -> Tensor:
        return untraced(self._infer)(x, sizes, image)

    @torch.no_grad()
    def _infer(self, x: Tensor, sizes: Tensor, image: Tensor | None) -> Tensor:
        top = torch.zeros_like(x)
        if not has_values(x):
            return top
        for n, (height, width) in enumerate(sizes.reshape(len(x), -1)[:, :2].long().tolist()):
            part = x[n, :, : max(0, height), : max(0, width)]
            if not part.numel():
                continue
            rows, columns = part.shape[1:]
            colours = None if image is None else image[n, :, :rows, :columns].reshape(3, -1).t()
            found = self._mean_field(part.reshape(len(part), -1).t(), rows, columns, colours)
            top[n, :, :rows, :columns] = found.t().reshape(part.shape)
        return top


class DomainTransform(Layer, bottoms=3):
    """Smooths a map along its rows and columns, but not across the edges of a reference.

    bottoms: x (N, C, H, W); edges r (N, 1, H, W); height and width of each image (N, 2, ...)   top y of x's shape

        k = 1 ... num_iter:  s = spatial_sigma sqrt(3) 2^(num_iter - k) / sqrt(4^num_iter - 1)
        w = exp(-sqrt(2) / s (1 + r spatial_sigma / range_sigma)), limited to min_weight ... 1
        y[i] <- y[i] + w[i] (y[i - 1] - y[i]) from left to right; w[i + 1] and y[i + 1] from right to left; then
        likewise downwards and upwards

    Cells outside of an image keep their values. The gradient of r is that of the limited w, as in the source.
    Source: Gastal and Oliveira, SIGGRAPH 2011; Chen et al., arXiv:1511.03328 (DeepLab), domain_transform_layer.cu.
    """

    constant = (2,)
    exempt = (2,)

    def setup(self, x: Tensor, edges: Tensor, sizes: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        wanted = (x.shape[0], 1, *x.shape[2:])
        fact = f"{self.bottom_name(1)} has shape {shape_text(edges.shape)}, expected {wanted}"
        self.require(tuple(edges.shape) == wanted, fact)
        _check_sizes(self, 2, x, sizes)
        for name in ("spatial_sigma", "range_sigma", "num_iter"):
            self.require(getattr(opt, name) > 0, f"{name} must be given and positive")
        self.require(0 <= opt.min_weight <= 1, f"min_weight is {opt.min_weight:g}, expected a number from 0 to 1")

    def forward(self, x: Tensor, edges: Tensor, sizes: Tensor) -> Tensor:
        inside = self._inside(x, sizes)
        for step in range(1, self.opt.num_iter + 1):
            weight = self._weights(edges, step) * inside
            for axis in (3, 2):
                x = _smoothed(x, weight, axis)
                x = _smoothed(x.flip(axis), weight.roll(-1, axis).flip(axis), axis).flip(axis)
        return x

    def _weights(self, edges: Tensor, step: int) -> Tensor:
        opt = self.opt
        sigma = opt.spatial_sigma * math.sqrt(3) * 2 ** (opt.num_iter - step) / math.sqrt(4**opt.num_iter - 1)
        power = -math.sqrt(2) / sigma * (1 + edges * (opt.spatial_sigma / opt.range_sigma))
        limited = power.exp().clamp(opt.min_weight, 1)
        if is_exact():
            tell("where a weight is limited, the gradient of the edges is not 0")
            return limited
        return limited.detach() * (power - power.detach()).exp()

    @staticmethod
    def _inside(x: Tensor, sizes: Tensor) -> Tensor:
        """1 for the cells of an image, else 0, (N, 1, H, W)."""
        given = sizes.detach().reshape(x.shape[0], -1)[:, :2]
        down, across = (torch.arange(n, device=x.device) < given[:, i, None].long() for i, n in enumerate(x.shape[2:]))
        return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1).to(x.dtype)


def _smoothed(x: Tensor, weight: Tensor, axis: int) -> Tensor:
    """y[i] = (1 - w[i]) x[i] + w[i] y[i - 1] along an axis, y[0] = x[0], in log2(size) steps."""
    size = x.shape[axis]
    weight = torch.cat([weight.narrow(axis, 0, 1) * 0, weight.narrow(axis, 1, size - 1)], axis)
    value = (1 - weight) * x
    step = 1
    while step < size:
        rest = size - step
        more = weight.narrow(axis, step, rest)
        value = torch.cat(
            [value.narrow(axis, 0, step), value.narrow(axis, step, rest) + more * value.narrow(axis, 0, rest)], axis
        )
        weight = torch.cat([weight.narrow(axis, 0, step), more * weight.narrow(axis, 0, rest)], axis)
        step *= 2
    return value


class _Adapting(Layer, abstract=True):
    """Base of AdaptiveBiasChannel: the arithmetic for an image."""

    def _adapt(self, scores: Tensor, present: list[int]) -> None:
        """Change the scores (C, H W) of an image, in place."""
        opt, cells = self.opt, scores.shape[1]
        if opt.suppress_others:
            least = scores[present].amin(0)
            others = [c for c in range(len(scores)) if c not in present]
            scores[others] = torch.where(scores[others] > least, least - opt.margin_others, scores[others])
        best = scores[present].amax(0)
        mean = best.double().mean()
        for _ in range(opt.num_iter):
            first = [each for each in present if each == 0]
            rest = [present[len(first) + i] for i in torch.randperm(len(present) - len(first)).tolist()]
            for each in (*first, *rest):
                place = int((opt.fg_portion if each else opt.bg_portion) * cells)
                scores[each] += (best - scores[each]).kthvalue(place + 1).values
                best = torch.maximum(best, scores[each])
        scores += (mean - best.double().mean()).to(scores.dtype)


class AdaptiveBiasChannel(_Adapting, bottoms=2):
    """Raises the scores of the classes of an image until each wins in a share of the cells. There is no gradient.

    bottoms: scores x (N, C, H, W); labels (N, L, 1, 1), where -1 is ignored    top y of x's shape
        suppress_others: scores of absent classes above m become m - margin_others, m = the smallest present score
        num_iter times, for each present class c, 0 first and the others in random order:
            y[c] <- y[c] + the bg_portion (c = 0) or fg_portion quantile over the cells of (largest present - y[c])
        then a constant that restores the mean of the largest present score is added to all

    Source: Papandreou et al., arXiv:1502.02734 (DeepLab), adaptive_bias_channel_layer.cpp.
    """

    constant = (0, 1)
    effects = Effects.VALUES | Effects.RANDOM

    def setup(self, x: Tensor, label: Tensor) -> None:
        opt = self.opt
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W), C at least 2"
        self.require(x.dim() == 4 and x.shape[1] > 1, fact)
        fits = label.dim() > 1 and label.shape[0] == x.shape[0] and label.shape[2:].numel() == 1
        fact = f"{self.bottom_name(1)} has shape {shape_text(label.shape)}, expected ({x.shape[0]}, L, 1, 1)"
        self.require(fits and label.numel() > 0, fact)
        self.require(opt.num_iter > 0, "num_iter must be given and positive")
        self.require(opt.margin_others >= 0, f"margin_others is {opt.margin_others:g}, expected 0 or more")
        for name in ("bg_portion", "fg_portion"):
            share = getattr(opt, name)
            self.require(0 <= share < 1, f"{name} is {share:g}, expected a number from 0 and below 1")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return untraced(self._bias)(x, label)

    @torch.no_grad()
    def _bias(self, x: Tensor, label: Tensor) -> Tensor:
        top = x.clone(memory_format=torch.contiguous_format)
        if not has_values(x) or is_exact():
            return top
        for scores, given in zip(top.flatten(2), label.flatten(1), strict=True):
            present = sorted(each for each in map(int, given) if each != -1)
            wrong = [each for each in present if not 0 <= each < x.shape[1]]
            if wrong:
                number = number_text(wrong[0])
                self.error(
                    f"{self.bottom_name(1)} holds the label {number}, expected -1 to {x.shape[1] - 1}; correct it"
                )
            if present:
                self._adapt(scores, present)
        return top
