"""resize_param of SSD: resizes images, and adapts their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe.data.pipeline.boxes import SIDES
from caffe.data.pipeline.rng import generator
from caffe.errors import DataError
from caffe.opencv import cv2
from caffe.proto import caffe_pb2

__all__ = ["Resize", "resizing"]

_Resize = caffe_pb2.ResizeParameter
_METHODS = {
    _Resize.LINEAR: "INTER_LINEAR",
    _Resize.AREA: "INTER_AREA",
    _Resize.NEAREST: "INTER_NEAREST",
    _Resize.CUBIC: "INTER_CUBIC",
    _Resize.LANCZOS4: "INTER_LANCZOS4",
}
_SCALE = 1 << 20
"""The random stream that chooses the size of a batch."""
_BORDERS = {
    _Resize.CONSTANT: "BORDER_CONSTANT",
    _Resize.MIRRORED: "BORDER_REFLECT_101",
    _Resize.REPEAT_NEAREST: "BORDER_REPLICATE",
}


class Resize:
    """Resizes images (H, W, C) as described by a ResizeParameter, with a random one of its interp_modes.

    WARP resizes to height x width. FIT_SMALL_SIZE keeps the aspect ratio; the image covers height x width.
    FIT_LARGE_SIZE_AND_PAD keeps the aspect ratio; the image fits into height x width and is padded.
    Source: SSD's im_transforms.cpp, which ignores `prob` as well.
    """

    def __init__(self, param: Any, alone: bool = True) -> None:
        """`param` is a ResizeParameter. Raises DataError for missing sizes or inconsistent values.

        `alone` says that there is no other, so that `prob` must be 1.
        """
        self.param = param
        if not (param.height and param.width):
            raise DataError(f"resize_param has height {param.height} and width {param.width}; set both")
        if alone and param.prob != 1:
            raise DataError(f"resize_param.prob is {param.prob:g}, but all images get one size; write prob: 1")
        scales = (param.height_scale, param.width_scale)
        if any(scales) and not (all(scales) and param.resize_mode == _Resize.FIT_SMALL_SIZE):
            raise DataError("resize_param: height_scale and width_scale must be set together, with FIT_SMALL_SIZE")
        self.methods = [getattr(cv2, _METHODS[mode]) for mode in param.interp_mode] or [cv2.INTER_LINEAR]
        self.random = len(self.methods) > 1

    def of(self, seed: int, number: int) -> Resize:
        """Return the Resize of batch `number`: this one, for all batches."""
        return self

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which an image of this size is resized."""
        param = self.param
        if param.resize_mode == _Resize.FIT_SMALL_SIZE:
            return self._inner(height, width)
        return param.height, param.width

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Resize the pixels (H, W, C)."""
        method = self.methods[rng.integers(len(self.methods))] if self.random else self.methods[0]
        rows, columns = self._inner(*pixels.shape[:2])
        if (rows, columns) != pixels.shape[:2]:
            pixels = cv2.resize(pixels, (columns, rows), interpolation=method)
        if self.param.resize_mode != _Resize.FIT_LARGE_SIZE_AND_PAD:
            return pixels
        top, left = (self.param.height - rows) // 2, (self.param.width - columns) // 2
        bottom, right = self.param.height - rows - top, self.param.width - columns - left
        border, value = getattr(cv2, _BORDERS[self.param.pad_mode]), self._padding(pixels)
        return cv2.copyMakeBorder(pixels, top, bottom, left, right, border, value=value)

    def moved(self, rows: np.ndarray, height: int, width: int) -> np.ndarray:
        """Convert the boxes (M, 7) of an image of this size to fractions of the resized image."""
        result = rows.copy()
        if self.param.resize_mode != _Resize.FIT_LARGE_SIZE_AND_PAD:
            result[:, SIDES] = np.clip(rows[:, SIDES], 0, 1)
            return result
        inner = self._inner(height, width)
        for axis, (part, whole) in enumerate(zip(inner[::-1], (self.param.width, self.param.height), strict=True)):
            offset = (whole - part) // 2
            for column in (2 + axis, 4 + axis):
                result[:, column] = (np.clip(rows[:, column], 0, 1) * part + offset) / whole
        return result

    def stretch(self, height: int, width: int) -> tuple[float, float]:
        """Return the x and y factors for the boxes of a crop: its size over width_scale and height_scale."""
        if not self.param.height_scale:
            return 1.0, 1.0
        return width / self.param.width_scale, height / self.param.height_scale

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the resized image without padding."""
        param = self.param
        if param.resize_mode == _Resize.WARP:
            return param.height, param.width
        aspect = np.float32(width) / np.float32(height)
        wide = aspect > np.float32(param.width) / np.float32(param.height)
        if wide == (param.resize_mode == _Resize.FIT_SMALL_SIZE):
            return param.height, max(1, int(aspect * np.float32(param.height)))
        return max(1, int(np.float32(param.width) / aspect)), param.width

    def _padding(self, pixels: np.ndarray) -> list[float]:
        values, channels = list(self.param.pad_value), pixels.shape[2] if pixels.ndim == 3 else 1
        if len(values) not in (0, 1, channels):
            raise DataError(f"has {channels} channels, but pad_value is given {len(values)} times; give 1 or all")
        return values * channels if len(values) == 1 else values or [0.0] * channels


class _Scales(Resize):
    """Several sizes, one of which is chosen at random for each batch, with the probabilities `prob`.

    Before the first batch it acts as the first of them.
    Source: eric612/MobileNet-YOLO, annotated_data_layer.cpp, which keeps a size for several batches.
    """

    def __init__(self, params: Sequence[Any]) -> None:
        super().__init__(params[0], alone=False)
        self.all = [Resize(param, alone=False) for param in params]
        self.chances = np.array([param.prob for param in params], np.float64)
        if not (self.chances >= 0).all() or not self.chances.sum() > 0:
            raise DataError(f"the resize_params have prob {self.chances.tolist()}; expected 0 or more, one above 0")
        if any(param.height_scale for param in params):
            raise DataError("several resize_params do not go with height_scale and width_scale; remove them")

    def of(self, seed: int, number: int) -> Resize:
        place = generator(seed, number, _SCALE).choice(len(self.all), p=self.chances / self.chances.sum())
        return self.all[int(place)]


def resizing(param: Any) -> Resize | None:
    """Return the Resize of a TransformationParameter, None if it has none. Raises DataError."""
    if not param.HasField("resize_param"):
        return None
    more = list(param.more_resize_param)
    return _Scales([param.resize_param, *more]) if more else Resize(param.resize_param)
