"""Crops of maps at relative boxes, and pooling of regions at moved or interpolated places."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.regions.rois import check_regions, example_regions, images_of, is_dry, nearest, pooled_sizes
from caffe.layers.regions.sampling import hats, sampled
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look
from caffe.limits import check_size

__all__ = ["CropAndResize", "DeformablePSROIPooling", "PyramidROIAlign", "ROIWarping"]


class _Crops(Layer, abstract=True):
    """Base of Synopsys' layers, which crop maps at boxes [y1, x1, y2, x2], in fractions of the map's size."""

    crop: tuple[int, int]

    def check(self, height: int, width: int) -> None:
        """Check the options. `height` and `width` are those of a crop."""
        self.require(height > 0 and width > 0, "height and width of the crops must be given and positive")
        known = self.opt.data_format in ("NHWC", "NCHW")
        self.require(known, f'data_format is "{self.opt.data_format}", expected NHWC or NCHW')
        self.crop, self.last = (height, width), self.opt.data_format == "NHWC"

    def crops(self, x: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        """The crops (R, C, h, w) of x, in its data_format, for boxes (R, 4)."""
        x = x.movedim(-1, 1) if self.last else x
        axes = [_along(*ends, n, size) for ends, n, size in zip(_ends(boxes), self.crop, x.shape[2:], strict=True)]
        valid = [(at >= 0) & (at <= size - 1) for at, size in zip(axes, x.shape[2:], strict=True)]
        rows, columns = (hats(at, size, ok) for at, size, ok in zip(axes, x.shape[2:], valid, strict=True))
        beyond = ~(valid[0].unsqueeze(2) & valid[1].unsqueeze(1)).unsqueeze(1)
        return sampled(x, image, rows, columns) + beyond * self.opt.extrapolation_value

    def laid(self, y: Tensor) -> Tensor:
        """Convert crops (..., C, h, w) to the data_format of the bottoms."""
        return y.movedim(-3, -1).contiguous() if self.last else y


def _ends(boxes: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    y1, x1, y2, x2 = boxes.unsqueeze(1).unbind(2)
    return (y1, y2), (x1, x2)


def _along(near: Tensor, far: Tensor, count: int, cells: int) -> Tensor:
    """Return the positions (R, count) of a crop's cells between two fractions (R, 1) of an axis."""
    if count == 1:
        return 0.5 * (near + far) * (cells - 1)
    index = torch.arange(count, device=near.device, dtype=near.dtype)
    return near * (cells - 1) + index * ((far - near) * (cells - 1) / (count - 1))


class CropAndResize(_Crops, bottoms=3):
    """Crops boxes of images and resizes each crop bilinearly to one size.

    bottoms: x (N, H, W, C), or (N, C, H, W) with data_format: "NCHW"; image index (R); boxes (R, 4), [y1, x1, y2, x2]
    top (R, crop_h, crop_w, C), or (R, C, crop_h, crop_w)

        y[i, j] = x at y1 (H - 1) + i (y2 - y1) (H - 1) / (crop_h - 1), likewise along the row; the centre of the box
        for a size of 1; extrapolation_value for places beyond the first or last cell

    Boxes get no gradient. Source: Synopsys' Caffe, crop_and_resize_layer.cpp; TensorFlow's crop_and_resize.
    """

    exempt = (1, 2)
    constant = (1, 2)
    effects = Effects.CHECKS  # of the image index

    def setup(self, x: Tensor, image: Tensor, boxes: Tensor) -> None:
        self.check(self.opt.crop_h, self.opt.crop_w)
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected four axes of at least one cell"
        self.require(x.dim() == 4 and min(x.shape) > 0, fact)
        fits = boxes.dim() == 2 and boxes.shape[1] == 4 and image.shape == boxes.shape[:1]
        shapes = f"bottoms 1 and 2 have shapes {shape_text(image.shape)} and {shape_text(boxes.shape)}"
        self.require(fits, f"{shapes}, expected (R) and (R, 4)")

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Image 0, and boxes in it."""
        if index == 2:
            return (0.1 + 0.2 * torch.arange(4, device=x.device, dtype=x.dtype)).expand_as(x)
        return torch.zeros_like(x) if index else None

    def forward(self, x: Tensor, image: Tensor, boxes: Tensor) -> Tensor:
        index = image.detach().nan_to_num(-1, -1, -1).long()
        wrong = (index < 0) | (index >= x.shape[0])
        if can_look(index) and wrong.any():
            held = f"{self.bottom_name(1)} holds the image index {number_text(float(image[wrong][0]))}"
            self.error(f"{held}, expected 0 to {x.shape[0] - 1}; correct the data")
        return self.laid(self.crops(x, index.clamp(0, x.shape[0] - 1), boxes.detach()))


class PyramidROIAlign(_Crops, bottoms=6):
    """CropAndResize from the level of a feature pyramid that fits the size of the box.

    bottoms: boxes (N, R, 4), [y1, x1, y2, x2] in fractions of the image; meta (N, M), its height and width at 4, 5;
    maps P2 to P5, each (N, H, W, C), or (N, C, H, W) with data_format: "NCHW"
    top (N, R, crop_height, crop_width, C), or (N, R, C, crop_height, crop_width)

        level = round(log2(sqrt(box area) sqrt(height width) / 224)) + 4, halves to even, at least 2 and at most 5

    Boxes get no gradient. Source: Synopsys' Caffe, pyramid_roi_align_layer.cpp; Lin et al., arXiv:1612.03144.
    """

    exempt = (0, 1)
    constant = (0, 1)

    def setup(self, boxes: Tensor, meta: Tensor, *maps: Tensor) -> None:
        self.check(self.opt.crop_height, self.opt.crop_width)
        fits = boxes.dim() == 3 and boxes.shape[2] == 4 and meta.dim() == 2 and len(meta) == len(boxes)
        shapes = f"bottoms 0 and 1 have shapes {shape_text(boxes.shape)} and {shape_text(meta.shape)}"
        self.require(fits and meta.shape[1] > 5, f"{shapes}, expected (N, R, 4) and (N, 6 or more)")
        channel = 3 if self.last else 1
        for i, x in enumerate(maps, 2):
            fits = x.dim() == 4 and min(x.shape) > 0 and len(x) == len(boxes)
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected four axes for {len(boxes)} images"
            self.require(fits and x.shape[channel] == maps[0].shape[channel], f"{fact}, and as many channels as P2")

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Boxes in the image, of all levels."""
        if index:
            return torch.full_like(x, 448) if index == 1 else None
        side = 0.9 * 2.0 ** -(torch.arange(x.shape[1], device=x.device, dtype=x.dtype) % 4).view(1, -1, 1)
        return torch.cat([x[..., :2] * 0 + 0.05, x[..., :2] * 0 + 0.05 + side], 2)

    def forward(self, boxes: Tensor, meta: Tensor, *maps: Tensor) -> Tensor:
        boxes, count = boxes.detach(), boxes.shape[1]
        sides = (boxes[..., 2:] - boxes[..., :2]).prod(2).sqrt()
        image = (meta.detach()[:, 4].trunc() * meta.detach()[:, 5].trunc()).sqrt().unsqueeze(1)
        level = ((sides * image / 224).log2().round() + 4).nan_to_num(2, 5, 2).clamp(2, 5).view(-1, 1, 1, 1)
        index = torch.arange(len(boxes), device=boxes.device).repeat_interleave(count)
        y = self.crops(maps[0], index, boxes.flatten(0, 1))
        for number, x in enumerate(maps[1:], 3):
            y = torch.where(level == number, self.crops(x, index, boxes.flatten(0, 1)), y)
        return self.laid(y.unflatten(0, (len(boxes), count)))


class ROIWarping(Layer, bottoms=2):
    """The maximum of bilinear samples in each bin of a region, as MNC warps regions.

    bottoms: x (N, C, H, W); rois (R, 5), rows [image, x1, y1, x2, y2] in pixels   top y (R, C, pooled_h, pooled_w)

        r = round(spatial_scale roi), size = max(r2 - r1, 0), n = ceil(size / pooled), likewise across
        y[i, j] = max over k = 0 ... n, l = 0 ... m of x at r1 + (i + k / n) size / pooled, and so on

    Samples outside -0.5 ... H - 0.5 do not count, others are clamped to the map; without a sample y is 0. The source
    also has a gradient for the regions, which this layer lacks. Source: Dai et al., arXiv:1512.04412 (MNC).
    """

    exempt = (1,)
    effects = Effects.CHECKS | Effects.VALUES  # the number of samples depends on the regions

    def setup(self, x: Tensor, rois: Tensor) -> None:
        check_regions(self, x, rois)
        self.pooled = pooled_sizes(self)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return example_regions(x, self.opt.spatial_scale) if index else None

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        if is_dry(x):
            return x.new_empty(rois.shape[0], x.shape[1], *self.pooled)
        rois = rois.detach().flatten(1)
        image, edges = images_of(self, rois, x.shape[0]), nearest(rois[:, 1:] * self.opt.spatial_scale)
        left, top, right, bottom = edges.unsqueeze(2).unbind(1)
        rows, columns = (
            self.samples(near, far, count, cells)
            for near, far, count, cells in zip((top, left), (bottom, right), self.pooled, x.shape[2:], strict=True)
        )
        made = [_maxima(x, *part) for part in zip(image.split(16), *_split(rows), *_split(columns), strict=True)]
        return torch.cat(made) if made else x.new_zeros(0, x.shape[1], *self.pooled)

    def samples(self, near: Tensor, far: Tensor, count: int, cells: int) -> tuple[Tensor, Tensor]:
        """Weights (R, count, n + 1, cells) of the samples of an axis, and a mask of those that count."""
        size = (far - near).clamp(min=0)
        number = (size / count).ceil().nan_to_num(1, 1, 1)
        most = int(number.max()) if has_values(number) and number.numel() else 1
        check_size("the samples of the regions", (len(near), count, most + 1, cells), self.error)
        part = torch.arange(most + 1, device=near.device, dtype=near.dtype)
        step = part / number.clamp(min=1)
        index = torch.arange(count, device=near.device, dtype=near.dtype).view(1, -1, 1)
        at = near.unsqueeze(2) + (index + step.unsqueeze(1)) * (size / count).unsqueeze(2)
        valid = (at >= -0.5) & (at <= cells - 0.5) & (part <= number).unsqueeze(1)
        return hats(at, cells, valid), valid


def _split(axis: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    return axis[0].split(16), axis[1].split(16)


def _maxima(x: Tensor, image: Tensor, rows: Tensor, below: Tensor, columns: Tensor, across: Tensor) -> Tensor:
    """The maxima (R, C, P, Q) of the samples that count, 0 where there is none."""
    y = sampled(x, image, rows.flatten(1, 2), columns.flatten(1, 2))
    y = y.unflatten(3, columns.shape[1:3]).unflatten(2, rows.shape[1:3])  # (R, C, P, k, Q, l)
    valid = (below.unsqueeze(3).unsqueeze(4) & across.unsqueeze(1).unsqueeze(2)).unsqueeze(1)
    found = y.masked_fill(~valid, torch.finfo(y.dtype).min).amax(5).amax(3)
    return found.where(valid.any(5).any(3), 0)


class DeformablePSROIPooling(Layer, bottoms=(2, 3)):
    """PSROIPooling whose bins are moved by predicted offsets.

    bottoms: x (N, output_dim g^2, H, W), g = group_size; rois (R, 5) as for ROIPooling; unless no_trans, offsets
    (R, 2 classes, part_size, part_size), of x and of y for each class   top y (R, output_dim, P, P), P pooled_size or g

        start = round(roi1) s - 1/2, size = max((round(roi2) + 1) s - 1/2 - start, 0.1), s = spatial_scale
        y[k, i, j] = mean of channel (k g + i g / P) g + j g / P over sample_per_part^2 bilinear samples at
                     start + (i + a / sample_per_part) size / P + trans_std offset size

    Samples outside -0.5 ... H - 0.5 do not count, others are clamped to the map. Regions get no gradient.
    Source: Dai et al., arXiv:1703.06211, eq. 5 and 6; public ports to Caffe.
    """

    exempt = (1,)
    effects = Effects.CHECKS  # of the image index

    def setup(self, x: Tensor, rois: Tensor, offsets: Tensor | None = None) -> None:
        opt = self.opt
        check_regions(self, x, rois)
        for name in ("spatial_scale", "output_dim", "group_size", "sample_per_part"):
            self.require(getattr(opt, name) > 0, f"{name} must be given and positive")
        self.pooled, wanted = opt.pooled_size or opt.group_size, opt.output_dim * opt.group_size**2
        self.part = opt.part_size or self.pooled
        fact = f"{self.bottom_name(0)} has {x.shape[1]} channels, expected output_dim x group_size^2 = {wanted}"
        self.require(x.shape[1] == wanted, fact)
        self.require(opt.no_trans == (offsets is None), "takes offsets, the third bottom, unless no_trans is true")
        if offsets is not None:
            _check_offsets(self, rois, offsets, self.part)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return example_regions(x, self.opt.spatial_scale) if index == 1 else None

    def forward(self, x: Tensor, rois: Tensor, offsets: Tensor | None = None) -> Tensor:
        if is_dry(x):
            return x.new_empty(rois.shape[0], self.opt.output_dim, self.pooled, self.pooled)
        rois = rois.detach().flatten(1)
        image, edge = images_of(self, rois, x.shape[0]), nearest(rois[:, 1:])
        moved = _moves(offsets, self.part, self.pooled, self.opt.trans_std) if offsets is not None else (0, 0)
        places = [
            _places(self, edge[:, axis], edge[:, axis + 2], moved[axis], axis, x.shape[3 - axis]) for axis in (1, 0)
        ]
        return _sampled(x, image, places[0], places[1], self.opt.output_dim, self.opt.group_size)


def _check_offsets(layer: Layer, rois: Tensor, offsets: Tensor, part: int) -> None:
    """Check the shape of the offsets, bottom 2."""
    fits = offsets.dim() == 4 and (len(offsets), *offsets.shape[2:]) == (len(rois), part, part)
    classes = offsets.shape[1] // 2 if offsets.dim() == 4 else 0
    fact = f"{layer.bottom_name(2)} has shape {shape_text(offsets.shape)}, expected two channels for each class"
    fits = fits and classes > 0 and offsets.shape[1] % 2 == 0 and layer.opt.output_dim % classes == 0
    layer.require(fits, f"{fact}, and {part} x {part} cells, for {len(rois)} regions")


def _places(
    layer: DeformablePSROIPooling, near: Tensor, far: Tensor, moved: Tensor | float, axis: int, cells: int
) -> tuple[Tensor, Tensor]:
    """Where the samples (R, K or 1, P, P, s) of an axis (1 is y) are, clamped, and a mask of those that count."""
    opt, shape = layer.opt, (-1, 1, 1, 1)
    start = (near * opt.spatial_scale - 0.5).view(shape)
    size = ((far + 1) * opt.spatial_scale - 0.5).view(shape).sub(start).clamp(min=0.1)
    index = torch.arange(layer.pooled, device=near.device, dtype=near.dtype)
    index = index.view(-1, 1) if axis else index.view(1, -1)
    base = start + index * (size / layer.pooled) + moved * size
    part = torch.arange(opt.sample_per_part, device=near.device, dtype=near.dtype) / opt.sample_per_part
    at = base.unsqueeze(-1) + part * (size / layer.pooled).unsqueeze(-1)
    return at.clamp(0, cells - 1), (at >= -0.5) & (at <= cells - 0.5)


def _moves(offsets: Tensor, part: int, pooled: int, std: float) -> tuple[Tensor, Tensor]:
    """Return the offsets (R, classes, P, P) of x and of y, in fractions of the region's size."""
    index = torch.arange(pooled, device=offsets.device) * part // pooled
    offsets = offsets.index_select(2, index).index_select(3, index).unflatten(1, (-1, 2)) * std
    return offsets[:, :, 0], offsets[:, :, 1]


def _sampled(
    x: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], outputs: int, groups: int
) -> Tensor:
    """The mean (R, outputs, P, P) of the samples at all rows and columns of each bin, each in its bin's channel."""
    (down, below), (right, across) = ((p[0].unsqueeze(-1), p[1].unsqueeze(-1)) for p in (rows, columns))
    right, across = right.transpose(-1, -2), across.transpose(-1, -2)
    classes, pooled = max(down.shape[1], right.shape[1]), down.shape[2]
    bins = torch.arange(pooled, device=x.device) * groups // pooled
    channel = torch.arange(outputs, device=x.device).view(-1, 1, 1) * groups**2 + bins.view(-1, 1) * groups + bins
    start = (image.view(-1, 1, 1, 1) * x.shape[1] + channel) * (x.shape[2] * x.shape[3])
    each = outputs // classes
    down, below, right, across = (
        p.repeat_interleave(each, 1) if classes > 1 else p for p in (down, below, right, across)
    )
    start, table = start.view(*start.shape, 1, 1), x.reshape(-1)
    top, left = (p.detach().floor() for p in (down, right))
    (share_down, share_right), total = (down - top, right - left), x.new_zeros(())
    for a in (0, 1):
        for b in (0, 1):
            row, column = (top + a).clamp(max=x.shape[2] - 1), (left + b).clamp(max=x.shape[3] - 1)
            weight = (share_down if a else 1 - share_down) * (share_right if b else 1 - share_right)
            total = total + weight * table[start + (row * x.shape[3] + column).long()]
    counts = below & across
    return total.where(counts, 0).sum((-1, -2)) / counts.sum((-1, -2)).clamp(min=1)
