"""Layers of forks that change height and width: upsampling, unpooling, interpolation, reorganization."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, shape_text
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look
from caffe.limits import check_size
from caffe.proto import caffe_pb2

__all__ = ["RESIZE", "UNPOOLING", "ImResize", "Interp", "Reorg", "Upsample"]

UNPOOL_MAX, UNPOOL_AVE = caffe_pb2.UnPoolingParameter.MAX, caffe_pb2.UnPoolingParameter.AVE


class _Planes(Layer, abstract=True):
    """Base of the layers here: bottom 0 is (N, C, H, W), and the top has another height and width."""

    def planes(self, x: Tensor) -> None:
        """Raise an error unless the bottom has exactly four axes."""
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")

    def sized(self, x: Tensor, height: int, width: int) -> tuple[int, int]:
        """Height and width of the top. Raises an error if one is not positive."""
        fact = f"the top would be {height} x {width} for a bottom of {x.shape[2]} x {x.shape[3]}"
        self.require(height > 0 and width > 0, f"{fact}; give sizes, factors and pads that leave a cell")
        check_size("the top", (*x.shape[:2], height, width), self.error)
        return height, width


class _Unpooled(_Planes, abstract=True):
    """Base of the layers that place values by a mask, the second top of a Pooling."""

    constant = (1,)
    exempt = (1,)
    effects = Effects.CHECKS  # the indices in the mask

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """A mask whose indices are distinct within a plane."""
        cells = torch.arange(x.shape[-2:].numel(), dtype=x.dtype, device=x.device)
        return cells.view(x.shape[-2:]).expand_as(x).clone() if index else None

    def same_shape(self, x: Tensor, mask: Tensor) -> None:
        """Raise an error unless the mask has the shape of x."""
        fact = f"{self.bottom_name(1)} has shape {shape_text(mask.shape)}, {self.bottom_name(0)} {shape_text(x.shape)}"
        self.require(mask.shape == x.shape, f"{fact}; expected a mask of the same shape: the second top of a Pooling")

    def spread(self, x: Tensor, mask: Tensor, sizes: tuple[int, int]) -> Tensor:
        """A tensor of zeros with planes of `sizes`, and x at the indices of the mask."""
        place, cells = mask.detach().long().flatten(2), sizes[0] * sizes[1]
        if can_look(place):
            wrong = mask.flatten(2)[(place < 0) | (place >= cells)].tolist()
            if wrong:
                held = f"{self.bottom_name(1)} holds the place {number_text(wrong[0])}"
                self.error(f"{held}, expected 0 to {cells - 1} for a top of {sizes[0]} x {sizes[1]}")
        y = x.new_zeros(*x.shape[:2], cells).scatter(2, place, x.flatten(2))
        return y.unflatten(2, sizes)


class Upsample(_Unpooled, bottoms=(1, 2)):
    """Upsampling: SegNet's unpooling by a mask for two bottoms, YOLO's nearest-neighbour copies for one.

    two bottoms: x (N, C, H, W) and mask of the same shape, the second top of a MAX Pooling   top y (N, C, H', W')
    H' = upsample_h, or scale_h H - pad_out_h; scale_h defaults to `scale`, `scale` to 2; W' likewise

        y[n, c, mask[n, c, h, w]] = x[n, c, h, w], and 0 elsewhere; the last x wins if indices are equal

    one bottom: x (N, C, H, W)   top y (N, C, s H, s W) with s = scale (1), or height_scale and width_scale

        y[n, c, h, w] = x[n, c, h // s, w // s]

    Source: Badrinarayanan et al., arXiv:1511.00561 (SegNet); Redmon and Farhadi, arXiv:1804.02767 (YOLOv3).
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor, mask: Tensor | None = None) -> None:
        self.planes(x)
        masked = ("scale_h", "scale_w", "pad_out_h", "pad_out_w", "upsample_h", "upsample_w")
        plain = ("height", "width", "height_scale", "width_scale", "mode", "stride")
        wrong = [name for name in (plain if mask is not None else masked) if self.opt.HasField(name)]
        kind = "by a mask (two bottoms)" if mask is not None else "by copies (one bottom)"
        self.require(
            not wrong,
            f"{', '.join(wrong)} is not an option of Upsample {kind}; remove it, or change the number of bottoms",
        )
        refused = [name for name in ("height", "width", "stride") if self.opt.HasField(name) and mask is None]
        self.require(
            not refused, f"{', '.join(refused)} is not implemented; give scale, or height_scale and width_scale"
        )
        if mask is not None:
            self.lowering = Lowering.NEVER  # 16 bits are too few for cell indices
            self.same_shape(x, mask)
        self.rules = self.read_sides(mask is not None)
        smooth = self.opt.mode != caffe_pb2.UpsampleParameter.NEAREST
        self.require(not smooth, "mode: BILINEAR is not implemented; write NEAREST, or an Interp layer")
        self.sizes(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        sizes = self.sizes(x)
        return F.interpolate(x, sizes, mode="nearest") if mask is None else self.spread(x, mask, sizes)

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the top."""
        axes = zip(x.shape[2:], self.rules, strict=True)
        return self.sized(x, *(by * n - less if size is None else size for n, (by, less, size) in axes))

    def read_sides(self, masked: bool) -> list[tuple[int, int, int | None]]:
        """For height and width: the factor, the number of cells to remove, and the size if it is given."""
        opt = self.opt
        scale = opt.scale if opt.HasField("scale") else 2 if masked else 1
        self.require(scale == int(scale) and scale > 0, f"scale is {scale:g}, expected a whole number above 0")
        names = ("scale_h", "scale_w") if masked else ("height_scale", "width_scale")
        factors = [getattr(opt, name) if opt.HasField(name) else int(scale) for name in names]
        if not masked:
            return [(factor, 0, None) for factor in factors]
        tops = [getattr(opt, name) if opt.HasField(name) else None for name in ("upsample_h", "upsample_w")]
        return list(zip(factors, (int(opt.pad_out_h), int(opt.pad_out_w)), tops, strict=True))


class UNPOOLING(_Unpooled, bottoms=(1, 2)):
    """DeconvNet's unpooling, which reverses a pooling with the same window.

    bottoms: x (N, C, H, W); optionally a mask of the same shape   top y (N, C, H', W')
    H' = unpool_size, or max(stride (H - 1) + kernel, stride H + 1)

        MAX   y[mask[h, w]] = x[h, w], or y[stride h, stride w] = x[h, w] without a mask; 0 elsewhere
        TILE  y = sum of x over the windows that contain the cell    AVE  the same with x / cells of the window

    The gradient of TILE is exact. The CPU code of the source divides it by the number of cells of the window.
    Source: Noh et al., arXiv:1505.04366 (DeconvNet); HyeonwooNoh/caffe.
    """

    def setup(self, x: Tensor, mask: Tensor | None = None) -> None:
        self.planes(x)
        self.kernel, self.stride = self.pair("kernel", "kernel_size", 0), self.pair("stride", "stride", 1)
        self.require(min(self.kernel) > 0, "kernel_size, or kernel_h and kernel_w, must be given and positive")
        self.require(min(self.stride) > 0, f"stride {self.stride} must be positive on both axes")
        self.given = self.pair("unpool", "unpool_size", 0)
        self.require(max(self.pair("pad", "pad", 0)) == 0, "pad is not supported, as in DeconvNet; remove it")
        if mask is not None:
            self.require(self.opt.unpool == UNPOOL_MAX, "a mask, the second bottom, is for unpool: MAX only")
            self.same_shape(x, mask)
        self.sizes(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        sizes = self.sizes(x)
        if mask is not None:
            return self.spread(x, mask, sizes)
        rows, columns = (
            (torch.arange(n, device=x.device) * s).clamp(max=top - 1)
            for n, s, top in zip(x.shape[2:], self.stride, sizes, strict=True)
        )
        if self.opt.unpool == UNPOOL_MAX:
            place = (rows[:, None] * sizes[1] + columns).flatten().expand(*x.shape[:2], -1)
            return x.new_zeros(*x.shape[:2], sizes[0] * sizes[1]).scatter(2, place, x.flatten(2)).unflatten(2, sizes)
        if self.opt.unpool == UNPOOL_AVE:
            inside = [(top - at).clamp(max=k) for top, at, k in zip(sizes, (rows, columns), self.kernel, strict=True)]
            x = x / (inside[0][:, None] * inside[1])
        each = x.new_ones(x.shape[1], 1, *self.kernel)
        y = F.conv_transpose2d(x, each, None, self.stride, groups=x.shape[1])
        return F.pad(y, [0, sizes[1] - y.shape[3], 0, sizes[0] - y.shape[2]])

    def pair(self, stem: str, single: str, default: int) -> tuple[int, int]:
        """An option for height and width, given once or as `<stem>_h` and `<stem>_w`."""
        sides = [f"{stem}_{side}" for side in "hw"]
        given = [name for name in sides if self.opt.HasField(name)]
        self.require(len(given) != 1, f"{''.join(given)} is given alone; give both, or {single}")
        self.require(not (given and self.opt.HasField(single)), f"{single} and {sides[0]} are both given; keep one")
        one = getattr(self.opt, single) if self.opt.HasField(single) else default
        return (getattr(self.opt, sides[0]), getattr(self.opt, sides[1])) if given else (one, one)

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the top."""
        axes = zip(x.shape[2:], self.kernel, self.stride, self.given, strict=True)
        return self.sized(x, *(size or max(s * (n - 1) + k, s * n + 1) for n, k, s, size in axes))


class Interp(_Planes):
    """Bilinear interpolation with aligned corners.

    bottom x (N, C, H, W), top y (N, C, H', W'); pad_beg and pad_end, 0 or negative, first crop x to n cells per axis

        shrink_factor alone  H' = (n - 1) // s + 1        height, width  as given
        zoom_factor alone    H' = n + (n - 1) (z - 1)     both factors   shrunk, then zoomed

        y[h] = x at h (n - 1) / (H' - 1), interpolated between the two nearest cells

    Source: Chen et al., arXiv:1606.00915 (DeepLab); Zhao et al., arXiv:1612.01105 (PSPNet), interp_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        self.planes(x)
        opt = self.opt
        self.require(max(opt.pad_beg, opt.pad_end) <= 0, "pad_beg and pad_end must be 0, or negative to cut off cells")
        for name in ("zoom_factor", "shrink_factor"):
            self.require(getattr(opt, name) >= 1, f"{name} is {getattr(opt, name)}, expected 1 or more")
        self.shaped = opt.HasField("shrink_factor") == opt.HasField("zoom_factor")
        factors = opt.HasField("zoom_factor") or opt.HasField("shrink_factor")
        sized = opt.HasField("height") and opt.HasField("width")
        self.shaped = self.shaped and sized
        self.require(factors or sized, "needs zoom_factor, shrink_factor, or height and width")
        self.sizes(x)

    def forward(self, x: Tensor) -> Tensor:
        sizes, front = self.sizes(x), -self.opt.pad_beg
        for axis in (2, 3):
            x = x.narrow(axis, front, x.shape[axis] - front + self.opt.pad_end)
        return F.interpolate(x, sizes, mode="bilinear", align_corners=True)

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the top."""
        opt = self.opt
        left = [n + opt.pad_beg + opt.pad_end for n in x.shape[2:]]
        self.require(min(left) > 0, f"pad_beg and pad_end cut off all of a bottom of {x.shape[2]} x {x.shape[3]}")
        if self.shaped:
            return self.sized(x, opt.height, opt.width)
        left = [(n - 1) // opt.shrink_factor + 1 for n in left]
        return self.sized(x, *(n + (n - 1) * (opt.zoom_factor - 1) for n in left))


class Reorg(_Planes):
    """Darknet's reorganization of cells into channels, which reinterprets the bottom's memory with other sizes.

    bottom x (N, C, H, W), s = stride, t = C / s^2, o = 0 ... s^2 - 1, X the bottom's memory viewed as (N, t, s H, s W)

        y[n, o t + c, h, w] = X[n, c, s h + o // s, s w + o % s], with y viewed as (N, s^2 C, H / s, W / s)

    `reverse` inverts the direction: Y[n, c, s h + o // s, s w + o % s] = x[n, o t + c, h, w], top (N, t, s H, s W).
    The layer has a gradient, unlike in the sources.
    Source: Redmon and Farhadi, arXiv:1612.08242 (YOLOv2), darknet's reorg_layer.c; gklz1982/caffe-yolov2.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.planes(x)
        self.require(self.opt.stride > 0, "stride must be given and positive")
        self.parts(x)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s, t = self.opt.stride, self.parts(x)
        if self.opt.reverse:
            return x.reshape(n, s, s, t, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, t, h * s, w * s)
        return x.reshape(n, t, h, s, w, s).permute(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)

    def parts(self, x: Tensor) -> int:
        """t, the number of channels of X."""
        s, (c, h, w) = self.opt.stride, x.shape[1:]
        fact = f"a bottom of {c} channels, expected a multiple of stride x stride, {s * s}"
        self.require(c % (s * s) == 0 and c > 0, f"{fact} (YOLOv5's focus, for 3 channels, is another layer)")
        fact = f"a bottom of {h} x {w} cannot be divided by stride {s}"
        self.require(self.opt.reverse or (h % s == 0 and w % s == 0), fact)
        return c // (s * s)


class RESIZE(_Planes):
    """Bilinear interpolation aligned at the first cell. A neighbour beyond the last row or column counts as 0.

    bottom x (N, C, H, W), top y (N, C, height, width)

        y[h] = (1 - f) x[i] + f x[i + 1],  i + f = h H / height, i whole and 0 <= f < 1;  likewise along the rows

    Source: xiaolonw/caffe-3dnormal_joint_pose, resize_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.planes(x)
        others = [name for name in ("function_type", "intepolation_type", "resize_factor") if self.opt.HasField(name)]
        self.require(not others, f"{', '.join(others)} belongs to another layer, Resize; give height and width")
        self.sized(x, self.opt.height, self.opt.width)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (_between(x, n, m) for n, m in zip(x.shape[2:], (self.opt.height, self.opt.width), strict=True))
        return down @ x @ across.t()


class ImResize(_Planes):
    """Bicubic interpolation, as OpenCV's resize with INTER_CUBIC. The layer has no gradient.

    bottom x (N, C, H, W), top y (N, C, H', W'), H' = H factor, or target_spatial_height if no factor is given

        y[h] = weighted mean of the four nearest cells of x at (h + 1/2) H / H' - 1/2, edges repeated; a = -0.75

    start_scale and scale_gap have no effect, as in the CPU code of the source.
    Source: CMU-Perceptual-Computing-Lab/caffe_rtpose, imresize_layer.cpp.
    """

    without_effect = (
        "start_scale",
        "scale_gap",
    )

    constant = (0,)

    def setup(self, x: Tensor) -> None:
        self.planes(x)
        self.sizes(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.sizes(x), mode="bicubic", align_corners=False)

    def sizes(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the top."""
        if self.opt.factor:
            return self.sized(x, *(int(n * self.opt.factor) for n in x.shape[2:]))
        return self.sized(x, self.opt.target_spatial_height, self.opt.target_spatial_width)


def _between(x: Tensor, size: int, top: int) -> Tensor:
    """The weights (top, size) of a linear interpolation aligned at the first cell, in x's dtype."""
    at = torch.arange(top, device=x.device, dtype=torch.float64) * (size / top)
    distance = torch.arange(size, device=x.device, dtype=torch.float64) - at[:, None]
    return (1 - distance.abs()).clamp(min=0).to(x.dtype)
