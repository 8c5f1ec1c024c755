"""Batches of windows cropped from images, for training R-CNN."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from caffe import log
from caffe.data.pipeline.prefetch import Arrays, State, Stream
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.images import read_image
from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto import files

__all__ = ["WindowStream", "Windows", "read_windows"]

Box = tuple[int, int, int, int]
"""Corners x1, y1, x2, y2, in pixels."""


class Windows(NamedTuple):
    """Rows are (image, label, x1, y1, x2, y2): an index of `paths`, and corners that are part of the window."""

    paths: list[str]
    background: np.ndarray
    foreground: np.ndarray


class WindowStream(Stream):
    """Warped windows.

    Each batch has background windows first, then a fraction `fg_fraction` of foreground ones, at random.

    Each window is enlarged so that `context_pad` pixels of context surround it after the warp, clipped to the image and
    resized. Pixels from outside the image are 0 in the batch.
    Source: Girshick et al., arXiv:1311.2524, appendix A; BVLC window_data_layer.cpp.
    """

    def __init__(self, windows: Windows, opt: Any, transformer: BatchTransformer) -> None:
        """`opt` is a WindowDataParameter."""
        self.windows = windows
        self.opt = opt
        self.transformer = transformer
        self.scale = np.float32(opt.scale)
        self._cache: dict[str, np.ndarray] = {}
        counts = self._counts(opt.batch_size)
        for kind, found, count in zip(("background", "foreground"), windows[1:], counts, strict=True):
            if count and not len(found):
                raise DataError(
                    f'"{opt.source}" has no {kind} windows, but each batch needs {count}; '
                    f"change the thresholds, fg_fraction or the file"
                )

    def _counts(self, size: int) -> tuple[int, int]:
        """Return the number of background and of foreground windows in a batch of `size`."""
        foreground = int(np.float32(size) * np.float32(self.opt.fg_fraction))
        return size - foreground, foreground

    def start(self, seed: int) -> State:
        return {"seed": seed, "batch": 0}

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        crop = self.transformer.crop
        return [(self.opt.batch_size, 3, crop, crop), (self.opt.batch_size,)]

    def after(self, state: State, count: int) -> State:
        return {**state, "batch": state["batch"] + count}

    def batch(self, state: State) -> tuple[Arrays, State]:
        data, labels = (np.zeros(shape, np.float32) for shape in self.shapes(state))
        rank, size = self.shard
        drawn = generator(state["seed"], state["batch"]).integers(1 << 62, size=(self.opt.batch_size * size, 2))
        background = self._counts(self.opt.batch_size * size)[0]
        for item, (draw, flip) in enumerate(drawn[rank::size].tolist()):
            behind = self.shard.place(item) < background
            rows = self.windows.background if behind else self.windows.foreground
            image, labels[item], *corners = rows[draw % len(rows)].tolist()
            mirrored = self.transformer.mirror and flip % 2 == 1
            self._warp(data[item], self.windows.paths[image], tuple(corners), mirrored)
        return (data, labels), {**state, "batch": state["batch"] + 1}

    def _warp(self, top: np.ndarray, path: str, corners: Box, mirrored: bool) -> None:
        """Write the warped window into `top` (3, crop, crop)."""
        image = self._image(path)
        box, (height, width), margin = self._frame(corners, image.shape[0], image.shape[1], mirrored)
        x1, y1, x2, y2 = box
        if not (0 <= x1 <= x2 < image.shape[1] and 0 <= y1 <= y2 < image.shape[0]):
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise DataError(f'"{self.opt.source}": window {corners} does not lie in image "{path}" of {size} pixels')
        if height < 1 or width < 1:
            return  # the window is entirely outside the image
        piece = cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], (width, height), interpolation=cv2.INTER_LINEAR)
        planes = (piece[:, ::-1] if mirrored else piece).transpose(2, 0, 1).astype(np.float32)
        rows, columns = (slice(start, start + size) for start, size in zip(margin, (height, width), strict=True))
        top[:, rows, columns] = (planes - self._mean(rows, columns)) * self.scale

    def _frame(
        self, corners: Box, rows: int, columns: int, mirrored: bool
    ) -> tuple[Box, tuple[int, int], tuple[int, int]]:
        """Return the box to crop, the (height, width) to resize it to, and its (top, left) position in the output."""
        crop, pad = self.transformer.crop, self.opt.context_pad
        square = self.opt.crop_mode == "square"
        if not pad and not square:
            return corners, (crop, crop), (0, 0)
        x1, y1, x2, y2 = _grow(corners, np.float32(crop) / np.float32(crop - 2 * pad), square)
        x1, x2, width, left, right = _clip(x1, x2, columns, crop)
        y1, y2, height, above, _ = _clip(y1, y2, rows, crop)
        left = right if mirrored else left
        return (x1, y1, x2, y2), (min(height, crop - above), min(width, crop - left)), (above, left)

    def _mean(self, rows: slice, columns: slice) -> np.ndarray | np.float32:
        """Return the mean to subtract at this position of the output. A mean image is centred on the output."""
        mean = self.transformer.mean.image
        if mean is None:
            values = self.transformer.mean.values
            return values if len(values) else np.float32(0)
        offset = (mean.shape[2] - self.transformer.crop) // 2
        return mean[:, rows.start + offset : rows.stop + offset, columns.start + offset : columns.stop + offset]

    def _image(self, path: str) -> np.ndarray:
        if path in self._cache:
            return self._cache[path]
        try:
            image = read_image(path)
        except DataError as error:
            raise DataError(f'image "{path}" {error}') from error
        if self.opt.cache_images:
            self._cache[path] = image
        return image


def read_windows(path: str, root: str, fg_threshold: float, bg_threshold: float) -> Windows:
    """Read a window file.

    For each image it has: `# index`, path, channels, height, width, number of windows, then lines `label overlap x1 y1
    x2 y2`. A window is foreground if it overlaps an object by `fg_threshold` or more, and background if by less than
    `bg_threshold`. Other windows are not used.
    """
    paths: list[str] = []
    background: list[np.ndarray] = [np.empty((0, 6), np.int64)]
    foreground: list[np.ndarray] = [np.empty((0, 6), np.int64)]
    for image, fields in _blocks(path, files.lines(path, "window file")):
        overlap = fields[:, 1].astype(np.float32)
        rows = fields.astype(np.int64)[:, [1, 0, 2, 3, 4, 5]]
        rows[:, 0] = len(paths)
        near = overlap >= np.float32(fg_threshold)
        foreground.append(rows[near])
        background.append(rows[~near & (overlap < np.float32(bg_threshold))] * [1, 0, 1, 1, 1, 1])
        paths.append(root + image)
        if (foreground[-1][:, 1] <= 0).any():
            raise FileError(f'{path}: image "{image}" has a foreground window with label 0; labels start at 1')
    if not paths:
        raise FileError(f'the window file "{path}" is empty')
    log.info("window_data_layer.cpp", f"Number of images: {len(paths)}")
    return Windows(paths, np.concatenate(background), np.concatenate(foreground))


def _blocks(path: str, stripped: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the path and the lines (windows, 6) of each image."""
    lines = ((number, text) for number, text in enumerate(stripped, 1) if text)
    for number, text in lines:
        if not text.startswith("#"):
            raise FileError(f'{path}:{number}: expected "# image_index", got "{text}"')
        try:
            image, _, _, _, count = (line for _, line in islice(lines, 5))
            words = " ".join(line for _, line in islice(lines, int(count))).split()
            fields = np.array(words, np.float64).reshape(int(count), 6)
            if not (np.abs(fields) < 1 << 31).all():
                raise ValueError
        except ValueError:
            raise FileError(
                f'{path}:{number}: "{text}" is not followed by path, channels, height, width, number of windows '
                f'and as many lines "label overlap x1 y1 x2 y2"'
            ) from None
        yield image, fields


def _grow(corners: Box, scale: np.float32, square: bool) -> Box:
    """Enlarge the window about its centre; with `square`, it is made square first."""
    x1, y1, x2, y2 = corners
    half_height, half_width = np.float32(y2 - y1 + 1) / 2, np.float32(x2 - x1 + 1) / 2
    x, y = np.float32(x1) + half_width, np.float32(y1) + half_height
    if square:
        half_height = half_width = max(half_height, half_width)
    half_width, half_height = half_width * scale, half_height * scale
    return _round(x - half_width), _round(y - half_height), _round(x + half_width), _round(y + half_height)


def _clip(first: int, last: int, size: int, crop: int) -> tuple[int, int, int, int, int]:
    """Clip an interval to the image. Returns its length and the margins before and after it, in pixels of the
    output.
    """
    scale = np.float32(crop) / np.float32(last - first + 1)
    before, after = max(0, -first), max(0, last - size + 1)
    first, last = first + before, last - after
    length, before, after = (_round(np.float32(pixels) * scale) for pixels in (last - first + 1, before, after))
    return first, last, length, before, after


def _round(value: np.floating) -> int:
    """Round to the nearest integer, halves away from zero, as C does."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))
