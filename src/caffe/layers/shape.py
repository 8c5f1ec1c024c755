"""Layers that move, copy and drop elements without computing with them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, has_values, shape_text
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look, untraced


class Concat(Layer, bottoms=(1, None)):
    """Concatenates the bottoms along an axis.

    bottoms (..., K_i, ...), top (..., sum of K_i, ...)

    `concat_dim` is the old name of `axis`. With Intel's `per_fla_fuse` the bottoms (N, C_i, H_i, W_i) may have maps of
    different sizes. They are permuted to (N, H_i, W_i, C_i) and flattened before: top (N, sum of H_i W_i C_i, 1, 1).
    Source: BVLC concat_layer.cpp; Intel's mkldnn_concat_layer.cpp, which takes the place of SSD's Permute and Flatten.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        self.along = _axis_or_dim(self, "concat_dim", bottoms[0])
        first = bottoms[0].shape
        if self.opt.per_fla_fuse:
            self._check_fused(bottoms)
            return
        for i, x in enumerate(bottoms):
            fits = len(x.shape) == len(first) and all(
                a == b or axis == self.along for axis, (a, b) in enumerate(zip(x.shape, first, strict=True))
            )
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, {self.bottom_name(0)} {shape_text(first)}"
            self.require(fits, f"{fact}; expected equal sizes on all axes but {self.along}")

    @property
    def shares(self) -> bool:
        return len(self.spec.bottom) == 1 and not self.opt.per_fla_fuse

    def _check_fused(self, bottoms: tuple[Tensor, ...]) -> None:
        self.require(
            self.along == 1, f"has per_fla_fuse and axis {self.along}; it is for axis 1, remove one of the two"
        )
        for i, x in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected (N, C, H, W)"
            self.require(
                x.dim() == 4 and x.shape[0] == bottoms[0].shape[0], f"{fact} for per_fla_fuse, N equal for all"
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        if self.opt.per_fla_fuse:
            return torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in bottoms], 1)[:, :, None, None]
        return torch.cat(bottoms, self.along) if len(bottoms) > 1 else bottoms[0].view_as(bottoms[0])


class Slice(Layer, tops=(1, None)):
    """Splits a blob along an axis, at each `slice_point` or into equal parts.

    bottom (..., K, ...), tops (..., K_i, ...) with K = sum of K_i

    `slice_dim` is the old name of `axis`.
    Source: BVLC slice_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        self.along = _axis_or_dim(self, "slice_dim", bottoms[0])
        self.points, tops = list(self.opt.slice_point), self.top_count
        fact = f"has {len(self.points)} slice_point and {tops} tops; expected one slice_point less than tops"
        self.require(len(self.points) in (0, tops - 1), fact)
        self.cuts(bottoms[0])

    @property
    def shares(self) -> bool:
        return self.top_count == 1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        cuts = self.cuts(x)
        return x.tensor_split(cuts, self.along) if cuts else (x.view_as(x),)

    def cuts(self, x: Tensor) -> list[int]:
        """The start indices of the second and later tops."""
        size, tops, points = x.shape[self.along], self.top_count, self.points
        self.require(tops <= size, f"cannot cut axis {self.along} of size {size} into {tops} tops")
        if points:
            rising = all(a < b for a, b in pairwise([0, *points, size + 1]))
            self.require(rising, f"slice_point {points} must rise from above 0 to at most the size of the axis, {size}")
            return points
        self.require(size % tops == 0, f"cannot cut axis {self.along} of size {size} into {tops} equal tops")
        return [size // tops * i for i in range(1, tops)]


class Split(Layer, tops=(1, None)):
    """Copies one blob to several tops and adds their gradients. Nets insert it where a blob has several readers.

    bottom x, tops of x's shape

    Source: BVLC split_layer.cpp.
    """

    records = Records.EACH
    splits = True

    @property
    def shares(self) -> bool:
        return True

    @property
    def shares_diff(self) -> bool:
        return False  # the diffs of the tops are added

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(self.top_count))


class Flatten(Layer):
    """Merges the axes from `axis` to `end_axis` into one.

    bottom (A..., B..., C...), top (A..., product of B, C...)

    Source: BVLC flatten_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        first = self.axis(self.opt.axis, bottoms[0])
        last = self.axis(self.opt.end_axis, bottoms[0], "end_axis")
        fact = f"axis {self.opt.axis} comes after end_axis {self.opt.end_axis} for shape {shape_text(bottoms[0].shape)}"
        self.require(first <= last + 1, fact)

    @property
    def shares(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.opt.axis % x.dim(), self.opt.end_axis % x.dim()
        return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


class Reshape(Layer):
    """Changes the shape without changing the elements.

    bottom x, top y with as many elements

    `shape` replaces `num_axes` axes of x from `axis` on (-1: all axes to the end). A 0 in `shape` copies the size of x
    at that index, and one -1 is inferred from the other sizes. Axis -1 means the position after the last axis.
    Source: BVLC reshape_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, *bottoms: Tensor) -> None:
        dims = self.dims = list(self.opt.shape.dim)
        self.require(dims.count(-1) <= 1, f"shape {dims} has several -1; at most one size can be found from the others")
        self.require(min(dims, default=0) >= -1, f"shape {dims} has a negative size other than -1")
        self.require(self.opt.num_axes >= -1, "num_axes must be 0 or more, or -1 for all axes to the end")
        self.resized(bottoms[0])

    @property
    def shares(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.resized(x))

    def resized(self, x: Tensor) -> list[int]:
        """The shape of the top for bottom x."""
        axes, start, count = x.dim(), self.opt.axis, self.opt.num_axes
        start = start if start >= 0 else axes + 1 + start
        end = axes if count == -1 else start + count
        fact = f"axis {self.opt.axis} with num_axes {count} is out of range for shape {shape_text(x.shape)}"
        self.require(0 <= start <= end <= axes, fact)
        middle = []
        for i, size in enumerate(self.dims):
            fact = f"shape has a 0 at place {i}, but shape {shape_text(x.shape)} has no axis {start + i} to copy"
            self.require(size != 0 or start + i < axes, fact)
            middle.append(x.shape[start + i] if size == 0 else size)
        known = math.prod([size for size in (*x.shape[:start], *middle, *x.shape[end:]) if size != -1])
        if -1 in middle:
            fact = f"{x.numel()} elements cannot be divided by the product of the given sizes, {known}"
            self.require(known > 0 and x.numel() % known == 0, fact)
            middle[middle.index(-1)] = x.numel() // known
        shape = [*x.shape[:start], *middle, *x.shape[end:]]
        fact = (
            f"the new shape {shape_text(shape)} has another number of elements than the bottom, {shape_text(x.shape)}"
        )
        self.require(math.prod(shape) == x.numel(), fact)
        return shape


class Permute(Layer):
    """Permutes the axes.

    bottom x of any shape, top y with y.shape[i] = x.shape[order[i]]

        y[i_order[0], i_order[1], ...] = x[i_0, i_1, ...]

    Axes that are not in `order` follow in their original order.
    Source: Liu et al., arXiv:1512.02325 (SSD), permute_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    def setup(self, x: Tensor) -> None:
        order = self.order = [int(axis) for axis in self.opt.order]
        fact = f"order {order} names an axis twice; name each axis once"
        self.require(len(set(order)) == len(order), fact)
        for axis in order:
            self.axis(axis, x, "order: axis")

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order + [axis for axis in range(x.dim()) if axis not in self.order])


class Crop(Layer, bottoms=2):
    """Crops a blob to the size of another, from `axis` on.

    bottoms: x; reference r, of which only the sizes are used   top y: x's sizes before `axis`, r's sizes from it on

        y = x[..., offset : offset + size of r, ...]

    Source: BVLC crop_layer.cpp. The reference gets no gradient.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW

    exempt = (1,)

    def setup(self, x: Tensor, reference: Tensor) -> None:
        start, self.given = self.axis(self.opt.axis, x), list(self.opt.offset) or [0]
        rest, count = x.dim() - start, len(self.given)
        fact = f"has {count} offset; expected none, one, or one for each of the {rest} axes from axis {start} on"
        self.require(count in (1, rest), fact)
        fact = f"{self.bottom_name(1)} has {reference.dim()} axes, expected at least {x.dim()}"
        self.require(reference.dim() >= x.dim(), fact)
        for axis, offset in enumerate(self.offsets(x), start):
            size = reference.shape[axis]
            fact = f"cannot crop axis {axis} of size {x.shape[axis]} to size {size} from offset {offset} on"
            self.require(x.shape[axis] - offset >= size, fact)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        offsets = self.offsets(x)
        for axis, offset in enumerate(offsets, x.dim() - len(offsets)):
            x = x.narrow(axis, offset, reference.shape[axis])
        return x

    def offsets(self, x: Tensor) -> list[int]:
        """The index of the first element to keep, for each cropped axis."""
        rest = x.dim() - self.axis(self.opt.axis, x)
        return self.given if len(self.given) == rest else self.given * rest


class Tile(Layer):
    """Repeats a blob along an axis.

    bottom (..., K, ...), top (..., tiles K, ...)

    Source: BVLC tile_layer.cpp.
    """

    records = Records.EACH

    def setup(self, *bottoms: Tensor) -> None:
        self.axis(self.opt.axis, bottoms[0])
        self.require(self.opt.tiles > 0, f"tiles is {self.opt.tiles}, expected the number of copies, 1 or more")

    def forward(self, x: Tensor) -> Tensor:
        repeats = [1] * x.dim()
        repeats[self.opt.axis] = self.opt.tiles
        return x.repeat(repeats)


class Silence(Layer, bottoms=(1, None), tops=0):
    """Consumes blobs, so that they are not outputs of the net. Their gradient is 0.

    Source: BVLC silence_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW
    effects = Effects.NONE

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()


class Filter(Layer, bottoms=(2, None), tops=(1, None)):
    """Keeps the items that a selector marks.

    bottoms: x_i (N, ...); last the selector (N), 0 for items to drop   tops: y_i (n, ...), n the number of kept items

    n depends on the values of the selector. Shape inference, which has no values, assumes n = N.
    Source: BVLC filter_layer.cpp.
    """

    constant = (-1,)
    effects = Effects.VALUES

    def setup(self, *bottoms: Tensor) -> None:
        *data, selector = bottoms
        self.constant = (len(data),)
        fact = f"has {self.top_count} tops; expected {len(data)}, one for each bottom but the selector"
        self.require(self.top_count == len(data), fact)
        same = set(self.spec.top) & set(self.spec.bottom)
        fact = f"works in place on {sorted(same)}, whose number of items it changes; give the tops names of their own"
        self.require(not same, fact)
        fact = f"the selector has shape {shape_text(selector.shape)}, expected (N) or (N, 1, 1, 1)"
        self.require(selector.dim() > 0 and selector.numel() == selector.shape[0], fact)
        for i, x in enumerate(data):
            items = x.shape[0] if x.dim() else 0
            fact = f"{self.bottom_name(i)} has {items} items, the selector {selector.shape[0]}; expected equal numbers"
            self.require(items == selector.shape[0], fact)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return untraced(_selected)(*bottoms)


class BatchReindex(Layer, bottoms=2):
    """Selects items by index. An index may occur any number of times.

    bottoms: x (N, ...); indices (M), integers in 0 .. N-1   top y (M, ...)

        y[m] = x[index[m]]

    Source: BVLC batch_reindex_layer.cpp.
    """

    constant = (1,)
    effects = Effects.CHECKS  # the range of indices

    def setup(self, x: Tensor, index: Tensor) -> None:
        self.require(index.dim() == 1, f"{self.bottom_name(1)} has shape {shape_text(index.shape)}, expected one axis")
        self.require(x.dim() > 0, f"{self.bottom_name(0)} has no axis to pick items from")

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        picks = index.detach().long()
        if can_look(picks):
            wrong = index[(picks < 0) | (picks >= x.shape[0])].tolist()
            if wrong:
                held = f"{self.bottom_name(1)} holds the index {number_text(wrong[0])}"
                self.error(f"{held}, expected 0 to {x.shape[0] - 1}")
        return x.index_select(0, picks)


def _selected(*bottoms: Tensor) -> tuple[Tensor, ...]:
    *data, selector = bottoms
    if not has_values(selector):
        return tuple(x.clone() for x in data)
    kept = selector.detach().flatten().nonzero().flatten()
    return tuple(x.index_select(0, kept) for x in data)


def _axis_or_dim(layer: Layer, old: str, x: Tensor) -> int:
    """The axis option of a layer that has two names for it, as a non-negative number."""
    old_given = layer.opt.HasField(old)
    both = old_given and layer.opt.HasField("axis")
    layer.require(not both, f"has both axis and {old}, its old name; keep axis")
    return layer.axis(getattr(layer.opt, old) if old_given else layer.opt.axis, x, old if old_given else "axis")
