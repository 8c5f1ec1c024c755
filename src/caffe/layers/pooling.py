"""Pooling layers: the maximum, mean or a random pick of the cells in a sliding window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, is_exported, shape_text
from caffe.layers.support.by_shape import ByShape
from caffe.layers.support.geometry import FAR, pad_axes, per_axis
from caffe.layers.support.values import sizes as plain_sizes
from caffe.limits import check_size
from caffe.proto import caffe_pb2

__all__ = ["SPP", "Pooling"]

MAX, AVE, STOCHASTIC = (
    caffe_pb2.PoolingParameter.MAX,
    caffe_pb2.PoolingParameter.AVE,
    caffe_pb2.PoolingParameter.STOCHASTIC,
)


_TINY = 1 << 12
"""Up to this number of elements, changing the memory layout takes longer than the pooling."""
_LARGE = 1 << 17
"""From this number of elements on, a maximum is computed by a few passes over the data, not by torch's kernel."""


@dataclass(frozen=True)
class Grid:
    """The windows of a pooling. All fields are (height, width)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] = (0, 0)
    ceil: bool = True
    counts_padding: bool = True
    """Whether the cells of the padding count in a mean."""

    def windows(self, sizes: Sequence[int]) -> list[int]:
        """The number of windows along each axis. With padding on either axis, a last window beyond the image is
        dropped."""
        counts = []
        for n, k, s, p in zip(sizes, self.kernel, self.stride, self.pad, strict=True):
            room = n + 2 * p - k
            count = (-(-room // s) if self.ceil else room // s) + 1
            counts.append(count - (any(self.pad) and (count - 1) * s >= n + p))
        return counts

    def clamped(self, sizes: Sequence[int]) -> Grid:
        """Equivalent windows with a kernel and stride limited to the size of the padded image.

        A kernel larger than the padded image has one window, which covers the image. The stride is limited, so that a
        second window beyond the image starts just after it.
        """
        room = [n + 2 * p for n, p in zip(sizes, self.pad, strict=True)]
        kernel = tuple(min(k, n) if n else k for k, n in zip(self.kernel, room, strict=True))
        return replace(self, kernel=kernel, stride=tuple(min(s, n + 1) for s, n in zip(self.stride, room, strict=True)))

    def reach(self, sizes: Sequence[int]) -> list[int]:
        """The size of the image after padding it as far as the windows reach."""
        axes = zip(sizes, self.windows(sizes), self.kernel, self.stride, self.pad, strict=True)
        return [max(n + p, (count - 1) * s + k) for n, count, k, s, p in axes]

    def is_plain(self, sizes: Sequence[int]) -> bool:
        """Whether torch's own padding and rounding give the same windows. Then no padded copy is needed.

        torch requires pad <= kernel / 2. It drops a last window beyond the image even if there is no padding.
        """
        axes = zip(sizes, self.windows(sizes), self.kernel, self.stride, self.pad, strict=True)
        return all(2 * p <= k and (count - 1) * s < n + p for n, count, k, s, p in axes)

    def padded(self, x: Tensor, value: float) -> Tensor:
        """x (N, C, H, W) padded with `value` as far as the windows reach."""
        sizes = plain_sizes(x)[2:]
        after = [far - n - p for far, n, p in zip(self.reach(sizes), sizes, self.pad, strict=True)]
        return pad_axes(x, self.pad, after, value)

    def cells(self, sizes: Sequence[int]) -> list[list[int]]:
        """The numbers of rows and columns of each window that count: those inside the padded image, or the image."""
        axes = zip(sizes, self.windows(sizes), self.kernel, self.stride, self.pad, strict=True)
        if self.counts_padding:
            return [[min(k, n + 2 * p - i * s) for i in range(count)] for n, count, k, s, p in axes]
        return [[min(i * s - p + k, n) - max(i * s - p, 0) for i in range(count)] for n, count, k, s, p in axes]


class _RandomPick(Layer, abstract=True):
    """Base of the layers that, with pool: STOCHASTIC in TRAIN, pick a random cell of each window."""

    effects = Effects.RANDOM

    @property
    def effects_now(self) -> Effects:
        return self.effects if self.training and self.opt.pool == STOCHASTIC else Effects.NONE


class Pooling(_RandomPick, tops=(1, 2)):
    """Maximum, mean or random pick of each channel over a sliding window.

    bottom x (N, C, H, W), top y (N, C, H', W') with H' = ceil((H + 2 pad - kernel) / stride) + 1, or floor
    second top of MAX: the index h W + w of the maximum in its H x W plane; the first index if several cells are equal

        MAX         y = max of x over the window (padding never wins)
        AVE         y = sum of x / cells of the window that lie in the padded image;
                    with avg_include_pad: false (Intel's Caffe), in the image
        STOCHASTIC  TRAIN: y = one x of the window, with probability x / sum of x;  TEST: y = sum x^2 / sum x

    STOCHASTIC is for non-negative bottoms; negative cells are never picked. Caffe has it on the GPU only.
    Source: BVLC pooling_layer.cpp; Zeiler and Fergus, arXiv:1301.3557.
    """

    records = Records.EACH
    forgets_top = True
    lowering = Lowering.FOLLOW
    honours = ("PoolingParameter.avg_include_pad",)

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.masked = len(self.spec.top) == 2
        if self.masked or opt.pool == STOCHASTIC:
            self.lowering = Lowering.NEVER  # 16 bits are too few for cell indices and for sums of probabilities
        self.require(opt.pool == MAX or not self.masked, "the second top, a mask, exists with pool: MAX only")
        self.grid = read_grid(self)
        if any(self.grid.pad):
            self.require(opt.pool != STOCHASTIC, "pool: STOCHASTIC does not support padding")
            for pad, kernel in zip(self.grid.pad, self.grid.kernel, strict=True):
                self.require(pad < kernel, f"pad {pad} must be less than kernel {kernel}: some windows hold no cell")
        self._grids: ByShape[Grid] = ByShape()
        self._window(plain_sizes(x))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        grid = self._grids.of(x, self._window)
        if self.masked:
            return max_pool_mask(x, grid)
        return pool(x, self.opt.pool, grid, self.training)

    def _window(self, shape: tuple[int, ...]) -> Grid:
        """The windows for a bottom of this shape. Raises an error if there is none."""
        sizes, grid = tuple(shape[2:]), self.grid
        if self.opt.global_pooling:
            grid = Grid(sizes)
        counts = grid.windows(sizes)
        if min(counts) < 1:
            height, width = sizes
            self.error(f"kernel {grid.kernel} with pad {grid.pad} does not fit into a bottom of {height} x {width}")
        if self.opt.global_pooling or max(*grid.kernel, *grid.stride, *grid.pad) < FAR:
            return grid
        check_size("the top", (*shape[:2], *counts), self.error)
        grid = grid.clamped(sizes)
        if not grid.is_plain(sizes):
            check_size("the bottom with its padding", (*shape[:2], *grid.reach(sizes)), self.error)
        return grid


class SPP(_RandomPick):
    """Spatial pyramid pooling: pools the bottom into grids of 1 x 1, 2 x 2, 4 x 4 ... cells and concatenates them.

    bottom x (N, C, H, W), top y (N, C (1 + 4 + ... + 4^(pyramid_height - 1))); with height 1, (N, C, 1, 1)

        level i: windows of ceil(H / 2^i) x ceil(W / 2^i), side by side, padded evenly to cover the bottom

    Source: He et al., arXiv:1406.4729; BVLC spp_layer.cpp.
    """

    records = Records.EACH

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.require(self.opt.pyramid_height > 0, "pyramid_height must be given and positive")
        self._levels(x)

    def forward(self, x: Tensor) -> Tensor:
        tops = [pool(x, self.opt.pool, grid, self.training) for grid in self._levels(x)]
        return tops[0] if len(tops) == 1 else torch.cat([top.flatten(1) for top in tops], 1)

    def _levels(self, x: Tensor) -> list[Grid]:
        sizes, grids = plain_sizes(x)[2:], []
        for bins in (2**level for level in range(self.opt.pyramid_height)):
            height, width = (math.ceil(n / bins) for n in sizes)
            pad = ((height * bins - sizes[0] + 1) // 2, (width * bins - sizes[1] + 1) // 2)
            if pad[0] >= height or pad[1] >= width:
                self.error(
                    f"a bottom of {shape_text(sizes)} is too small for {bins} x {bins} cells; lower pyramid_height"
                )
            if any(pad) and self.opt.pool == STOCHASTIC:
                self.error(f"pool: STOCHASTIC needs sizes that {bins} divides, the bottom has {shape_text(sizes)}")
            grids.append(Grid((height, width), (height, width), pad))
        return grids


def read_grid(layer: Layer) -> Grid:
    """The windows that a PoolingParameter describes. With global_pooling the kernel is (0, 0), a placeholder."""
    opt = layer.opt
    stride, pad = per_axis(layer, "stride", 2, 1), per_axis(layer, "pad", 2, 0)
    if opt.global_pooling:
        given = [name for name in ("kernel_size", "kernel_h", "kernel_w") if opt.HasField(name)]
        layer.require(not given, f"global_pooling takes the whole bottom as its window; remove {', '.join(given)}")
        layer.require(stride == (1, 1) and pad == (0, 0), "global_pooling has one window; remove stride and pad")
        kernel: tuple[int, ...] = (0, 0)
    else:
        kernel = per_axis(layer, "kernel_size", 2)
        layer.require(min(kernel) > 0, f"kernel {kernel} must be positive on both axes")
        layer.require(min(stride) > 0, f"stride {stride} must be positive on both axes")
    return Grid(kernel, stride, pad, opt.round_mode == caffe_pb2.PoolingParameter.CEIL, opt.avg_include_pad)


def pool(x: Tensor, method: int, grid: Grid, training: bool) -> Tensor:
    """Pool x (N, C, H, W) by MAX, AVE or STOCHASTIC."""
    if method == MAX:
        return max_pool(x, grid)
    return mean_pool(x, grid) if method == AVE else random_pool(x, grid, training)


def max_pool(x: Tensor, grid: Grid) -> Tensor:
    """The largest cell of each window."""
    if not grid.is_plain(plain_sizes(x)[2:]):
        x, grid = grid.padded(x, torch.finfo(x.dtype).min), Grid(grid.kernel, grid.stride, ceil=False)
    if is_exported():
        return F.max_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode=grid.ceil)
    learns = x.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        windows = grid.kernel, grid.stride, grid.pad, grid.ceil
        return _OpaqueMaxPool.apply(x, *windows) if learns else _opaque_max(x, *windows)
    if x.device.type == "cpu" and not learns and x.numel() >= _LARGE and _lies_last(x):
        return _largest(_largest(x, 2, grid), 3, grid)
    tiny = not learns and x.numel() <= _TINY  # with autograd, torch's kernel keeps the bottom
    if x.is_cpu and not tiny and (_lies_last(x) or (x.shape[1] >= 8 and x.is_contiguous())):
        return _MaxPool.apply(x, grid) if learns else _maxima_last(x, grid)[0]
    return F.max_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode=grid.ceil)


def _lies_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _largest(x: Tensor, axis: int, grid: Grid) -> Tensor:
    """The largest cell of each window along one axis. Unlike torch's kernel this does not compute indices."""
    n, kernel, stride, pad = x.shape[axis], grid.kernel[axis - 2], grid.stride[axis - 2], grid.pad[axis - 2]
    count = grid.windows(x.shape[2:])[axis - 2]
    spans = {}
    reached = range(max(0, pad - (count - 1) * stride), min(kernel, n + pad))
    for cell in reached:  # for windows first ... after - 1, the cell with this number lies in the image
        first, after = max(0, -(-(pad - cell) // stride)), min(count, (n - 1 + pad - cell) // stride + 1)
        start = first * stride + cell - pad
        spans[cell] = first, after, _part(x, axis, start, start + (after - first - 1) * stride + 1, stride)
    whole = [cell for cell, (first, after, _) in spans.items() if first == 0 and after == count][:2]
    if whole:
        y = torch.maximum(spans[whole[0]][2], spans[whole[-1]][2])
    else:
        sizes = [count if i == axis else size for i, size in enumerate(x.shape)]
        y = torch.empty(sizes, dtype=x.dtype, memory_format=torch.channels_last).fill_(torch.finfo(x.dtype).min)
    for cell, (first, after, cells) in spans.items():
        if first < after and cell not in whole:
            part = _part(y, axis, first, after)
            torch.maximum(part, cells, out=part)
    return y


def _part(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    part = slice(start, stop, step)
    return x[:, :, part] if axis == 2 else x[:, :, :, part]


def _maxima_last(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The maxima and their indices, by torch's kernel for channels_last.

    On the CPU that kernel is several times faster, also for bottoms in other layouts.
    """
    order = _order(x)
    last = x.contiguous(memory_format=torch.channels_last)
    windows = (grid.kernel, grid.stride, grid.pad)
    y, index = F.max_pool2d(last, *windows, ceil_mode=grid.ceil, return_indices=True)
    return y.contiguous(memory_format=order), index


def _order(x: Tensor) -> torch.memory_format:
    return torch.channels_last if _lies_last(x) else torch.contiguous_format


class _MaxPool(torch.autograd.Function):
    """Maximum by `_maxima_last`.

    Saves the indices of the maxima. Of the bottom, backward needs only the shape and the memory order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        y, index = _maxima_last(x, grid)
        ctx.shape, ctx.order = x.shape, _order(x)
        ctx.options = (grid.kernel, grid.stride, grid.pad, (1, 1), grid.ceil)
        ctx.save_for_backward(index.contiguous(memory_format=ctx.order))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        like = torch.empty(ctx.shape, dtype=dy.dtype, memory_format=ctx.order)
        dy = dy.contiguous(memory_format=ctx.order)
        return torch.ops.aten.max_pool2d_with_indices_backward(dy, like, *ctx.options, index), None


class _OpaqueMaxPool(torch.autograd.Function):
    """Maximum by torch's kernels, which torch.compile does not trace into.

    Otherwise torch.compile would fuse the pooling with the operation that computes the bottom, and recompute each cell
    for every window that contains it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *windows: Any) -> Tensor:
        y, index = _opaque_maxima(x, *windows)
        ctx.save_for_backward(x, index)
        ctx.windows = windows
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _opaque_spread(dy, *ctx.saved_tensors, *ctx.windows), None, None, None, None


def _maximum(x: Tensor, kernel: list[int], stride: list[int], pad: list[int], ceil: bool) -> Tensor:
    return max_pool(x, Grid(tuple(kernel), tuple(stride), tuple(pad), ceil))


def _maxima(x: Tensor, kernel: list[int], stride: list[int], pad: list[int], ceil: bool) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)


def _spread(dy: Tensor, x: Tensor, index: Tensor, *windows: Any) -> Tensor:
    """The gradient of x: dy at the indices of the maxima."""
    kernel, stride, pad, ceil = windows
    return torch.ops.aten.max_pool2d_with_indices_backward(dy, x, kernel, stride, pad, (1, 1), ceil, index)


def _opaque(name: str, operation: Any, operands: str, tops: str, fake: Any) -> Any:
    schema = f"({operands}, int[] kernel, int[] stride, int[] pad, bool ceil) -> {tops}"
    made = torch.library.custom_op(f"cafetiere::{name}", operation, mutates_args=(), schema=schema)
    made.register_fake(fake)
    return made


_opaque_max = _opaque("max_pool", _maximum, "Tensor x", "Tensor", lambda x, *windows: _maxima(x, *windows)[0])
_opaque_maxima = _opaque("max_pool_with_index", _maxima, "Tensor x", "(Tensor, Tensor)", _maxima)
_opaque_spread = _opaque(
    "max_pool_gradient", _spread, "Tensor dy, Tensor x, Tensor index", "Tensor", lambda dy, x, *_: torch.empty_like(x)
)


def max_pool_mask(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The largest cell of each window and its index in the plane, in x's dtype; -1 for a window without cells."""
    padded = grid.padded(x, torch.finfo(x.dtype).min)
    y, index = F.max_pool2d(padded, grid.kernel, grid.stride, return_indices=True)
    row, column = index // padded.shape[3] - grid.pad[0], index % padded.shape[3] - grid.pad[1]
    inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
    return y, torch.where(inside, row * x.shape[3] + column, -1).to(x.dtype)


def mean_pool(x: Tensor, grid: Grid) -> Tensor:
    """The sum of each window divided by the number of its cells that count."""
    sizes = plain_sizes(x)[2:]
    if grid.kernel == tuple(sizes) and not any(grid.pad):
        return x.mean((2, 3), keepdim=True)
    cells = grid.cells(sizes)
    whole = all(set(counts) == {kernel} for counts, kernel in zip(cells, grid.kernel, strict=True))
    counted = whole or not any(grid.pad) or not is_exported()  # OpenVINO also counts cells beyond the padding
    if grid.is_plain(sizes) and counted:
        return F.avg_pool2d(x, grid.kernel, grid.stride, grid.pad, grid.ceil, grid.counts_padding)
    mean = F.avg_pool2d(grid.padded(x, 0), grid.kernel, grid.stride)
    rows, columns = (x.new_tensor(counts) for counts in cells)
    return mean * (math.prod(grid.kernel) / (rows[:, None] * columns))


def random_pool(x: Tensor, grid: Grid, training: bool) -> Tensor:
    """Pick one cell of each window with probability cell / sum. Outside of training, return the expected value."""
    cells = grid.padded(x, 0)
    for axis in (2, 3):
        cells = cells.unfold(axis, grid.kernel[axis - 2], grid.stride[axis - 2])
    cells = cells.flatten(4)  # (N, C, H', W', cells of a window)
    if not training:
        total = cells.sum(-1)
        return cells.square().sum(-1) / torch.where(total > 0, total, 1)
    ladder = cells.detach().clamp(min=0).cumsum(-1)
    bar = torch.rand_like(ladder[..., :1]) * ladder[..., -1:]
    return cells.gather(-1, (ladder < bar).sum(-1, keepdim=True)).squeeze(-1)
