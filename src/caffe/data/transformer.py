"""transform_param: crop, mirror, mean and scale, over a whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from caffe import log
from caffe.errors import DataError
from caffe.proto import caffe_pb2

__all__ = ["Batch", "Transformer"]

Shape = tuple[int, int, int]
_CACHED = 1 << 18  # elements that are converted and normalised while they are in the processor's cache


class Transformer:
    """Turns images (C, H, W) into a float32 batch (N, C, H', W').

        y = (x[:, top : top + crop, left : left + crop] - mean) * scale, mirrored at random if asked

    In TRAIN the crop is placed at random, in TEST in the centre. A mean image is cut and mirrored along with x.
    Mirroring is random in TEST too. Arithmetic is float32, in this order.
    Source: BVLC data_transformer.cpp.
    """

    def __init__(self, param: Any, phase: int) -> None:
        """`param` is a TransformationParameter; DataError where its fields contradict each other."""
        if param.mean_file and len(param.mean_value):
            raise DataError("cannot use mean_file and mean_value at the same time; remove one of them")
        if param.force_color and param.force_gray:
            raise DataError("cannot set both force_color and force_gray; remove one of them")
        self.crop: int = param.crop_size
        self.mirror: bool = param.mirror
        self.scale = np.float32(param.scale)
        self.random_crop = phase == caffe_pb2.TRAIN and self.crop > 0
        self.color: bool | None = True if param.force_color else False if param.force_gray else None
        self.values = np.array(param.mean_value, np.float32).reshape(-1, 1, 1)
        self.image = _read_mean(param.mean_file) if param.mean_file else None
        self.mean_file: str = param.mean_file

    @property
    def random(self) -> bool:
        """Whether batches depend on random numbers."""
        return self.mirror or self.random_crop

    def top_shape(self, shape: tuple[int, ...]) -> Shape:
        """The shape that an image of `shape` has after the crop; DataError if the options do not fit it."""
        channels, height, width = shape
        size = f"{channels} x {height} x {width}"
        if self.image is not None and self.image.shape != shape:
            mean = " x ".join(map(str, self.image.shape))
            raise DataError(f'is {size}, but mean_file "{self.mean_file}" is {mean}; compute the mean of this data')
        if len(self.values) not in (0, 1, channels):
            raise DataError(f"has {channels} channels, but mean_value is given {len(self.values)} times; give 1 or all")
        if self.crop > min(height, width):
            raise DataError(f"is {size}, smaller than crop_size {self.crop}; enlarge the image or lower crop_size")
        return (channels, self.crop or height, self.crop or width)

    def batch(self, count: int, rng: np.random.Generator | None = None) -> Batch:
        """An empty batch to add `count` images to; `rng` is needed where `random` is true."""
        return Batch(self, count, rng)

    def window(self, top: int, left: int, shape: Shape, mirrored: bool) -> np.ndarray | None:
        """What is subtracted from the crop at (top, left): a piece of the mean image, a value per channel or None."""
        if self.image is None:
            return self.values if len(self.values) else None
        piece = self.image[:, top : top + shape[1], left : left + shape[2]]
        return piece[..., ::-1] if mirrored else piece


class Batch:
    """Images on their way through a `Transformer`: cropped as they come, then normalised together."""

    def __init__(self, transformer: Transformer, count: int, rng: np.random.Generator | None) -> None:
        self.transformer = transformer
        self.count = count
        self.places: list[tuple[int, int, bool]] = []
        self.pixels = np.empty(0, np.uint8)
        self._admitted: tuple[int, ...] | None = None
        if transformer.random:
            if rng is None:
                raise ValueError("random crops or mirroring need a generator")
            self._draws: list[list[int]] = rng.integers(1 << 62, size=(count, 3)).tolist()

    def add(self, image: np.ndarray) -> None:
        """Add the next image (C, H, W), uint8 or float32; DataError if it does not fit the ones before."""
        if image.shape != self._admitted:
            self._admit(image)
        if self.pixels.dtype == np.uint8 != image.dtype:
            self.pixels = self.pixels.astype(np.float32)
        index = len(self.places)
        top, left, mirrored = place = self._place(index)
        _, height, width = self.shape
        slot = self.pixels[index]
        slot[...] = image[:, top : top + height, left : left + width]
        if mirrored:
            rows = slot.reshape(-1, width)
            cv2.flip(rows, 1, dst=rows)
        self.places.append(place)

    def finish(self) -> np.ndarray:
        """The batch, float32 (N, C, H', W')."""
        result = np.empty(self.pixels.shape, np.float32)
        scale = self.transformer.scale
        for part, mean in self._parts():
            block = result[part]
            np.copyto(block, self.pixels[part])
            if mean is not None:
                block -= mean
            if scale != 1:
                block *= scale
        return result

    def _admit(self, image: np.ndarray) -> None:
        """Check an image of a size that the one before did not have."""
        shape = self.transformer.top_shape(image.shape)
        if not self.places:
            self.shape = shape
            self.pixels = np.empty((self.count, *shape), image.dtype)
        elif shape != self.shape:
            got, wanted = (" x ".join(map(str, sizes)) for sizes in (shape, self.shape))
            raise DataError(
                f"is {got}, but the batch began with {wanted}; resize the images, set crop_size or batch_size: 1"
            )
        self._admitted = image.shape
        self._room = (image.shape[1] - shape[1], image.shape[2] - shape[2])

    def _place(self, index: int) -> tuple[int, int, bool]:
        """Where the crop of image `index` begins, and whether it is mirrored."""
        rows, columns = self._room
        if not self.transformer.random:
            return rows // 2, columns // 2, False
        first, second, third = self._draws[index]
        mirrored = self.transformer.mirror and third % 2 == 1
        if not self.transformer.random_crop:
            return rows // 2, columns // 2, mirrored
        return first % (rows + 1), second % (columns + 1), mirrored

    def _parts(self) -> Iterator[tuple[slice, np.ndarray | None]]:
        """The batch in pieces that have the same mean and fit in the cache."""
        alone = self.transformer.image is not None and self.transformer.random
        step = 1 if alone else max(1, _CACHED // max(1, int(np.prod(self.shape))))
        for start in range(0, self.count, step):
            top, left, mirrored = self.places[start]
            yield slice(start, start + step), self.transformer.window(top, left, self.shape, mirrored)


def _read_mean(path: str) -> np.ndarray:
    from caffe.proto import weights

    log.info("data_transformer.cpp:25", f"Loading mean file from: {path}")
    mean = weights.read_mean(path)
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise DataError(f'mean_file "{path}" has shape {mean.shape}, expected (1, C, H, W)')
    return np.ascontiguousarray(mean, np.float32)
