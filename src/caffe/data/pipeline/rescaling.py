"""Fields of forks that give each image a random size before it is cropped."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from caffe.data.pipeline.resizing import Resize
from caffe.errors import DataError
from caffe.opencv import cv2
from caffe.proto import caffe_pb2

__all__ = ["RESCALES", "Rescale", "rescaling"]

_SIZES = ("img_rand_resize_lower", "img_rand_resize_upper")
_SHAPES = tuple(
    f"{name}_{end}"
    for name in ("rand_resize_ratio", "vertical_stretch", "horizontal_stretch")
    for end in ("lower", "upper")
)
RESCALES = tuple(
    f"TransformationParameter.{name}"
    for name in (*_SIZES, *_SHAPES, "allow_upscale", "random_resize_param", "random_aspect_ratio_param")
)
"""The fields, for the layers that support them."""


class Rescale(ABC):
    """Base of the changes of size. `crop` is the crop_size, which follows."""

    centred_mean = False
    """Whether the mean image is cropped at its centre, instead of where the image is cropped."""

    def __init__(self, crop: int) -> None:
        self.crop = crop

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the least shape (C, H, W) of an image of `shape` after the change."""
        return (shape[0], self.crop, self.crop)

    @abstractmethod
    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change the size of the pixels (H, W, C)."""


class Stretched(Rescale):
    """img_rand_resize_*, rand_resize_ratio_*, *_stretch_* and allow_upscale of NVCaffe.

    The shorter side becomes a random number of pixels from img_rand_resize_lower to _upper; the longer one follows, or
    becomes a random multiple of the shorter one (rand_resize_ratio). Then each side is stretched by a random factor.
    A side is at least crop_size, and without allow_upscale at most as long as before.
    Source: NVCaffe 0.17, data_transformer.cpp, whose interpolation can be chosen; this one averages areas or is linear.
    """

    centred_mean = True

    def __init__(self, param: Any) -> None:
        super().__init__(param.crop_size)
        self.param = param
        lower, upper = param.img_rand_resize_lower, param.img_rand_resize_upper
        if bool(lower) != bool(upper) or lower > upper:
            found = f"img_rand_resize_lower is {lower} and img_rand_resize_upper {upper}"
            raise DataError(f"{found}; set both, the second at least as large")
        for name in _SHAPES:
            value = getattr(param, name)
            if not 0 <= value < math.inf:
                raise DataError(f"{name} is {value:g}, expected 0 or more")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return super().shape(shape) if self.param.allow_upscale else shape

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape[:2]
        rows, columns = (max(self.crop, math.floor(side + 0.5)) for side in self._sides(height, width, rng))
        if not self.param.allow_upscale:
            rows, columns = min(rows, height), min(columns, width)
        if (rows, columns) == (height, width):
            return pixels
        smaller = rows <= height and columns <= width
        return cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def _sides(self, height: int, width: int, rng: np.random.Generator) -> tuple[float, float]:
        param, size = self.param, min(height, width)
        if param.img_rand_resize_lower:
            size = int(rng.integers(param.img_rand_resize_lower, param.img_rand_resize_upper + 1))
        scale = size / min(height, width)
        rows, columns = scale * height, scale * width
        if param.rand_resize_ratio_lower >= 1 and param.rand_resize_ratio_upper > 1:
            ratio = _between(rng, param.rand_resize_ratio_lower, param.rand_resize_ratio_upper)
            wide = columns > rows if columns != rows else rng.integers(2) > 0
            rows, columns = (rows, rows * ratio) if wide else (columns * ratio, columns)
        if param.vertical_stretch_lower > 0 and param.vertical_stretch_upper > 0:
            rows *= _between(rng, param.vertical_stretch_lower, param.vertical_stretch_upper)
        if param.horizontal_stretch_lower > 0 and param.horizontal_stretch_upper > 0:
            columns *= _between(rng, param.horizontal_stretch_lower, param.horizontal_stretch_upper)
        return rows, columns


class ShorterSide(Rescale):
    """random_resize_param of Intel's Caffe: the shorter side becomes a random number of pixels, min_size to max_size.

    If they are 0, the shorter side and the longer side of the image take their place.
    Source: Intel's Caffe, data_transformer.cpp.
    """

    def __init__(self, param: Any) -> None:
        super().__init__(param.crop_size)
        self.opt = param.random_resize_param
        if self.opt.max_size and self.opt.max_size < self.opt.min_size:
            found = f"random_resize_param has min_size {self.opt.min_size} and max_size {self.opt.max_size}"
            raise DataError(f"{found}; expected the second at least as large")

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        least = self.opt.min_size or min(shape[1:])
        return (shape[0], least, least)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        low, high = self.opt.min_size or min(pixels.shape[:2]), self.opt.max_size or max(pixels.shape[:2])
        return _shortened(pixels, int(rng.integers(low, max(low, high) + 1)), self.opt.resize_param, rng)


class AspectCrop(Rescale):
    """random_aspect_ratio_param of Intel's Caffe: a random part of the image, resized to the square crop_size.

    The part has a share a of the image's area, from min_area_ratio to max_area_ratio. Its sides are sqrt(area) c and
    sqrt(area) / c in random order, c from aspect_ratio_change to its inverse. If no part fits in max_attempt trials,
    the shorter side becomes crop_size.
    Source: Intel's Caffe, data_transformer.cpp, which draws a and c in steps of 0.001.
    """

    def __init__(self, param: Any) -> None:
        super().__init__(param.crop_size)
        opt = self.opt = param.random_aspect_ratio_param
        if not 0 < opt.min_area_ratio <= opt.max_area_ratio <= 1 or not 0 < opt.aspect_ratio_change <= 1:
            raise DataError(
                f"random_aspect_ratio_param takes areas of {opt.min_area_ratio:g} ... {opt.max_area_ratio:g} and an "
                f"aspect_ratio_change of {opt.aspect_ratio_change:g}; expected numbers above 0 and at most 1"
            )

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        opt, (height, width) = self.opt, pixels.shape[:2]
        for _ in range(opt.max_attempt):
            side = math.sqrt(height * width * _stepped(rng, opt.min_area_ratio, opt.max_area_ratio))
            change = _stepped(rng, opt.aspect_ratio_change, 1 / opt.aspect_ratio_change)
            rows, columns = int(side * change), int(side / change)
            if _stepped(rng, 0, 1) < 0.5:
                rows, columns = columns, rows
            if 0 < rows <= height and 0 < columns <= width:
                top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
                part = pixels[top : top + rows, left : left + columns]
                return _resized(part, self.crop, self.crop, opt.resize_param, rng)
        return _shortened(pixels, self.crop, opt.resize_param, rng)


def rescaling(param: Any) -> Rescale | None:
    """Return the change of size that a TransformationParameter asks for. Raises DataError if its fields do not fit."""
    kinds: dict[str, type[Any]] = {}
    if any(getattr(param, name) for name in _SIZES) or any(param.HasField(name) for name in _SHAPES):
        kinds["img_rand_resize_lower and the like"] = Stretched
    if param.HasField("random_resize_param"):
        kinds["random_resize_param"] = ShorterSide
    if param.HasField("random_aspect_ratio_param"):
        kinds["random_aspect_ratio_param"] = AspectCrop
    if not kinds:
        return None
    others = [name for name in ("resize_param", "random_resized_crop") if param.HasField(name)]
    first, *more = (*kinds, *others)
    if more:
        raise DataError(f"{first} is set beside {more[0]}, which also gives images a size; remove one of them")
    if not param.crop_size:
        raise DataError(f"{first} gives images different sizes; set crop_size, which makes them equal")
    made: Rescale = kinds[first](param)
    return made


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(min(low, high), max(low, high)))


def _stepped(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number from low to high in steps of 0.001."""
    return low + int(rng.integers(int((high - low) * 1000 + 1))) / 1000


def _shortened(pixels: np.ndarray, size: int, opt: Any, rng: np.random.Generator) -> np.ndarray:
    """Resize so that the shorter side is `size`."""
    height, width = pixels.shape[:2]
    rows, columns = (size, int(width / height * size)) if height < width else (int(height / width * size), size)
    return _resized(pixels, rows, columns, opt, rng)


def _resized(pixels: np.ndarray, rows: int, columns: int, opt: Any, rng: np.random.Generator) -> np.ndarray:
    """Resize to rows x columns with the interpolation of a ResizeParameter."""
    mine = caffe_pb2.ResizeParameter(height=rows, width=columns, interp_mode=opt.interp_mode)
    return Resize(mine)(pixels, rng)
