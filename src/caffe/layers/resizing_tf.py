"""Resizing layers of forks that follow TensorFlow's rules, and MobileNetv2's Resize."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.limits import check_size
from caffe.proto import caffe_pb2

__all__ = ["Resize", "ResizeBilinear", "ResizeNearestNeighbor"]


class _Axes(Layer, abstract=True):
    """Base of Synopsys' layers: the axes of height and width, and their sizes in the top."""

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected four axes")
        known = {"NHWC": (1, 2), "NCHW": (2, 3)}
        self.require(opt.data_format in known, f'data_format is "{opt.data_format}", expected NHWC or NCHW')
        self.axes = known[opt.data_format]
        centred = [name for name in ("align_corners", "half_pixel_centers", "pytorch_half_pixel") if getattr(opt, name)]
        self.require(len(centred) < 2, f"{' and '.join(centred)} contradict each other; keep one")
        self.require(not opt.half_pixel_onnx, "half_pixel_onnx is not implemented; write half_pixel_centers")
        sized = [name for name in ("output_depth", "scale_depth") if opt.HasField(name)]
        self.require(not sized, f"{' and '.join(sized)} are options for five axes, which this layer does not support")
        self.sizes(x)

    def sizes(self, x: Tensor) -> list[int]:
        """Height and width of the top: output_height, or floor(height scale_height)."""
        opt, made = self.opt, []
        for axis, name in zip(self.axes, ("height", "width"), strict=True):
            given, scale = getattr(opt, f"output_{name}"), getattr(opt, f"scale_{name}")
            made.append(given if opt.HasField(f"output_{name}") else int(np.floor(x.shape[axis] * np.float32(scale))))
        fact = f"the top would be {made[0]} x {made[1]}; give output_height and output_width, or scales"
        self.require(min(made) > 0 and min(x.shape) > 0, fact)
        shape = list(x.shape)
        shape[self.axes[0]], shape[self.axes[1]] = made
        check_size("the top", shape, self.error)
        return made

    def steps(self, size: int, top: int) -> tuple[np.ndarray, np.float32]:
        """Return the index of each cell of the top, and the step between cells in cells of the bottom, in float32."""
        aligned = self.opt.align_corners and top > 1
        step = np.float32(size - 1) / np.float32(top - 1) if aligned else np.float32(size) / np.float32(top)
        return np.arange(top, dtype=np.float32), np.float32(step)


class ResizeBilinear(_Axes):
    """Bilinear interpolation by TensorFlow's rules.

    bottom x (N, H, W, C), or (N, C, H, W) with data_format: "NCHW"   top with output_height and output_width, or H, W
    times scale_height, scale_width

        y[i] = x at i H / H', between the two nearest cells; align_corners: i (H - 1) / (H' - 1); half_pixel_centers
        and pytorch_half_pixel: (i + 1/2) H / H' - 1/2, the first or last cell repeated

    pytorch_half_pixel takes the first cell for H' = 1. Source: Synopsys' Caffe, resize_bilinear_layer.cpp.
    """

    def forward(self, x: Tensor) -> Tensor:
        for axis, top in zip(self.axes, self.sizes(x), strict=True):
            x = torch.tensordot(self.between(x, x.shape[axis], top), x.movedim(axis, 0), 1).movedim(0, axis)
        return x.contiguous()

    def between(self, x: Tensor, size: int, top: int) -> Tensor:
        """The weights (top, size) of the interpolation."""
        index, step = self.steps(size, top)
        half = self.opt.half_pixel_centers or self.opt.pytorch_half_pixel
        at = (index + np.float32(0.5)) * step - np.float32(0.5) if half else index * step
        if self.opt.pytorch_half_pixel and top == 1:
            at = np.full(1, -0.5, np.float32)
        low, share = np.floor(at), at - np.floor(at)
        made = np.zeros((top, size))
        np.add.at(made, (np.arange(top), low.clip(0, size - 1).astype(int)), 1 - share.astype(np.float64))
        np.add.at(made, (np.arange(top), np.ceil(at).clip(0, size - 1).astype(int)), share.astype(np.float64))
        return torch.from_numpy(made).to(x)


class ResizeNearestNeighbor(_Axes):
    """Copies of the nearest cell by TensorFlow's rules.

    bottom x (N, H, W, C), or (N, C, H, W) with data_format: "NCHW"   top as for ResizeBilinear

        y[i] = x[floor(i H / H')]; align_corners: x[round(i (H - 1) / (H' - 1))], halves up; half_pixel_centers:
        x[floor((i + 1/2) H / H')]

    Source: Synopsys' Caffe, resize_nearest_neighbor_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        super().setup(x)
        self.require(not self.opt.pytorch_half_pixel, "pytorch_half_pixel is an option of ResizeBilinear; remove it")

    def forward(self, x: Tensor) -> Tensor:
        for axis, top in zip(self.axes, self.sizes(x), strict=True):
            index, step = self.steps(x.shape[axis], top)
            index = index + np.float32(0.5) if self.opt.half_pixel_centers else index
            at = np.floor(index * step + np.float32(0.5 if self.opt.align_corners else 0))
            place = torch.from_numpy(at.clip(0, x.shape[axis] - 1).astype(np.int64)).to(x.device)
            x = x.index_select(axis, place)
        return x


class Resize(Layer, bottoms=(1, 2)):
    """Resizes square maps. The height determines both sizes.

    bottoms: x (N, C, H, H); for BLOB_ALIGN a blob whose height is the top's   top y (N, C, S, S), by function_type
    S = output_size (SIZE_GIVEN), floor(H resize_factor) (FACTOR_GIVEN) or the other's height (BLOB_ALIGN); f = S / H,
    or resize_factor

        NEAREST   y[i] = x[floor(i / f)]
        BILINEAR  y[i] = x at i / f between the two nearest cells; cells beyond the last, and the first cell for i / f
                  between 0 and 1, count as 0, as in the source

    The gradient is exact; the source's leaves out cells. Source: suzhenghang/MobileNetv2, resize_layer.cpp.
    """

    options = "resize_param"
    exempt = (1,)
    constant = (1,)

    def setup(self, x: Tensor, like: Tensor | None = None) -> None:
        opt, kinds = self.opt, caffe_pb2.LayerResizeParameter
        for i, y in enumerate((x,) if like is None else (x, like)):
            fact = f"{self.bottom_name(i)} has shape {shape_text(y.shape)}, expected (N, C, H, W)"
            self.require(y.dim() == 4, fact)
        self.require(x.shape[2] == x.shape[3] > 0, f"takes square maps, not {x.shape[2]} x {x.shape[3]} cells")
        wrong = [name for name in ("height", "width") if opt.HasField(name)]
        self.require(not wrong, f"{', '.join(wrong)} is an option of xiaolonw's RESIZE layer; use output_size")
        for name in ("function_type", "intepolation_type"):
            self.require(opt.HasField(name), f"{name} must be given")
        aligns = opt.function_type == kinds.BLOB_ALIGN
        self.require(aligns == (like is not None), "function_type: BLOB_ALIGN needs two bottoms, other types need one")
        self.nearest = opt.intepolation_type == kinds.NEAREST
        self.kind = kinds.FunctionType.Name(opt.function_type)
        self.scaled(x, like)

    def scaled(self, x: Tensor, like: Tensor | None) -> tuple[int, np.float32]:
        """Return S and f."""
        size = x.shape[2]
        if self.kind == "FACTOR_GIVEN":
            factor = np.float32(self.opt.resize_factor)
            top = int(np.float32(size) * factor)
        else:
            top = self.opt.output_size if like is None else like.shape[2]
            factor = np.float32(top) / np.float32(size)
        self.require(top > 0, f"the top would be {top} x {top} for a bottom of {size} x {size}; give another size")
        check_size("the top", (*x.shape[:2], top, top), self.error)
        return top, factor

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        top, factor = self.scaled(x, like)
        at = np.arange(top, dtype=np.float32) / factor
        if self.nearest:
            place = torch.from_numpy(at.astype(np.int64).clip(0, x.shape[2] - 1)).to(x.device)
            return x.index_select(2, place).index_select(3, place)
        made = (1 - np.abs(at[:, None].astype(np.float64) - np.arange(x.shape[2]))).clip(0)
        made[(at > 0) & (at < 1), 0] = 0
        weights = torch.from_numpy(made).to(x)
        return weights @ x @ weights.t()
