"""Converts a list of image files to Datum records, as convert_imageset does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe import log
from caffe.data.databases.datum import planes
from caffe.data.pipeline.pool import ordered
from caffe.data.streams.images import read_image
from caffe.errors import DataError
from caffe.opencv import cv2
from caffe.proto.caffe_pb2 import Datum

__all__ = ["ImageSet"]

Line = tuple[int, str, Any]
"""Number in the list, name and label."""


@dataclass
class ImageSet:
    """Options of the conversion: the folder of the images, size, colour and compression.

    With `encoded`, an unchanged image keeps the bytes of its file, and a changed one is compressed again in the format
    `encode_type` (default: the format of the file). Resizing requires both height and width.
    Source: BVLC convert_imageset.cpp, io.cpp.
    """

    root: str = ""
    height: int = 0
    width: int = 0
    color: bool = True
    encoded: bool = False
    encode_type: str = ""

    def records(self, lines: list[tuple[str, Any]], workers: int = 0) -> Iterator[tuple[bytes, bytes, int] | DataError]:
        """Yield (key, value, number of pixel values) for each line, or the reason why its image cannot be read."""
        numbered = ((number, name, label) for number, (name, label) in enumerate(lines))
        return ordered(self.record, numbered, workers)

    def record(self, line: Line) -> tuple[bytes, bytes, int] | DataError:
        """Return the record of a line, or the error if the image cannot be read."""
        number, name, label = line
        path = self.root + name
        try:
            pixels = read_image(path, self.color, max(0, self.height), max(0, self.width))
        except DataError as error:
            return error
        value = self.datum(path, name, pixels, self.height > 0 or self.width > 0)
        value.label = label
        return os.fsencode(f"{number:08d}_{name}"), value.SerializeToString(), pixels.size

    def datum(self, path: str, name: str, pixels: np.ndarray, resized: bool) -> Datum:
        """Create the Datum of an image's pixels, raw or compressed.

        `resized` says that the pixels differ from the file's.
        """
        if self.encoded:
            return Datum(data=self._compressed(path, name, pixels, resized), encoded=True)
        image = planes(pixels)
        channels, height, width = image.shape
        value = Datum(channels=channels, height=height, width=width, data=image.tobytes())
        value.encoded = False  # written explicitly, as Caffe does
        return value

    def _compressed(self, path: str, name: str, pixels: np.ndarray, resized: bool) -> bytes:
        own = name.rpartition(".")[2].lower()
        if "." not in name:
            log.warning("convert_imageset.cpp:107", f"Failed to guess the encoding of '{name}'")
        wanted = self.encode_type.lower() or own
        if not resized and (own == wanted or (own, wanted) == ("jpeg", "jpg")):
            with open(path, "rb") as file:
                return file.read()
        try:
            done, data = cv2.imencode(f".{wanted}", pixels)
        except cv2.error:
            done = False
        if not done:
            raise DataError(f'cannot compress "{path}" as "{wanted}"; give -encode_type png, jpg or another of OpenCV')
        return data.tobytes()
