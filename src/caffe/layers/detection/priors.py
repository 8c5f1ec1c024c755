"""Prior boxes: boxes of fixed sizes around each cell of a map, to which SSD predicts offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Layer, has_values, shape_text
from caffe.layers.support.values import sizes

__all__ = ["PriorBox", "PriorBoxClustered"]

_SAME = 1e-6
"""Aspect ratios that differ by less are equal."""
_VARIANCE = 0.1


class _Priors(Layer, abstract=True):
    """Base of the layers that generate prior boxes. The boxes depend only on shapes and are cached for each shape."""

    lends = True
    exempt = (0, 1)
    foreign: tuple[str, ...] = ()
    """Fields of prior_box_param that the layer does not support."""

    def setup(self, x: Tensor, image: Tensor) -> None:
        for index, bottom in enumerate((x, image)):
            fact = f"{self.bottom_name(index)} has shape {shape_text(bottom.shape)}, expected (N, C, H, W)"
            self.require(bottom.dim() == 4, fact)
        for name in self.foreign:
            value = getattr(self.opt, name)
            given = len(value) > 0 if not isinstance(value, bool) else value
            self.require(not given, f"prior_box_param has {name}, which this layer does not have; remove it")
        self.variances = list(self.opt.variance) or [_VARIANCE]
        fact = f"has {len(self.variances)} variances, expected none, one, or one for each of the 4 coordinates"
        self.require(len(self.variances) in (1, 4), fact)
        self.require(min(self.variances) > 0, f"variance {min(self.variances):g} must be above 0")
        for one, both in (("img_size", ("img_h", "img_w")), ("step", ("step_h", "step_w"))):
            self._check_sides(one, both)
        self.image_size = self._sides("img_size", ("img_h", "img_w"))
        self.steps = self._sides("step", ("step_h", "step_w"))
        self.widths, self.heights = self.priors()
        self.rows = [0.0] * len(self.widths)  # how far below the centre of its cell a box lies, in steps
        if self.opt.denser_prior_boxes:
            self.rows[1::2] = [1 - self.opt.offset] * (len(self.widths) // 2)
        self.require(len(self.widths) > 0, "has no prior box; give at least one")
        self.made: dict[tuple[object, ...], Tensor] = {}

    def priors(self) -> tuple[list[float], list[float]]:
        """Widths and heights of the prior boxes of a cell, in image pixels."""
        raise NotImplementedError(self.type)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        cells, image_size = tuple(sizes(x)[2:]), tuple(sizes(image)[2:])
        if not has_values(x):
            return self._boxes(x, cells, image_size)
        key = (cells, image_size, x.device, x.dtype)
        if key not in self.made:
            if len(self.made) > 8:  # images of many sizes
                self.made.clear()
            self.made[key] = self._boxes(x.detach(), cells, image_size)
        return self.made[key]

    def _boxes(self, x: Tensor, cells: Sequence[int], image: Sequence[int]) -> Tensor:
        """The top (1, 2, H W P 4) for the sizes of the map and the image, both (height, width)."""
        height, width = self.image_size or image
        steps = self.steps or (height / cells[0], width / cells[1])
        y, across = (
            (torch.arange(n, device=x.device, dtype=x.dtype) + self.opt.offset) * step
            for n, step in zip(cells, steps, strict=True)
        )
        shape = (*cells, len(self.widths))
        down = y[:, None, None] + x.new_tensor(self.rows) * steps[0]
        centre = torch.stack([across[None, :, None].expand(shape), down.expand(shape)], -1)
        half = x.new_tensor([[w / 2, h / 2] for w, h in zip(self.widths, self.heights, strict=True)])
        boxes = torch.cat([centre - half, centre + half], -1) / x.new_tensor([width, height, width, height])
        if self.opt.clip:
            boxes = boxes.clamp(0, 1)
        variances = x.new_tensor(self.variances if len(self.variances) == 4 else self.variances * 4)
        return torch.stack([boxes.reshape(-1), variances.expand(boxes.shape).reshape(-1)]).unsqueeze(0)

    def _check_sides(self, one: str, both: tuple[str, str]) -> None:
        names = [name for name in (one, *both) if self.opt.HasField(name)]
        fact = f"has {', '.join(names)}; give {one} alone, or {both[0]} and {both[1]}"
        self.require(names in ([], [one], list(both)), fact)
        for name in names:
            value = getattr(self.opt, name)
            self.require(value > 0, f"{name} is {value:g}, expected a number above 0; remove it to take the bottoms'")

    def _sides(self, one: str, both: tuple[str, str]) -> tuple[float, float] | None:
        """An option (height, width) that is given once or for each side, or None if it is not given."""
        if self.opt.HasField(one):
            return (getattr(self.opt, one),) * 2
        return tuple(getattr(self.opt, name) for name in both) if self.opt.HasField(both[0]) else None


class PriorBox(_Priors, bottoms=2):
    """Generates boxes of several sizes and aspect ratios around each cell of a map.

    bottoms: x (N, C, H, W) and the image (N, C', height, width), of which only the shapes are used
    top (1, 2, H W P 4): the boxes (xmin, ymin, xmax, ymax) relative to the image size, and their variances

        centre = ((w + offset) step_w, (h + offset) step_h),  step defaults to image / map
        sizes for each min_size s, with its max_size m:  s x s;  sqrt(s m) x sqrt(s m) if m is given;
        and s sqrt(a) x s / sqrt(a) for each aspect ratio a other than 1, and 1 / a with flip

    The top is ordered by row, column and box. denser_prior_boxes has a second box behind each, centred at (h + 1)
    step_h. clip clamps the boxes to 0 .. 1. As in SSD's Caffe, min_size and max_size are truncated to integers, with a
    warning. Source: arXiv:1512.02325 (SSD), prior_box_layer.cpp; arXiv:1801.02765 (TextBoxes++).
    """

    foreign = ("width", "height", "faceboxes", "box_width", "box_height")

    def priors(self) -> tuple[list[float], list[float]]:
        small, large = self._whole("min_size"), self._whole("max_size")
        self.require(len(small) > 0, "needs min_size")
        fact = f"has {len(large)} max_size for {len(small)} min_size; expected none, or one for each"
        self.require(len(large) in (0, len(small)), fact)
        for s, m in zip(small, large, strict=False):
            self.require(m > s, f"max_size {m} must be above its min_size, {s}")
        widths, heights = [], []
        for index, s in enumerate(small):
            sides = [(float(s), float(s))]
            if large:
                sides.append((math.sqrt(s * large[index]),) * 2)
            sides += [(s * math.sqrt(a), s / math.sqrt(a)) for a in self._ratios()]
            widths += [side[0] for side in sides for _ in range(self._times)]
            heights += [side[1] for side in sides for _ in range(self._times)]
        return widths, heights

    @property
    def _times(self) -> int:
        return 2 if self.opt.denser_prior_boxes else 1

    def _whole(self, name: str) -> list[int]:
        values = list(getattr(self.opt, name))
        for value in values:
            self.require(value >= 1, f"{name} is {value:g}, expected pixels, 1 or more")
        fractions = [value for value in values if value != int(value)]
        if fractions:
            acts = ", ".join(f"{value:g} to {int(value)}" for value in fractions)
            log.warning("priors.py", f'layer "{self.name}" ({self.type}): {name} is truncated to whole pixels, {acts}')
        return [int(value) for value in values]

    def _ratios(self) -> list[float]:
        """The aspect ratios other than 1, each once."""
        found = [1.0]
        for given in self.opt.aspect_ratio:
            self.require(given > 0, f"aspect_ratio is {given:g}, expected a number above 0")
            if all(abs(given - ratio) >= _SAME for ratio in found):
                found += [given, 1 / given] if self.opt.flip else [given]
        return found[1:]


class PriorBoxClustered(_Priors, bottoms=2, options="prior_box_param"):
    """Generates boxes of given sizes around each cell of a map.

    bottoms: x (N, C, H, W) and the image (N, C', height, width), of which only the shapes are used
    top (1, 2, H W P 4): the boxes (xmin, ymin, xmax, ymax) relative to the image size, and their variances

        centre = ((w + offset) step_w, (h + offset) step_h),  step defaults to image / map
        sizes of a cell's boxes: width[p] x height[p], in pixels

    The top has no gradient and is cached for each shape.
    Source: OpenVINO's training toolbox for Caffe, prior_box_clustered_layer.cpp.
    """

    foreign = ("min_size", "max_size", "aspect_ratio", "faceboxes", "box_width", "box_height", "denser_prior_boxes")

    def priors(self) -> tuple[list[float], list[float]]:
        widths, heights = list(self.opt.width), list(self.opt.height)
        fact = f"has {len(widths)} width and {len(heights)} height; expected one of each for a box"
        self.require(len(widths) == len(heights), fact)
        self.require(all(side > 0 for side in (*widths, *heights)), "width and height must be above 0")
        return widths, heights
