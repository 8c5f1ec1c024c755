"""Layers of forks that reorder elements."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Layer, Lowering, Records, shape_text

__all__ = ["DepthToSpace", "Flip", "Gather", "Reverse", "ShuffleChannel", "SpaceToDepth", "Transpose"]


class ShuffleChannel(Layer):
    """Interleaves the channels of the groups: the first channel of each group, then the second of each, and so on.

    bottom x (N, C, ...), top y of the same shape, g = group

        y[n, i g + j] = x[n, j C / g + i]

    Source: Zhang et al., arXiv:1707.01083 (ShuffleNet); farmingyard/ShuffleNet.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        self.require(self.opt.group > 0, "group must be positive")
        fact = f"{x.shape[1]} channels cannot be split into group: {self.opt.group} equal parts"
        self.require(x.shape[1] % self.opt.group == 0, fact)

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.opt.group, -1)).transpose(1, 2).flatten(1, 2)


class Flip(Layer):
    """Mirrors an image horizontally, vertically or both ways.

    bottom x (N, C, H, W), top y of the same shape

        flip_width (true)  y[..., w] = x[..., W - 1 - w]        flip_height (false)  likewise for h

    Source: happynear/caffe-windows, flip_layer.cpp.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.axes = [axis for axis, on in ((2, self.opt.flip_height), (3, self.opt.flip_width)) if on]

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.axes)


class Reverse(Layer):
    """Reverses the elements along one axis.

    bottom x, top y of the same shape

        y[..., i, ...] = x[..., size - 1 - i, ...]

    Source: jolibrain/caffe, senlinuc/caffe_ocr, reverse_layer.cpp.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.axis(self.opt.axis, x)

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.opt.axis)


class Transpose(Layer):
    """Permutes the axes. `dim` names each axis once.

    bottom x, top y with y.shape[i] = x.shape[dim[i]]

        y[i_dim[0], i_dim[1], ...] = x[i_0, i_1, ...]

    Source: senlinuc/caffe_ocr, transpose_layer.cpp.
    """

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        dims = self.order = list(self.opt.dim)
        fact = f"dim {dims} does not name each of the {x.dim()} axes of shape {shape_text(x.shape)} once"
        self.require(sorted(dims) == list(range(x.dim())), fact)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Gather(Layer, bottoms=(1, None), tops=(1, None)):
    """Copies its bottoms. In the fork the layer gathers batches from all processes; here there is one process.

    bottoms x_i, tops y_i = x_i

    Source: yjxiong/caffe (TSN), whose MPI build joins the batches of all processes.
    """

    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        fact = f"has {self.top_count} tops, expected one for each of the {len(bottoms)} bottoms"
        self.require(self.top_count == len(bottoms), fact)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.clone(x) for x in bottoms)


class _Blocks(Layer, abstract=True):
    """Base of SpaceToDepth and DepthToSpace, which exchange blocks of cells and channels."""

    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.require(self.opt.block_size > 0, "block_size must be given and positive")
        self.check(x, self.opt.block_size)

    def check(self, x: Tensor, size: int) -> None:
        """Raise the error for a bottom that has no whole blocks of `size`."""
        raise NotImplementedError


class SpaceToDepth(_Blocks):
    """Moves the cells of each block into channels, the first cell of the block first.

    bottom x (N, C, H, W), top y (N, s^2 C, H / s, W / s), s = block_size

        y[n, (i s + j) C + c, h, w] = x[n, c, s h + i, s w + j]

    Source: TensorFlow's space_to_depth; Synopsys/caffe, space_to_depth_layer.cpp (NCHW).
    """

    records = Records.EACH

    def check(self, x: Tensor, size: int) -> None:
        fact = f"a bottom of {x.shape[2]} x {x.shape[3]} cells cannot be divided by block_size {size}"
        self.require(x.shape[2] % size == 0 and x.shape[3] % size == 0, fact)

    def forward(self, x: Tensor) -> Tensor:
        size = self.opt.block_size
        n, c, h, w = x.shape
        cells = x.reshape(n, c, h // size, size, w // size, size)
        return cells.permute(0, 3, 5, 1, 2, 4).reshape(n, size * size * c, h // size, w // size)


class DepthToSpace(_Blocks):
    """Moves channels into the cells of blocks: the inverse of SpaceToDepth.

    bottom x (N, s^2 C, H, W), top y (N, C, s H, s W), s = block_size

        y[n, c, s h + i, s w + j] = x[n, (i s + j) C + c, h, w]

    Source: TensorFlow's depth_to_space; Synopsys/caffe, depth_to_space_layer.cpp (NCHW).
    """

    records = Records.EACH

    def check(self, x: Tensor, size: int) -> None:
        fact = f"{x.shape[1]} channels are not a multiple of block_size x block_size, {size * size}"
        self.require(x.shape[1] % (size * size) == 0, fact)

    def forward(self, x: Tensor) -> Tensor:
        size = self.opt.block_size
        n, c, h, w = x.shape
        cells = x.reshape(n, size, size, c // (size * size), h, w)
        return cells.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (size * size), h * size, w * size)
