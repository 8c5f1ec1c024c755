"""transform_param: crop, mirror, normalization and augmentation of a whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from caffe.data.databases.datum import planes
from caffe.data.pipeline import buffers, normalization
from caffe.data.pipeline.augment import Augmentation
from caffe.data.pipeline.distortion import Distortion, Expansion, Noise, Part
from caffe.data.pipeline.normalization import CHANNELS_LAST, extent, read_array
from caffe.data.pipeline.rescaling import rescaling
from caffe.data.pipeline.resizing import Resize, resizing
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.samplers import Samplers
from caffe.data.pipeline.shard import WHOLE, Shard
from caffe.data.pipeline.targets import Numbers, Place
from caffe.errors import DataError
from caffe.opencv import cv2
from caffe.proto import caffe_pb2

__all__ = ["Batch", "BatchTransformer"]

Shape = tuple[int, ...]
_AUGMENT, _RESHAPE = 1 << 16, 1 << 17  # random streams from here on belong to single images
_LARGE = 1 << 14  # elements of an image for which one call of numpy is long enough to pay for the next
_CACHED = 1 << 18  # elements that are converted and normalized together, so that they stay in the processor's cache


class BatchTransformer:
    """Converts images (C, H, W) to a float32 batch (N, C, H', W').

        y = (x[:, top : top + crop, left : left + crop] - mean) / std * scale, mirrored at random if asked

    In TRAIN the position of the crop is random, in TEST it is centred. A mean image is cropped and mirrored like x.
    Mirroring is random in TEST too. Arithmetic is float32, in this order. With `whitening_file` each image is
    multiplied by that matrix before it is scaled. Augmentation is applied in TRAIN only.
    Source: BVLC data_transformer.cpp; DeVries & Taylor, arXiv:1708.04552 (cutout); Zhang et al., arXiv:1710.09412
    (mixup).
    """

    def __init__(self, param: Any, phase: int) -> None:
        """`param` is a TransformationParameter. Raises DataError if its fields contradict each other."""
        _check(param)
        train = phase == caffe_pb2.TRAIN
        self.augmentation = Augmentation(param)  # created in both phases, so that errors appear in both
        self.resized = train and self.augmentation.area is not None
        self.augmented = train and bool(self.augmentation)
        self.crop: int = param.crop_size
        self.mirror: bool = param.mirror
        self.scale = np.float32(param.scale)
        self.sides: tuple[int, int] = (self.crop, self.crop) if self.crop else (param.crop_h, param.crop_w)
        self.random_crop = train and all(self.sides) and not self.resized
        self.color: bool | None = True if param.force_color else False if param.force_gray else None
        self.mean = normalization.Numbers("mean", param.mean_file, param.mean_value)
        self.std = normalization.Numbers("std", param.std_file, param.std_value)
        self.whitening = read_array(param.whitening_file, "whitening_file", 4) if param.whitening_file else None
        self.noise = np.float32(param.noise if train else 0)
        self.cutout: int = param.cutout if train else 0
        self.mixup: float = param.mixup if train else 0
        self.classes: int = param.label_count if param.mixup else 0  # also in TEST, so that the label keeps its shape
        self.resize = resizing(param)
        self.rescale = rescaling(param)
        if self.rescale is not None and self.rescale.centred_mean:
            self.mean.centre(self.crop)
        self.distort = Distortion(param.distort_param) if param.HasField("distort_param") else None
        self.expand = Expansion(param.expand_param, param.mean_value) if param.HasField("expand_param") else None
        self.degrade = Noise(param.noise_param) if param.HasField("noise_param") else None
        self.samplers = Samplers(())
        self.labels = Numbers()
        self.late = False
        """If true, `finish` returns the pixels, and the consumer of the batch does the `plain` normalization."""

    @property
    def random(self) -> bool:
        """Whether batches depend on random numbers."""
        return self.mirror or self.random_crop or self.augmented or bool(self.noise or self.cutout or self.mixup)

    @property
    def reshaping(self) -> bool:
        """Whether images go through forks' steps before they are cropped, which change their pixels, sizes or boxes."""
        return bool(self.resize or self.rescale or self.distort or self.expand or self.degrade or self.samplers)

    def resized_shape(self, shape: Shape) -> Shape:
        """Return the shape of an image of `shape` before the crop, as far as it does not depend on random numbers."""
        if self.rescale is not None:
            return self.rescale.shape(shape)
        return shape if self.resize is None else (shape[0], *self.resize.size(*shape[1:]))

    def crop_shape(self, shape: Shape) -> Shape:
        """Return the shape of an image of `shape` after the crop. Raises DataError if the options do not fit it."""
        channels, height, width = shape
        self.mean.check(shape)
        self.std.check(shape)
        rows, columns = self.sides
        if (rows > height or columns > width) and not self.resized:
            size, way_out = f"{channels} x {height} x {width}", "enlarge the image or lower crop_size"
            if width <= 4 and self.crop <= min(channels, height):
                way_out = CHANNELS_LAST.format(*shape)
            crop = f"crop_size {self.crop}" if self.crop else f"crop_h {rows} x crop_w {columns}"
            raise DataError(f"is {size}, smaller than {crop}; {way_out}")
        return (channels, rows or height, columns or width)

    def top_shape(self, shape: Shape) -> Shape:
        """Return the final shape of an image of `shape`. Raises DataError if the options do not fit it."""
        shape = self.crop_shape(shape)
        if self.whitening is None:
            return shape
        if self.whitening.shape[1:] != shape:
            raise DataError(
                f"is {extent(shape)} after the crop, but whitening_file is for {extent(self.whitening.shape[1:])}"
            )
        rows = len(self.whitening)
        return shape if rows == np.prod(shape) else (rows, 1, 1)

    def label_shape(self, count: int, label: Any = 0, crop: Shape = ()) -> Shape:
        """Return the shape of the labels of `count` images. `label` is the first label, `crop` the shape of the top."""
        return (count, self.classes) if self.classes else self.labels.shape(count, label, crop)

    def varied(self, image: np.ndarray, label: Any, seed: int, number: int, use: int) -> tuple[np.ndarray, Any]:
        """Apply the changes to a single image of batch `number` and to its label.

        The random numbers depend only on the arguments.
        """
        if self.reshaping:
            rng = generator(seed, number, _RESHAPE + use)
            resize = None if self.resize is None else self.resize.of(seed, number)
            image, label = self._reshaped(image, label, rng, resize)
        if self.augmented:
            image = self.augmentation(image, generator(seed, number, _AUGMENT + use))
        return image, label

    def _reshaped(
        self, image: np.ndarray, label: Any, rng: np.random.Generator, resize: Resize | None
    ) -> tuple[np.ndarray, Any]:
        """Distort, expand, crop to a sampled window, resize and add noise, in SSD's order."""
        if image.dtype != np.uint8:
            raise DataError(f"has pixels of type {image.dtype}; resize_param and the like need 8 bits a channel")
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        if self.rescale is not None:
            pixels = self.rescale(pixels, rng)
        if self.distort is not None:
            pixels = self.distort(pixels, rng)
        size = pixels.shape[:2]
        canvas = None if self.expand is None else self.expand.draw(size, rng)
        if canvas is not None:
            label, size = self.labels.varied(label, None, size, canvas.place(size)), (canvas.rows, canvas.columns)
        window = self.samplers(label, rng) if self.samplers else None
        if window is not None:
            label = self.labels.varied(label, None, size, window)
        part = Part.of(size, window)
        pixels = part(pixels) if canvas is None or self.expand is None else self.expand.part(pixels, canvas, part)
        if resize is not None:
            label = self.labels.varied(label, resize, pixels.shape[:2], None)
            pixels = resize(pixels, rng)
        if self.degrade is not None:
            pixels = self.degrade(pixels, rng)
        return planes(pixels), label

    def batch(self, count: int, rng: np.random.Generator | None = None, shard: Shard = WHOLE) -> Batch:
        """Create an empty batch for `count` images. `rng` is required if `random` is true.

        If the processes of `shard` use equal `rng`s, they together get the random numbers of one batch.
        """
        return Batch(self, count, rng, shard)

    @property
    def plain(self) -> bool:
        """Whether the normalization consists of per-channel numbers and a scale, so that it can be done on a GPU."""
        return not (self.mapped or self.whitening is not None or self.noise or self.cutout or self.classes)

    def direct(self, shape: Shape) -> bool:
        """Whether images of this final shape are normalized one by one, as soon as each is decoded."""
        return not (self.late or self.noise) and int(np.prod(shape)) >= _LARGE

    @property
    def mapped(self) -> bool:
        """Whether the normalization depends on the position of the pixel."""
        return self.mean.image is not None or self.std.image is not None


class _Fit(NamedTuple):
    """The shape of images that fit the batch, and how many rows and columns the crop leaves out."""

    shape: Shape
    rows: int
    columns: int


class Batch:
    """Collects the images of a batch for a `BatchTransformer`. Each is cropped when added. Large images are normalized
    at once, small ones together.
    """

    def __init__(
        self, transformer: BatchTransformer, count: int, rng: np.random.Generator | None, shard: Shard = WHOLE
    ) -> None:
        self.transformer = transformer
        self.shard = shard
        self.count = count
        self.places: list[Place] = []
        self.sizes: list[tuple[int, int]] = []
        self.labels: list[Any] = []
        self.pixels = np.empty(0, np.uint8)
        self.direct = False
        self._fit: _Fit | None = None
        if transformer.random:
            if rng is None:
                raise ValueError("random crops or mirroring need a generator")
            self._rng = rng
            self._draws: list[list[int]] = self._mine(rng.integers(1 << 62, size=(count * shard.size, 3))).tolist()

    def add(self, image: np.ndarray, label: Any = 0, placed: int = -1) -> None:
        """Add the next image (C, H, W), uint8 or float32. Raises DataError if it does not fit the previous images.

        `placed` is the index at which `place` has already put its pixels.
        """
        fit = self._fit if self._fit is not None and image.shape == self._fit.shape else self._admitted(image)
        if self.transformer.classes and not 0 <= label < self.transformer.classes:
            raise DataError(f"has label {label}, but label_count is {self.transformer.classes}")
        if self.pixels.dtype == np.uint8 != image.dtype:
            self.pixels = self.pixels.astype(np.float32)
        index = len(self.places)
        place = self._place(index, fit)
        if placed != index:
            self._put(index, image, place)
        self.places.append(place)
        self.sizes.append((image.shape[1], image.shape[2]))
        self.labels.append(label)

    def place(self, index: int, image: np.ndarray) -> int:
        """Put the pixels of an image into the batch if it is to be added as image `index`. For any thread.

        Returns the index for `add`, or -1 if this is not possible yet: the first image decides about the batch's shape.
        """
        fit = self._fit
        if fit is None or fit.shape != image.shape or not self.direct:
            return -1
        self._put(index, image, self._place(index, fit))
        return index

    def _put(self, index: int, image: np.ndarray, place: Place) -> None:
        """Crop and mirror an image. If the batch is `direct`, also normalize it, while it is in the cache."""
        top, left, mirrored = place
        _, height, width = self.shape
        slot, piece = self.pixels[index], image[:, top : top + height, left : left + width]
        if not self.direct or image.dtype != np.uint8:
            _copy(slot, piece, mirrored)
        else:
            pixels = buffers.scratch(self.shape)
            _copy(pixels, piece, mirrored)
            np.copyto(slot, pixels)
        if self.direct:
            self._normalize(slot, place)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch, float32 (N, C, H', W'), and its labels, float32: (N), (N, label_count), boxes or maps."""
        made = self.transformer
        if made.late:
            return self.pixels, self._collated()
        result = self.pixels if self.direct else buffers.empty(self.pixels.shape, np.float32)
        for part, place in () if self.direct else self._parts():
            block = result[part]
            np.copyto(block, self.pixels[part])
            if made.noise:
                block += self._noise(block.shape) * made.noise
            self._normalize(block, place)
        if made.whitening is not None:
            matrix = made.whitening.reshape(len(made.whitening), -1)
            result = (result.reshape(self.count, -1) @ matrix.T).reshape(
                self.count, *made.top_shape(() if self._fit is None else self._fit.shape)
            )
            result *= made.scale
        if made.cutout:
            self._cut_out(result)
        return self._mixed(result)

    def _normalize(self, block: np.ndarray, place: Place) -> None:
        """Normalize an image, or images at the same place, in place."""
        made = self.transformer
        mean, std = made.mean.window(place, self.shape), made.std.window(place, self.shape)
        if mean is not None:
            block -= mean
        if std is not None:
            block /= std
        if made.whitening is None and made.scale != 1:
            block *= made.scale

    def _admitted(self, image: np.ndarray) -> _Fit:
        """Check an image whose size differs from the previous one."""
        made = self.transformer
        shape = made.crop_shape(image.shape)
        made.top_shape(image.shape)
        if not self.places:
            self.shape, self.direct = shape, made.direct(shape)
            self.pixels = buffers.empty((self.count, *shape), np.float32 if self.direct else image.dtype)
        elif shape != self.shape:
            got, wanted = extent(shape), extent(self.shape)
            raise DataError(
                f"is {got}, but the batch began with {wanted}; resize the images, set crop_size or batch_size: 1"
            )
        self._fit = fit = _Fit(image.shape, image.shape[1] - shape[1], image.shape[2] - shape[2])
        return fit

    def _place(self, index: int, fit: _Fit) -> Place:
        """Return the crop position of image `index`, and whether the image is mirrored."""
        _, rows, columns = fit
        if not self.transformer.random:
            return rows // 2, columns // 2, False
        first, second, third = self._draws[index]
        mirrored = self.transformer.mirror and third % 2 == 1
        if not self.transformer.random_crop:
            return rows // 2, columns // 2, mirrored
        return first % (rows + 1), second % (columns + 1), mirrored

    def _parts(self) -> Iterator[tuple[slice, Place]]:
        """Yield pieces of the batch that have the same mean and fit into the cache, with the place of their first."""
        made = self.transformer
        alone = made.mapped and (made.mirror or made.random_crop)
        step = 1 if alone else max(1, _CACHED // max(1, int(np.prod(self.shape))))
        for start in range(0, self.count, step):
            yield slice(start, start + step), self.places[start]

    def _mine(self, drawn: np.ndarray) -> np.ndarray:
        """Return this process's part of the random numbers drawn for all processes."""
        return drawn[self.shard.rank :: self.shard.size]

    def _noise(self, shape: Shape) -> np.ndarray:
        """Return normally distributed numbers for images (N, C, H, W)."""
        if self.shard.size == 1:
            return self._rng.standard_normal(shape, np.float32)
        return self._mine(self._rng.standard_normal((shape[0] * self.shard.size, *shape[1:]), np.float32))

    def _cut_out(self, result: np.ndarray) -> None:
        """Set a square of each image to 0. Its centre lies within the image; the square can extend beyond it."""
        height, width = result.shape[2:]
        side = self.transformer.cutout
        drawn = self._rng.integers((height, width), size=(self.count * self.shard.size, 2))
        centres = self._mine(drawn).tolist()
        for image, (row, column) in zip(result, centres, strict=True):
            top, left = row - side // 2, column - side // 2
            image[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0

    def _collated(self) -> np.ndarray:
        return self.transformer.labels.collated(self.labels, self.places, self.sizes, self.shape)

    def _mixed(self, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mix each image and its label with another image of the batch, if mixup is set."""
        made = self.transformer
        if not made.classes:
            return result, self._collated()
        labels = np.zeros((self.count, made.classes), np.float32)
        labels[np.arange(self.count), self.labels] = 1
        if made.mixup:
            partners = self._rng.permutation(self.count)
            drawn = self._rng.beta(made.mixup, made.mixup, self.count * self.shard.size)
            shares = self._mine(drawn).astype(np.float32)
            labels = shares[:, None] * labels + (1 - shares[:, None]) * labels[partners]
            weights = shares[:, None, None, None]
            result = weights * result + (1 - weights) * result[partners]
        return result, labels


def _copy(slot: np.ndarray, piece: np.ndarray, mirrored: bool) -> None:
    """Copy an image (C, H, W), often a view of pixels (H, W, C), mirrored if asked."""
    if piece.dtype == slot.dtype and len(piece) > 1 and piece.strides[0] == piece.itemsize:
        cv2.split(piece.transpose(1, 2, 0), list(slot))
    else:
        slot[...] = piece
    if mirrored:
        rows = slot.reshape(-1, slot.shape[2])
        cv2.flip(rows, 1, dst=rows)


def _check(param: Any) -> None:
    """Raise DataError for fields that contradict each other."""
    if param.force_color and param.force_gray:
        raise DataError("cannot set both force_color and force_gray; remove one of them")
    if bool(param.crop_h) != bool(param.crop_w):
        raise DataError(f"crop_h is {param.crop_h} and crop_w {param.crop_w}; set both, or crop_size")
    if bool(param.mixup) != bool(param.label_count):
        raise DataError(
            "mixup and label_count must be set together: labels become shares of label_count classes, for "
            "SigmoidCrossEntropyLoss and the like"
        )
    if param.cutout and param.whitening_file:
        raise DataError("cutout cuts images, but whitening_file may turn them into something else; remove one of them")
