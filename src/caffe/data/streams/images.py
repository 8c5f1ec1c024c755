"""Batches of images named in a list file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np

from caffe import log
from caffe.data.databases.datum import decode, planes
from caffe.data.pipeline.prefetch import State
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.decoding import Picture, PictureStream
from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto import files

__all__ = ["ImageStream", "read_class_folders", "read_image", "read_image_list"]

_SKIP, _ORDER = 1, 2  # random streams


class ImageStream(PictureStream):
    """Transformed images and labels of `batch_size` lines at a time. With `shuffle`, the order of each pass is drawn
    separately.
    """

    def __init__(self, lines: list[tuple[str, int]], transformer: BatchTransformer, batch_size: int) -> None:
        super().__init__(transformer, batch_size)
        self.lines = lines
        self.root = ""
        self.size = (0, 0)
        self.color = True
        self.shuffle = False
        self.fast = False
        self.rand_skip = 0
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def count(self) -> int:
        return len(self.lines)

    def start(self, seed: int) -> State:
        skip = int(generator(seed, 0, _SKIP).integers(self.rand_skip)) if self.rand_skip else 0
        if self.rand_skip:
            log.info("image_data_layer.cpp:63", f"Skipping first {skip} data points.")
        if skip >= len(self.lines):
            raise DataError(f"rand_skip passes over {skip} images of a list of {len(self.lines)}; lower rand_skip")
        return {"seed": seed, "batch": 0, "pass": 0, "line": skip, "skipped": 0}

    def pictures(self, state: State) -> Iterator[tuple[State, Picture]]:
        number, line = state["pass"], state["line"]
        while True:
            number, line = number + line // len(self.lines), line % len(self.lines)
            further, index = divmod(line + self.shard.rank, len(self.lines))
            name, label = self._line(state["seed"], number + further, index)
            picture = Picture(f'image "{self.root + name}"', partial(self._load, name, label))
            yield {"pass": number, "line": line}, picture
            line += self.shard.size

    def _line(self, seed: int, number: int, index: int) -> tuple[str, int]:
        """Return line `index` in the order of pass `number`."""
        if not self.shuffle:
            return self.lines[index]
        if self._order is None or self._order[0] != (seed, number):
            self._order = (seed, number), generator(seed, number, _ORDER).permutation(len(self.lines))
        return self.lines[self._order[1][index]]

    def _load(self, name: str, label: int) -> tuple[np.ndarray, int]:
        return planes(read_image(self.root + name, self.color, *self.size, self.fast)), label


def read_image(path: str, color: bool = True, height: int = 0, width: int = 0, fast: bool = False) -> np.ndarray:
    """Read the pixels of an image file, as `datum.decode` returns them, resized (bilinear) if height and width are
    given. With `fast`, a JPEG that becomes smaller is decoded at a part of its size.

    If the image cannot be read, the text of the DataError is the reason only; the caller adds the name.
    """
    try:
        files.refuse_special(path)
        with open(path, "rb") as file:
            image = decode(file.read(), color, (height, width) if fast else None)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {files.reason(error)} (from {os.getcwd()})") from error
    return cv2.resize(image, (width, height)) if height and width else image


_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def read_class_folders(path: str) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the (name, label) of the images in a folder's subfolders, and the sorted names of the subfolders.

    The label of an image is the index of its subfolder; deeper subfolders are searched too. Raises FileError if there
    are no images.
    """
    classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    lines = []
    for label, name in enumerate(classes):
        for folder, folders, names in os.walk(os.path.join(path, name), followlinks=True):
            folders.sort()
            inner = os.path.relpath(folder, path)
            chosen = (file for file in sorted(names) if os.path.splitext(file)[1].lower() in _SUFFIXES)
            lines += [(os.path.join(inner, file), label) for file in chosen]
    if not lines:
        raise FileError(
            f'the folder "{path}" has no images in sub-folders; expected one sub-folder for each class, or give a list '
            'file with a line "path label" for each image'
        )
    log.info("image_data_layer.cpp", f"Classes: {', '.join(f'{label} {name}' for label, name in enumerate(classes))}")
    return lines, classes


def read_image_list(path: str, labels: bool = False) -> list[tuple[str, int]]:
    """Return the (name, label) of each line `name label`. A name can contain spaces.

    A line without a label gets label 0, or raises FileError if `labels` is true. A label that does not fit 32 bits
    always raises FileError.
    """
    result = []
    for number, line in enumerate(files.lines(path, "image list"), 1):
        if line:
            result.append(_list_line(line, labels, f"{path}:{number}"))
    if not result:
        raise FileError(f'image list "{path}" is empty; expected a line "path label" for each image')
    return result


def _list_line(line: str, needed: bool, place: str) -> tuple[str, int]:
    """Return name and label of a line of an image list."""
    if len(line.split(maxsplit=1)) < 2:
        if needed:
            raise FileError(f'{place}: "{line}" has no label; expected "path label" with a whole number')
        return line, 0
    name, label = line.rsplit(maxsplit=1)
    try:
        value = int(label)
    except ValueError:
        raise FileError(f'{place}: "{label}" is not a label; expected "path label" with a whole number') from None
    if not -(1 << 31) <= value < 1 << 31:
        raise FileError(f"{place}: the label {label} has more than 32 bits; expected -2147483648 to 2147483647")
    return name, value
