"""A list of image files as Datum records, as convert_imageset writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from caffe import log
from caffe.data.databases.datum import planes
from caffe.data.pipeline.pool import ordered
from caffe.data.streams.images import read_image
from caffe.errors import DataError
from caffe.proto.caffe_pb2 import Datum

__all__ = ["ImageSet"]

Line = tuple[int, str, Any]
"""Number in the list, name and label."""


@dataclass
class ImageSet:
    """How images become records: the folder before their names, size, colour and compression.

    `encoded` keeps the file as it is where nothing changes (with the extension `encode_type`, its own if that is
    empty), and compresses the pixels anew otherwise. Resizing needs both sides.
    Source: BVLC convert_imageset.cpp, io.cpp.
    """

    root: str = ""
    height: int = 0
    width: int = 0
    color: bool = True
    encoded: bool = False
    encode_type: str = ""

    def records(self, lines: list[tuple[str, Any]], workers: int = 0) -> Iterator[tuple[bytes, bytes, int] | DataError]:
        """(key, value, number of pixel values) for each line, or why its image cannot be read."""
        numbered = ((number, name, label) for number, (name, label) in enumerate(lines))
        return ordered(self.record, numbered, workers)

    def record(self, line: Line) -> tuple[bytes, bytes, int] | DataError:
        """The record of one line, or the error of an image that cannot be read."""
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
        """The Datum of an image's pixels, raw or compressed; `resized` tells that they are not those of the file."""
        if self.encoded:
            return Datum(data=self._compressed(path, name, pixels, resized), encoded=True)
        image = planes(pixels)
        channels, height, width = image.shape
        value = Datum(channels=channels, height=height, width=width, data=image.tobytes())
        value.encoded = False  # written out, as Caffe does
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
