"""Layers of optical flow and stereo: FlowNet's and DispNet's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, shape_text
from caffe.layers.support.bilinear import interpolated
from caffe.limits import check_size
from caffe.proto import caffe_pb2, weights

__all__ = ["Accum", "Correlation", "Correlation1D", "Downsample", "FlowWarp", "LpqLoss", "Mean", "Resample"]

SUBTRACT = caffe_pb2.CorrelationParameter.SUBTRACT
NEAREST, CUBIC, AREA = (caffe_pb2.ResampleParameter.ResampleType.Value(name) for name in ("NEAREST", "CUBIC", "AREA"))


class Correlation(Layer, bottoms=2):
    """Compares each position of one feature map with nearby positions of another.

    bottoms: a, b (N, C, H, W)   top (N, D^2, H', W'), D = 2 r + 1, r = max_displacement / stride_2
    H' = (H + 2 pad - 2 max_displacement - kernel_size + 1) / stride_1, divided upwards

        y[(v + r) D + u + r] at p = mean over channels and the window at p of a b', b' = b moved by stride_2 (u, v)

    With correlation_type: SUBTRACT y is the mean of |a - b'|. The padding is zeros. do_abs has no effect, as in the
    source.
    Source: Dosovitskiy et al., arXiv:1504.06852 (FlowNet); lmb-freiburg/flownet2, correlation_layer.cu.
    """

    without_effect = ("do_abs",)

    flat = False
    """Whether displacements are horizontal only."""

    def setup(self, a: Tensor, b: Tensor) -> None:
        opt = self.opt
        for i, x in enumerate((a, b)):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected (N, C, H, W), as the other one"
            self.require(x.dim() == 4 and x.shape == a.shape, fact)
        self.require(opt.kernel_size % 2 == 1, f"kernel_size is {opt.kernel_size}, expected an odd number")
        self.require(opt.HasField("max_displacement"), "max_displacement must be given")
        self.require(opt.stride_1 > 0 and opt.stride_2 > 0, "stride_1 and stride_2 must be positive")
        self.require(opt.single_direction in (-1, 0, 1), "single_direction must be -1, 0 or 1")
        self.require(self.flat or not opt.single_direction, "single_direction is for Correlation1D; remove it")
        down, across = (0 if self.flat else opt.max_displacement), opt.max_displacement
        pads = (0 if self.flat else opt.pad), opt.pad
        sizes = zip(a.shape[2:], pads, (down, across), strict=True)
        fits = all(n + 2 * pad - 2 * far - opt.kernel_size + 1 > 0 for n, pad, far in sizes)
        fact = f"max_displacement and kernel_size do not fit in {shape_text(a.shape)} with pad {opt.pad}"
        self.require(fits, f"{fact}; make them smaller or the pad larger")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        opt = self.opt
        far, radius, step = opt.max_displacement, opt.max_displacement // opt.stride_2, opt.stride_2
        down, pad = (0, 0) if self.flat else (far, opt.pad)
        columns = range(-radius, radius + 1)
        if opt.single_direction:
            columns = range(-radius - 1, 0) if opt.single_direction < 0 else range(radius + 1)
        rows = [0] if self.flat else list(range(-radius, radius + 1))
        height, width = a.shape[2] + 2 * pad - 2 * down, a.shape[3] + 2 * opt.pad - 2 * far
        a = F.pad(a, (opt.pad, opt.pad, pad, pad))[:, :, down : down + height, far : far + width]
        more = step if opt.single_direction < 0 else 0  # one displacement reaches beyond the padding
        b = F.pad(b, (opt.pad + more, opt.pad, pad, pad))
        tops = []
        for v in rows:
            line = b[:, :, down + v * step :][:, :, :height]
            for u in columns:
                moved = line[..., far + more + u * step :][..., :width]
                one = (a - moved).abs() if opt.correlation_type == SUBTRACT else a * moved
                tops.append(one.mean(1))
        return F.avg_pool2d(torch.stack(tops, 1), opt.kernel_size, opt.stride_1)


class Correlation1D(Correlation, bottoms=2, options="correlation_param"):
    """Correlation with horizontal displacements only.

    bottoms: a, b (N, C, H, W)   top (N, D, H', W'), D = 2 r + 1, or r + 1 with single_direction
    H' = (H - kernel_size + 1) / stride_1, W' and r as for Correlation

        y[u] as for Correlation with v = 0; u = -r ... r, 0 ... r for single_direction 1, -r - 1 ... -1 for -1

    Cells beyond the padding are 0; the source reads the end of the previous row there.
    Source: Mayer et al., arXiv:1512.02134 (DispNet); lmb-freiburg/flownet2, correlation_layer1d.cu.
    """

    flat = True


class FlowWarp(Layer, bottoms=2):
    """Warps a map by a flow field, with bilinear interpolation.

    bottoms: x (N, C, H, W), flow (N, 2, H, W), columns and rows   top y of x's shape

        y[p] = x(p + flow[p]), 0 (or NaN, see fill_value) outside the map

    A neighbour beyond the last row or column is replaced by the last one.

    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), flow_warp_layer.cpp.
    """

    def setup(self, x: Tensor, flow: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        wanted = (x.shape[0], 2, *x.shape[2:])
        fact = f"{self.bottom_name(1)} has shape {shape_text(flow.shape)}, expected {shape_text(wanted)}"
        self.require(tuple(flow.shape) == wanted, f"{fact}: the step in columns and in rows of each cell")

    def forward(self, x: Tensor, flow: Tensor) -> Tensor:
        height, width = x.shape[2:]
        column = flow[:, 0] + torch.arange(width, device=x.device, dtype=x.dtype)
        row = flow[:, 1] + torch.arange(height, device=x.device, dtype=x.dtype).unsqueeze(1)
        inside = ((column >= 0) & (row >= 0) & (column < width) & (row < height)).unsqueeze(1)
        fill = 0.0 if self.opt.fill_value == caffe_pb2.FlowWarpParameter.ZERO else torch.nan
        found = interpolated(x, *(z.where(inside.squeeze(1), 0) for z in (row, column)))
        return found.where(inside, fill)


class _Sized(Layer, abstract=True):
    """Base of the layers that resize planes, to the size of bottom 1 or to the one given."""

    exempt = (0, 1)
    constant = (0, 1)

    def sized(self, x: Tensor, other: Tensor | None, given: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the top."""
        for i, plane in enumerate((x, other)):
            if plane is not None and plane.dim() != 4:
                self.error(f"{self.bottom_name(i)} has shape {shape_text(plane.shape)}, expected (N, C, H, W)")
        if other is not None:
            given = (other.shape[2], other.shape[3])
        fact = f"the top would be {given[0]} x {given[1]}; give a height and a width above 0, or a second bottom"
        self.require(min(given) > 0 and x.shape[2:].numel() > 0, fact)
        check_size("the top", (*x.shape[:2], *given), self.error)
        return given


class Resample(_Sized, bottoms=(1, 2)):
    """Resizes planes by nearest, linear or cubic interpolation. The layer has no gradient.

    bottoms: x (N, C, H, W); optionally a blob that gives the top's height and width   top (N, C, height, width)

        y[i] = sum of w(a (q - j)) x[j] / sum of w, over cells j;  q = i f + g / 2 - 1/2

    f is H / height for rows and W / width for columns; g is the f of the other axis, as in the source. a is 1 / f with
    antialias if either f is above 1, else 1. w is a triangle, or with type: CUBIC the cubic kernel with -1/2.
    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), resample_layer.cu.
    """

    traceable = False  # OpenVINO's compile_model hangs on this layer

    def setup(self, x: Tensor, other: Tensor | None = None) -> None:
        opt = self.opt
        self.require(opt.type != AREA, "type: AREA is not known to the source; write LINEAR, CUBIC or NEAREST")
        self.require(opt.factor == 1, "factor has no effect in the source; give height and width")
        self.sized(x, other, (opt.height, opt.width))

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x, sizes = x.detach(), self.sized(x, other, (self.opt.height, self.opt.width))
        factors = [n / m for n, m in zip(x.shape[2:], sizes, strict=True)]
        smooth = self.opt.antialias and max(factors) > 1
        rows, columns = (self._weights(x, x.shape[2 + i], sizes[i], factors[i], factors[1 - i], smooth) for i in (0, 1))
        return rows @ x @ columns.mT

    def _weights(self, x: Tensor, cells: int, size: int, factor: float, other: float, smooth: bool) -> Tensor:
        """The weight (size, cells) of each input cell for each output cell."""
        kind = {"device": x.device, "dtype": torch.float64}
        place = (torch.arange(size, **kind) * factor + other / 2 - 0.5).unsqueeze(1)  # type: ignore[call-overload]
        if self.opt.type == NEAREST:
            nearest = (place.abs() + 0.5).floor() * place.sign()
            here = torch.arange(cells, device=x.device) == nearest.clamp(0, cells - 1)
            return here.to(x.dtype)
        distance = (place - torch.arange(cells, **kind)).abs() / (factor if smooth else 1)  # type: ignore[call-overload]
        weight = _cubic(distance) if self.opt.type == CUBIC else (1 - distance).clamp(min=0)
        total = weight.sum(1, keepdim=True)
        return (weight / total.where(total != 0, 1)).to(x.dtype)


def _cubic(d: Tensor) -> Tensor:
    """Keys' cubic kernel with -1/2 at distances d >= 0."""
    far = (d * (d * (2.5 - 0.5 * d) - 4) + 2).where(d < 2, 0)
    return (d * d * (1.5 * d - 2.5) + 1).where(d <= 1, far)


class Downsample(_Sized, bottoms=(1, 2)):
    """Shrinks planes with a triangle filter as wide as the step. NaN is left out; the layer has no gradient.

    bottoms: x (N, C, H, W); optionally a blob that gives the top's size   top (N, C, top_height, top_width)

        y[i] = sum of w x[j] / sum of w, w = max(0, 1 - |q - j| / s) for rows times that for columns
        q = i s, s = (H - 1) / (top_height - 1), likewise for columns; y is NaN if NaN cells have half as much weight
        as the others

    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), downsample_layer.cu.
    """

    def setup(self, x: Tensor, other: Tensor | None = None) -> None:
        sizes = self.sized(x, other, (self.opt.top_height, self.opt.top_width))
        fact = f"the top would be {sizes[0]} x {sizes[1]}; expected 2 or more of each"
        self.require(min(sizes) > 1 or sizes == tuple(x.shape[2:]), fact)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x, sizes = x.detach(), self.sized(x, other, (self.opt.top_height, self.opt.top_width))
        if sizes == tuple(x.shape[2:]):
            return x.clone()
        rows, columns = (_triangle(x, n, size) for n, size in zip(x.shape[2:], sizes, strict=True))
        lost = x.isnan()
        value, weight, nothing = (rows @ z @ columns.mT for z in (x.where(~lost, 0), (~lost).to(x), lost.to(x)))
        return (value / weight).where(nothing / weight <= 0.5, torch.nan)


def _triangle(x: Tensor, cells: int, size: int) -> Tensor:
    """The weight (size, cells) of each input cell for each cell of the smaller axis."""
    scale = max(cells - 1, 0) / (size - 1) if size > 1 else 1.0
    place = torch.arange(size, device=x.device, dtype=torch.float64).unsqueeze(1) * scale
    distance = (place - torch.arange(cells, device=x.device, dtype=torch.float64)).abs()
    return (1 - distance / (scale or 1)).clamp(min=0).to(x.dtype)


class Mean(Layer, bottoms=(1, None), tops=(1, None)):
    """Adds or subtracts a mean.

    bottoms x_i (N, C, H, W), tops y_i of the same shapes

        y = output_scale (input_scale x + mean_scale m), or - m with operation: SUBTRACT

    m is one number of `value` for each channel (repeated if there are fewer), or is read from the BlobProto `file`.
    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), mean_layer.cpp, which has no gradient.
    """

    mean: Tensor

    def setup(self, *bottoms: Tensor) -> None:
        opt = self.opt
        self.require(self.top_count == len(bottoms), f"has {len(bottoms)} bottoms and {self.top_count} tops")
        self.require(bool(opt.file) != bool(opt.value), "needs either file or value")
        if opt.file:
            mean = torch.from_numpy(weights.read_mean(opt.file)).float()
            mean = mean.reshape(mean.shape[-3:])
        else:
            mean = torch.tensor(list(opt.value)).view(-1, 1, 1)
        self.register_buffer("mean", mean)
        for i, x in enumerate(bottoms):
            fits = x.dim() == 4 and x.shape[1] % len(mean) == 0
            fits = fits and all(m in (1, n) for m, n in zip(mean.shape[1:], x.shape[2:], strict=True))
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, and the mean {shape_text(mean.shape)}"
            self.require(fits, f"{fact}; expected (N, C, H, W) with a multiple of its channels, and its size")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        opt = self.opt
        sign = -1 if opt.operation == caffe_pb2.MeanParameter.SUBTRACT else 1
        tops = []
        for x in bottoms:
            mean = self.mean.to(x.dtype).repeat(x.shape[1] // len(self.mean), 1, 1)
            tops.append(opt.output_scale * (opt.input_scale * x + sign * opt.mean_scale * mean))
        return tuple(tops)


class Accum(Layer, bottoms=(1, None)):
    """Resizes all bottoms to one size by linear interpolation and concatenates them along the channels.

    bottoms x_i (N, C_i, H_i, W_i); with have_reference one more, which only gives H and W   top (N, sum of C_i, H, W)

    H and W are the largest of the bottoms, or top_height and top_width if both are larger, rounded up to a multiple of
    size_divisible_by. The corners are aligned.
    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), accum_layer.cpp.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.require(len(bottoms) > self.opt.have_reference, "has 1 bottom, expected 2 or more with have_reference")
        for i, x in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected ({bottoms[0].shape[0]}, C, H, W)"
            fits = x.dim() == 4 and x.shape[0] == bottoms[0].shape[0] and x.shape[1:].numel() > 0
            self.require(fits, fact)
        self.sizes(bottoms)

    def sizes(self, bottoms: tuple[Tensor, ...]) -> tuple[int, int]:
        """Height and width of the top."""
        opt = self.opt
        height, width = (max(x.shape[axis] for x in bottoms) for axis in (2, 3))
        by = opt.size_divisible_by
        given = (-(-height // by) * by, -(-width // by) * by) if by else (opt.top_height, opt.top_width)
        found = given if given[0] > height and given[1] > width else (height, width)
        if opt.have_reference:
            found = (bottoms[-1].shape[2], bottoms[-1].shape[3])
        check_size("the top", (bottoms[0].shape[0], sum(x.shape[1] for x in bottoms), *found), self.error)
        return found

    def forward(self, *bottoms: Tensor) -> Tensor:
        size = self.sizes(bottoms)
        used = bottoms[: len(bottoms) - self.opt.have_reference]
        return torch.cat([F.interpolate(x, size, mode="bilinear", align_corners=True) for x in used], 1)


class LpqLoss(Loss, bottoms=(1, 2)):
    """Sums over cells the q-th power of the sum over channels of p-th powers of differences.

    bottoms: a (N, C, ...); optionally b of its shape, otherwise 0   top: loss ()

        loss = sum over items and cells of (sum over c of (|a - b| + p_epsilon)^p + q_epsilon)^q / N

    l2_prescale_by_channels makes the inner sum a mean. NaN counts as 0 and gets no gradient. With
    normalize_by_num_entries the divisor is (elements that are not NaN) / C. The source can change p and q with time.
    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), lpq_loss_layer.cu.
    """

    constant = ()
    exempt = ()
    effects = Effects.NONE

    def setup(self, *bottoms: Tensor) -> None:
        opt, a = self.opt, bottoms[0]
        fact = f"has {len(opt.p)} values of p and {len(opt.q)} of q, expected one of each"
        self.require(len(opt.p) == 1 and len(opt.q) == 1, f"{fact}: a schedule is not implemented")
        starts = list(opt.pq_episode_starts_at_iter)
        self.require(starts in ([], [0]), f"pq_episode_starts_at_iter is {starts}, expected 0, for one p and one q")
        self.p, self.q = opt.p[0], opt.q[0]
        same = a.dim() > 1 and all(x.shape == a.shape for x in bottoms)
        self.require(same, f"bottoms have shapes {', '.join(shape_text(x.shape) for x in bottoms)}; expected the same")

    def forward(self, *bottoms: Tensor) -> Tensor:
        opt, a = self.opt, bottoms[0]
        off = a - bottoms[1] if len(bottoms) > 1 else a
        there = ~off.isnan()
        off = torch.where(there, off, torch.zeros_like(off))
        size = torch.where(off > 0, off, -off)
        powers = (size + opt.p_epsilon) ** self.p
        inner = powers.mean(1) if opt.l2_prescale_by_channels else powers.sum(1)
        total = ((inner + opt.q_epsilon) ** self.q).sum()
        return total / (there.sum() / a.shape[1] if opt.normalize_by_num_entries else a.shape[0])
