"""Sampling of regions without rounding, and resizing of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, is_exported, shape_text
from caffe.layers.regions.rois import check_regions, example_regions, images_of, is_dry, widened
from caffe.layers.regions.sampling import hats, sampled
from caffe.limits import check_size

__all__ = ["MaskPooling", "MaskResize", "ROIAlign"]


class ROIAlign(Layer, bottoms=2, options="roi_align_param"):
    """Pools each region by bilinear samples, without rounding. Two forks have a layer of this name; the options decide.

    bottoms: x (N, C, H, W); rois (R, 5), rows [image, x1, y1, x2, y2] in pixels; spatial_scale converts to cells
    roi_align_param (Mask R-CNN), top (R, C, pooled_h, pooled_w): the mean of n x n samples, evenly spaced in the
        bin; the size is at least 1 cell; n = sampling_ratio, or ceil(size / pooled) by default
    roi_pooling_param (Cascade R-CNN), top (R, C, pooled_h + 1, pooled_w + 1): one sample at each corner of a bin of the
        region, shifted by -0.5 cells; pad_ratio widens regions as for ROIPooling

    A sample outside -1 ... H (Mask R-CNN) or -0.5 ... H - 0.5 (Cascade) is 0; others are clamped to the map. Regions
    get no gradient. Source: He et al., arXiv:1703.06870; Cai and Vasconcelos, arXiv:1712.00726.
    """

    exempt = (1,)
    effects = Effects.CHECKS | Effects.VALUES  # the number of samples depends on the regions
    more_options = ("roi_pooling_param",)

    def setup(self, x: Tensor, rois: Tensor) -> None:
        check_regions(self, x, rois)
        self.corners = self.spec.HasField("roi_pooling_param")
        both = self.corners and self.spec.HasField("roi_align_param")
        self.require(not both, "has roi_align_param (Mask R-CNN's layer) and roi_pooling_param (Cascade's); keep one")
        opt = self.opt = self.spec.roi_pooling_param if self.corners else self.opt
        self.require(opt.pooled_h > 0 and opt.pooled_w > 0, "pooled_h and pooled_w must both be given and positive")
        if self.corners:
            self.require(not opt.pooled_size, "pooled_size comes from Intel's Caffe; write pooled_h and pooled_w")
        else:
            self.require(opt.roi_end_mode == 0, "roi_end_mode other than 0 is not supported; remove it")

    @property
    def effects_now(self) -> Effects:
        given = self.corners or self.opt.sampling_ratio > 0
        return Effects.CHECKS if given else self.effects

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return example_regions(x, self.opt.spatial_scale) if index else None

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        more = int(self.corners)
        if is_dry(x):
            return x.new_empty(rois.shape[0], x.shape[1], self.opt.pooled_h + more, self.opt.pooled_w + more)
        rois = rois.detach().flatten(1)
        rois = widened(rois, self.opt.pad_ratio) if self.corners else rois
        image, (left, top, right, bottom) = images_of(self, rois, x.shape[0]), rois[:, 1:].unsqueeze(2).unbind(1)
        left, top, right, bottom = (edge * self.opt.spatial_scale for edge in (left, top, right, bottom))
        rows = self.weights(top, bottom, self.opt.pooled_h, x.shape[2])
        return sampled(x, image, rows, self.weights(left, right, self.opt.pooled_w, x.shape[3]))

    def weights(self, near: Tensor, far: Tensor, count: int, cells: int) -> Tensor:
        """The weight (R, P, cells) of each input cell in each output cell of an axis, for edges (R, 1) in cells."""
        if self.corners:
            return _corner_weights(near, far, count, cells)
        size = (far - near).clamp(min=1) / count
        samples, most = _samples(self, size)
        check_size("the samples of the regions", (len(near), count, most, cells), self.error)
        return _bin_weights(near, size, samples, count, most, cells)


def _samples(layer: ROIAlign, size: Tensor) -> tuple[Tensor, int]:
    """The number of samples per bin (R, 1) along an axis, for these bin sizes, and the largest of these numbers."""
    most = layer.opt.sampling_ratio
    if most > 0:
        return torch.full_like(size, most), most
    written = is_exported() or torch.compiler.is_compiling()
    layer.require(not written, "how many samples there are depends on values; give sampling_ratio")
    samples = size.ceil().nan_to_num(1, 1, 1)
    return samples, int(samples.max()) if has_values(samples) and samples.numel() else 1


def _corner_weights(near: Tensor, far: Tensor, count: int, cells: int) -> Tensor:
    """The weights of one sample at each of the count + 1 edges of `count` bins."""
    near, far = near - 0.5, far - 0.5
    points = near + torch.arange(count + 1, device=near.device, dtype=near.dtype) * ((far - near) / count)
    return hats(points, cells, (points > -0.5) & (points < cells - 0.5))


def _bin_weights(near: Tensor, size: Tensor, samples: Tensor, count: int, most: int, cells: int) -> Tensor:
    """The weights of the mean of `samples` (R, 1) samples, at most `most`, in each of `count` bins of `size` (R, 1)."""
    index, part = (torch.arange(n, device=near.device, dtype=near.dtype) for n in (count, most))
    within = (part + 0.5) * (size / samples)
    points = (near + index * size).unsqueeze(2) + within.unsqueeze(1)
    valid = (points >= -1) & (points <= cells) & (part < samples).unsqueeze(1)
    return hats(points, cells, valid).sum(2) / samples.unsqueeze(2)


class MaskPooling(Layer, bottoms=2):
    """Multiplies all channels of a blob by a mask.

    bottoms: x (N, C, H, W), mask (N, 1, H, W)   top y of x's shape

        y[n, c, h, w] = x[n, c, h, w] mask[n, 0, h, w]

    Source: Dai et al., arXiv:1512.04412 (MNC).
    """

    def setup(self, x: Tensor, mask: Tensor) -> None:
        fact = f"bottoms have shapes {shape_text(x.shape)} and {shape_text(mask.shape)}"
        fact += "; expected (N, C, H, W) and (N, 1, H, W)"
        self.require(x.dim() == 4 and mask.shape == (x.shape[0], 1, *x.shape[2:]), fact)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask


class MaskResize(Layer):
    """Bilinear resizing, where output cell i is sampled at position i in / out.

    bottom x (N, C, H, W), top y (N, C, output_height, output_width)

    A sample beyond the last cell has the value of the last cell. Source: Dai et al., arXiv:1512.04412 (MNC).
    """

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W) with at least one cell"
        self.require(x.dim() == 4 and x.shape[2] > 0 and x.shape[3] > 0, fact)
        factors = opt.HasField("factor_height") or opt.HasField("factor_width")
        self.require(
            not factors, "factor_height and factor_width are not supported; write output_height and output_width"
        )
        fact = "output_height and output_width must both be given and positive"
        self.require(opt.output_height > 0 and opt.output_width > 0, fact)
        check_size("the top", (*x.shape[:2], opt.output_height, opt.output_width), self.error)

    def forward(self, x: Tensor) -> Tensor:
        rows = _stretch(x, 2, self.opt.output_height)
        return rows @ x @ _stretch(x, 3, self.opt.output_width).T


def _stretch(x: Tensor, axis: int, count: int) -> Tensor:
    """The weights (count, cells) of `count` samples along an axis of x, at positions i cells / count."""
    points = torch.arange(count, device=x.device, dtype=x.dtype) * (x.shape[axis] / count)
    return hats(points, x.shape[axis], torch.ones_like(points, dtype=torch.bool))
