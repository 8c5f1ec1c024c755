"""Batches of images and pixel maps named in a list file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from caffe.data.databases.datum import planes
from caffe.data.pipeline.targets import Maps
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.images import ImageStream, read_image
from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto import files

__all__ = ["MapStream", "read_pairs"]


class MapStream(ImageStream):
    """Transformed images (N, C, H, W) and maps (N, 1, H, W) that are cropped and mirrored with them."""

    def __init__(self, lines: list[tuple[str, str]], transformer: BatchTransformer, batch_size: int) -> None:
        super().__init__(lines, transformer, batch_size)  # type: ignore[arg-type]
        transformer.labels = Maps()
        self.read: Callable[[str, tuple[int, ...]], np.ndarray] = self.nearest
        """Reads the map (H, W) of an image (H, W, C)."""
        self.padding: tuple[list[float], int] | None = None
        """Padding values for pixels and maps of images smaller than the crop; None makes such images an error."""

    def nearest(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read a grey image and resize it by nearest neighbour, so that no new values appear."""
        return self._map(name, cv2.INTER_NEAREST)

    def smooth(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read a grey image and resize it like the image; values from 128 on become 1, others 0."""
        return (self._map(name, cv2.INTER_LINEAR) > 127).astype(np.uint8)

    def _map(self, name: str, method: int) -> np.ndarray:
        try:
            pixels = read_image(self.root + name, False)
        except DataError as error:
            raise DataError(f'has a map "{self.root + name}" that {error}') from error
        height, width = self.size
        return cv2.resize(pixels, (width, height), interpolation=method) if height and width else pixels

    def _load(self, name: str, label: Any) -> tuple[np.ndarray, Any]:
        pixels = read_image(self.root + name, self.color, *self.size)
        found = self.read(label, pixels.shape)
        if found.shape != pixels.shape[:2]:
            fact = f"{pixels.shape[1]} x {pixels.shape[0]}, but its map {found.shape[1]} x {found.shape[0]}"
            raise DataError(f"is {fact}; make both of one size, or set new_height and new_width")
        pixels, found = self._padded(pixels, found)
        return planes(pixels), found[None]

    def _padded(self, pixels: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = (max(0, a - b) for a, b in zip(self.transformer.sides, found.shape, strict=True))
        if self.padding is None or not (rows or columns):
            return pixels, found
        mean, ignored = self.padding
        edges = (0, rows, 0, columns, cv2.BORDER_CONSTANT)
        values = np.resize(mean or [0.0], pixels.shape[2] if pixels.ndim == 3 else 1).tolist()
        return cv2.copyMakeBorder(pixels, *edges, value=values), cv2.copyMakeBorder(found, *edges, value=ignored)


def read_pairs(path: str, alone: bool = False) -> list[tuple[str, str]]:
    """Return the (image, map) of each line. With `alone`, a line can name an image without a map."""
    result = []
    for number, line in enumerate(files.lines(path, "image list"), 1):
        if line:
            words = line.split()
            if len(words) != 2 and not (alone and len(words) == 1):
                raise FileError(f'{path}:{number}: "{line}" has {len(words)} words; expected "image.jpg map.png"')
            result.append((words[0], words[-1]))
    if not result:
        raise FileError(f'image list "{path}" is empty; expected a line "image.jpg map.png" for each image')
    return result
