"""Pooling of regions: each region is divided into the same number of bins, for any size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer
from caffe.layers.regions.maxima import first_largest, largest
from caffe.layers.regions.rois import (
    Bins,
    bins,
    check_regions,
    example_regions,
    images_of,
    is_dry,
    nearest,
    pooled_sizes,
    widened,
)

__all__ = ["PSROIPooling", "ROIPooling"]


class ROIPooling(Layer, bottoms=2):
    """Maximum of each channel over pooled_h x pooled_w bins of each region.

    bottoms: x (N, C, H, W); rois (R, 5), rows [image, x1, y1, x2, y2] in pixels   top y (R, C, pooled_h, pooled_w)

        r = round(spatial_scale roi), halves away from zero;  size = max(r2 - r1 + 1, 1)
        bin i spans floor(i size / pooled) + r1 ... ceil((i + 1) size / pooled) + r1, clipped to the map
        y = max of x over the bin, 0 for an empty bin

    pad_ratio (MS-CNN) first moves each edge outwards by pad_ratio (x2 - x1 + 1) or pad_ratio (y2 - y1 + 1).
    The gradient goes to the first maximal cell; regions get none. NaN and -infinity count as -3.4e38.
    Source: Girshick, arXiv:1504.08083; py-faster-rcnn.
    """

    exempt = (1,)
    effects = Effects.CHECKS  # of the image index

    def setup(self, x: Tensor, rois: Tensor) -> None:
        check_regions(self, x, rois)
        self.pooled = pooled_sizes(self)
        fact = "pooled_size of Intel's Caffe is not supported; write pooled_h and pooled_w"
        self.require(not self.opt.pooled_size, fact)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return example_regions(x, self.opt.spatial_scale) if index else None

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        if is_dry(x):
            return x.new_empty(rois.shape[0], x.shape[1], *self.pooled)
        rois = rois.detach().flatten(1)
        image, rois = images_of(self, rois, x.shape[0]), widened(rois, self.opt.pad_ratio)
        edge = nearest(rois[:, 1:] * self.opt.spatial_scale)
        left, top, right, bottom = edge.unsqueeze(2).unbind(1)
        rows = bins((bottom - top + 1).clamp(min=1), self.pooled[0], x.shape[2], shift=top)
        columns = bins((right - left + 1).clamp(min=1), self.pooled[1], x.shape[3], shift=left)
        y = _maxima(x.permute(0, 2, 3, 1).contiguous(), image, rows, columns)
        return y.permute(0, 3, 1, 2).contiguous()


class PSROIPooling(Layer, bottoms=2):
    """Position-sensitive pooling: the mean of each of g x g bins of each region, where each bin has separate channels.

    bottoms: x (N, output_dim g^2, H, W), g = group_size; rois (R, 5) as for ROIPooling   top y (R, output_dim, g, g)

        start = round(roi1) s, end = (round(roi2) + 1) s, s = spatial_scale;  size = max(end - start, 0.1)
        bin i spans floor(start + i size / g) ... ceil(start + (i + 1) size / g), clipped to the map
        y[r, k, i, j] = mean of channel (k g + i) g + j over bin (i, j), 0 for an empty bin

    Regions get no gradient. Source: Dai et al., arXiv:1605.06409 (R-FCN).
    """

    exempt = (1,)
    effects = Effects.CHECKS  # of the image index

    def setup(self, x: Tensor, rois: Tensor) -> None:
        check_regions(self, x, rois)
        opt = self.opt
        for name in ("spatial_scale", "output_dim", "group_size"):
            self.require(opt.HasField(name) and getattr(opt, name) > 0, f"{name} must be given and positive")
        wanted = opt.output_dim * opt.group_size**2
        fact = f"{self.bottom_name(0)} has {x.shape[1]} channels, expected output_dim x group_size^2 = {wanted}"
        self.require(x.shape[1] == wanted, fact)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return example_regions(x, self.opt.spatial_scale) if index else None

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        scale, g = self.opt.spatial_scale, self.opt.group_size
        if is_dry(x):
            return x.new_empty(rois.shape[0], self.opt.output_dim, g, g)
        rois = rois.detach().flatten(1)
        image, edge = images_of(self, rois, x.shape[0]), nearest(rois[:, 1:])
        left, top, right, bottom = edge.unsqueeze(2).unbind(1)
        left, top, right, bottom = left * scale, top * scale, (right + 1) * scale, (bottom + 1) * scale
        rows = bins((bottom - top).clamp(min=0.1), g, x.shape[2], start=top)
        columns = bins((right - left).clamp(min=0.1), g, x.shape[3], start=left)
        total = _group_sums(x, image, rows, columns, g)
        area = _lengths(rows).unsqueeze(2) * _lengths(columns).unsqueeze(1)
        return (total / area.clamp(min=1).unsqueeze(3)).to(x.dtype).permute(0, 3, 1, 2).contiguous()


def _maxima(x: Tensor, image: Tensor, rows: Bins, columns: Bins) -> Tensor:
    """The maximum over each bin of x (N, H, W, C): (R, P, Q, C), 0 for an empty bin."""
    lowest, learns = torch.finfo(x.dtype).min, x.requires_grad and torch.is_grad_enabled()
    empty = ((_lengths(rows).unsqueeze(2) * _lengths(columns).unsqueeze(1)) == 0).unsqueeze(3)
    known = torch.where(x.detach() > lowest, x.detach(), lowest)  # NaN becomes `lowest`: comparing it gives False
    if not learns:
        return largest(known, image, rows, columns).masked_fill(empty, 0)
    place = image.view(-1, 1, 1, 1) * (x.shape[1] * x.shape[2]) + first_largest(known, image, rows, columns)
    y = x.reshape(-1, x.shape[3]).gather(0, place.view(-1, x.shape[3])).view(place.shape)
    return torch.where(y > lowest, y, lowest).masked_fill(empty, 0)


def _group_sums(x: Tensor, image: Tensor, rows: Bins, columns: Bins, g: int) -> Tensor:
    """Sums over the bins (R, g, g, K) of x (N, K g^2, H, W), in double precision.

    Each sum is computed from four entries of a summed-area table.
    """
    images, channels, height, width = x.shape
    table = F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0)).view(
        images, channels // g**2, g * g, (height + 1) * (width + 1)
    )
    table = table.permute(0, 2, 3, 1).reshape(-1, channels // g**2)  # rows: image, group, cell
    group = torch.arange(g * g, device=x.device).view(1, g, g)
    start = (image.view(-1, 1, 1) * g * g + group) * ((height + 1) * (width + 1))

    def corner(row: Tensor, column: Tensor) -> Tensor:
        place = start + row.unsqueeze(2) * (width + 1) + column.unsqueeze(1)
        return table.index_select(0, place.flatten()).view(*place.shape, channels // g**2)

    (top, below), (left, right) = (_ordered(axis) for axis in (rows, columns))
    return corner(below, right) - corner(top, right) - corner(below, left) + corner(top, left)


def _lengths(axis: Bins) -> Tensor:
    return (axis[1] - axis[0]).clamp(min=0)


def _ordered(axis: Bins) -> Bins:
    """Set the end of an empty bin to its start."""
    return axis[0], axis[1].maximum(axis[0])
