"""The numbers that normalize pixels: a mean or a standard deviation, per pixel or per channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe import log
from caffe.errors import DataError

__all__ = ["CHANNELS_LAST", "Numbers", "extent", "read_array"]

Shape = tuple[int, ...]

CHANNELS_LAST = (
    "the channels seem to be last (an image of {0} x {1} with {2} channels), but are expected first: "
    "write (channels, height, width)"
)


class Numbers:
    """Mean or standard deviation of pixels: an image (C, H, W) from a file, one number per channel, one for all, or
    none.
    """

    def __init__(self, name: str, path: str, values: Any) -> None:
        if path and len(values):
            raise DataError(f"cannot use {name}_file and {name}_value at the same time; remove one of them")
        self.name = name
        self.path = path
        self.image = read_array(path, f"{name}_file", 3) if path else None
        self.values = np.array(values, np.float32).reshape(-1, 1, 1)
        self.fixed = False
        if name == "std":
            numbers = self.values if self.image is None else self.image
            if numbers.size and not numbers.min() > 0:
                raise DataError(f"{name}_{'file' if path else 'value'} holds {numbers.min():g}, expected above 0")

    def centre(self, side: int) -> None:
        """Use the centre of the image, of this side, for every crop."""
        if self.image is None:
            return
        _, height, width = self.image.shape
        if side > min(height, width):
            raise DataError(f"{self.name}_file is {extent(self.image.shape)}, smaller than crop_size {side}")
        top, left = (height - side) // 2, (width - side) // 2
        self.image, self.fixed = self.image[:, top : top + side, left : left + side], True

    def check(self, shape: Shape) -> None:
        """Raise DataError unless the numbers fit an image of this shape."""
        if self.image is not None and self.image.shape != ((shape[0], *self.image.shape[1:]) if self.fixed else shape):
            last = self.image.shape == (shape[2], *shape[:2])
            way_out = CHANNELS_LAST.format(*shape) if last else f"compute the {self.name} of this data"
            raise DataError(
                f'is {extent(shape)}, but {self.name}_file "{self.path}" is {extent(self.image.shape)}; {way_out}'
            )
        if len(self.values) not in (0, 1, shape[0]):
            count = len(self.values)
            way_out = CHANNELS_LAST.format(*shape) if count == shape[2] else "give 1 or all"
            raise DataError(f"has {shape[0]} channels, but {self.name}_value is given {count} times; {way_out}")

    def window(self, place: tuple[int, int, bool], shape: Shape) -> np.ndarray | None:
        """Return the numbers for a crop of this shape at this position, or None."""
        if self.image is None:
            return self.values if len(self.values) else None
        top, left, mirrored = (0, 0, place[2]) if self.fixed else place
        piece = self.image[:, top : top + shape[1], left : left + shape[2]]
        return piece[..., ::-1] if mirrored else piece


def read_array(path: str, field: str, axes: int) -> np.ndarray:
    """Read the array, with 3 or 4 axes, from a file written by compute_image_mean."""
    from caffe.proto import weights

    if field == "mean_file":
        log.info("data_transformer.cpp:25", f"Loading mean file from: {path}")
    array = weights.read_mean(path)
    if axes == 3 and array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != axes:
        expected = "(1, C, H, W)" if axes == 3 else "(K, C, H, W)"
        raise DataError(f'{field} "{path}" has shape {array.shape}, expected {expected}')
    return np.ascontiguousarray(array, np.float32)


def extent(shape: Shape) -> str:
    return " x ".join(map(str, shape))
