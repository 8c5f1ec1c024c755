"""Batches of images named in a list file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from caffe import log
from caffe.data.datum import decode, planes
from caffe.data.prefetch import Arrays, State, Stream
from caffe.data.rng import generator
from caffe.data.transformer import Transformer
from caffe.errors import DataError, FileError

__all__ = ["ImageStream", "read_image", "read_image_list"]

_CROPS, _SKIP, _ORDER = 0, 1, 2  # uses of random numbers


class ImageStream(Stream):
    """Transformed images and labels of `batch_size` lines at a time; with `shuffle` each pass has its own order."""

    def __init__(self, lines: list[tuple[str, int]], transformer: Transformer, batch_size: int) -> None:
        self.lines = lines
        self.transformer = transformer
        self.batch_size = batch_size
        self.root = ""
        self.size = (0, 0)
        self.color = True
        self.shuffle = False
        self.rand_skip = 0
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def start(self, seed: int) -> State:
        skip = int(generator(seed, 0, _SKIP).integers(self.rand_skip)) if self.rand_skip else 0
        if self.rand_skip:
            log.info("image_data_layer.cpp:63", f"Skipping first {skip} data points.")
        if skip >= len(self.lines):
            raise DataError(f"rand_skip passes over {skip} images of a list of {len(self.lines)}; lower rand_skip")
        return {"seed": seed, "batch": 0, "pass": 0, "line": skip}

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        name, _ = self._line(state["seed"], state["pass"], state["line"])
        with self._naming(name):
            shape = self.transformer.top_shape(self._image(name).shape)
        return [(self.batch_size, *shape), (self.batch_size,)]

    def batch(self, state: State) -> tuple[Arrays, State]:
        batch = self.transformer.batch(self.batch_size, generator(state["seed"], state["batch"], _CROPS))
        labels = np.empty(self.batch_size, np.float32)
        passes, line = state["pass"], state["line"]
        for index in range(self.batch_size):
            name, labels[index] = self._line(state["seed"], passes, line)
            with self._naming(name):
                batch.add(self._image(name))
            line += 1
            if line >= len(self.lines):
                passes, line = passes + 1, 0
        return (batch.finish(), labels), {**state, "batch": state["batch"] + 1, "pass": passes, "line": line}

    def _line(self, seed: int, number: int, index: int) -> tuple[str, int]:
        """Line `index` in the order of pass `number`."""
        if not self.shuffle:
            return self.lines[index % len(self.lines)]
        if self._order is None or self._order[0] != (seed, number):
            self._order = (seed, number), generator(seed, number, _ORDER).permutation(len(self.lines))
        return self.lines[self._order[1][index]]

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f'image "{self.root + name}" {error}') from error

    def _image(self, name: str) -> np.ndarray:
        return planes(read_image(self.root + name, self.color, *self.size))


def read_image(path: str, color: bool = True, height: int = 0, width: int = 0) -> np.ndarray:
    """The pixels of an image file as `datum.decode` gives them, resized (bilinear) if height and width are given.

    The DataError for one that cannot be read says what is wrong with it; the caller puts the name before.
    """
    try:
        with open(path, "rb") as file:
            image = decode(file.read(), color)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror} (from {os.getcwd()})") from error
    return cv2.resize(image, (width, height)) if height and width else image


def read_image_list(path: str) -> list[tuple[str, int]]:
    """The (name, label) of each line `name label`; a name may contain spaces, a line without a label has label 0."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise FileError(f'cannot open the image list "{path}": {error.strerror} (from {os.getcwd()})') from error
    result = []
    for number, line in enumerate(lines, 1):
        if line:
            name, label = line.rsplit(maxsplit=1) if len(line.split(maxsplit=1)) > 1 else (line, "0")
            try:
                result.append((name, int(label)))
            except ValueError:
                raise FileError(
                    f'{path}:{number}: "{label}" is not a label; expected "path label" with a whole number'
                ) from None
    if not result:
        raise FileError(f'image list "{path}" is empty; expected a line "path label" for each image')
    return result
