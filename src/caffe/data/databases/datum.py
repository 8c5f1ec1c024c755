"""Datum records: an image and its label as bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from caffe.data.databases.base import Bytes
from caffe.errors import DataError
from caffe.limits import why_undecodable
from caffe.opencv import cv2
from caffe.proto.caffe_pb2 import Datum

__all__ = ["DatumReader", "compression", "decode", "encode_datum", "planes"]

_MAGIC = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"BM": "bmp", b"RIFF": "webp", b"II*\0": "tif", b"MM\0*": "tif"}


class DatumReader:
    """Decodes the bytes of a Datum to its image (C, H, W), uint8 or float32, and its label.

    `color` selects how compressed images are decoded: True for three channels, False for one, None for the number in
    the file. Raw images of the same size have the same bytes before the pixels. After the first such record, these
    bytes are compared instead of parsed.
    """

    def __init__(self, color: bool | None = None, split: bool = True, target: tuple[int, int] | None = None) -> None:
        """With `split`, compressed images have contiguous planes; otherwise they are a view of OpenCV's interleaved
        pixels. For `target` see `decode`.
        """
        self.color = color
        self.split = split
        self.target = target
        self._known = _Known(b"", (0, 0, 0), 0)

    def __call__(self, value: Bytes) -> tuple[np.ndarray, int]:
        known = self._known  # read once, because other threads may replace it
        if known.begins(value):
            rest = _parse(value[known.end :])
            if not rest.encoded and not any(map(rest.HasField, ("channels", "height", "width", "data"))):
                pixels = np.frombuffer(value[len(known.head) : known.end], np.uint8)
                return pixels.reshape(known.shape), rest.label
        return self._whole(value)

    def knows(self, value: Bytes) -> bool:
        """Whether this value can be decoded at almost no cost, so that no thread is needed."""
        return self._known.begins(value)

    @staticmethod
    def compressed(value: Bytes) -> bool:
        """Whether the image is compressed."""
        return _parse(value).encoded

    def _whole(self, value: Bytes) -> tuple[np.ndarray, int]:
        datum = _parse(value)
        if datum.encoded:
            pixels = decode(datum.data, self.color, self.target)
            return planes(pixels) if self.split or pixels.ndim == 2 else pixels.transpose(2, 0, 1), datum.label
        shape = (datum.channels, datum.height, datum.width)
        image = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
        if not image.size and value[:1] == b"\x0a":  # no Datum begins with this byte
            raise DataError("is an AnnotatedDatum, which the layer AnnotatedData reads; write that type")
        if image.size != shape[0] * shape[1] * shape[2] or not image.size:
            size = " x ".join(map(str, shape))
            raise DataError(f"holds {image.size} values where channels x height x width = {size}; write it again")
        if self.color is not None and shape[0] != (3 if self.color else 1):
            field = "force_color" if self.color else "force_gray"
            raise DataError(f"is raw with {shape[0]} channels, but {field} works on encoded images only; remove it")
        if datum.data:
            self._learn(value, shape)
        return image.reshape(shape), datum.label

    def _learn(self, value: Bytes, shape: tuple[int, int, int]) -> None:
        """Store the bytes before the pixels, if the record has the usual order of fields."""
        size = shape[0] * shape[1] * shape[2]
        channels, height, width = shape
        head = Datum(channels=channels, height=height, width=width, data=bytes(size)).SerializeToString()[:-size]
        if value[: len(head)] == head:
            self._known = _Known(head, shape, len(head) + size)


class _Known(NamedTuple):
    """The bytes before the pixels in raw records of one size, and the end of the pixels."""

    head: bytes
    shape: tuple[int, int, int]
    end: int

    def begins(self, value: Bytes) -> bool:
        return bool(self.head) and value[: len(self.head)] == self.head and len(value) >= self.end


def decode(data: bytes, color: bool | None = None, target: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a compressed image to uint8 pixels (H, W, C) in BGR order, or (H, W). `color` as in `DatumReader`.

    An image that is resized to `target` (height, width) is decoded at 1/2, 1/4 or 1/8 of its size if it is a JPEG and
    is then still as large as the target in both directions.
    """
    flags = {None: cv2.IMREAD_UNCHANGED, True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE}[color]
    if target is not None:
        flags = _reduced(data, color, target) or flags
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise DataError(f"cannot be decoded as an image: {why_undecodable(error)}") from error
    if image is None:
        raise DataError("cannot be decoded as an image: it is damaged or of a format that OpenCV does not read")
    if image.dtype != np.uint8:
        raise DataError(f"has pixels of type {image.dtype}, expected 8 bits a channel; convert the image")
    return image


def planes(image: np.ndarray) -> np.ndarray:
    """Convert an OpenCV image (H, W, C) or (H, W) to (C, H, W)."""
    if image.ndim == 2:
        return image[None]
    result = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(result))
    return result


def encode_datum(image: np.ndarray, label: int) -> bytes:
    """Encode a uint8 image (C, H, W) as the bytes of a raw Datum."""
    channels, height, width = image.shape
    datum = Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label)
    return datum.SerializeToString()


def _reduced(data: bytes, color: bool | None, target: tuple[int, int]) -> int:
    """Return OpenCV's flags for decoding a JPEG at the smallest size that holds `target`, or 0 for its own size."""
    height, width, channels = _jpeg_size(data)
    for factor in (8, 4, 2):
        sides = (height // factor, width // factor)
        if min(sides) >= max(target) or (color is None and sides[0] >= target[0] and sides[1] >= target[1]):
            colored = channels == 3 if color is None else color
            flags: int = getattr(cv2, f"IMREAD_REDUCED_{'COLOR' if colored else 'GRAYSCALE'}_{factor}")
            if color is not None:
                return flags
            if channels in (1, 3):
                return flags | cv2.IMREAD_IGNORE_ORIENTATION
    return 0


def _jpeg_size(data: bytes) -> tuple[int, int, int]:
    """Return height, width and channels from the header of a JPEG; zeros for other data."""
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            return (
                int.from_bytes(data[at + 5 : at + 7], "big"),
                int.from_bytes(data[at + 7 : at + 9], "big"),
                data[at + 9],
            )
        at += 1 if kind == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0, 0


def compression(data: bytes) -> str:
    """Return the usual suffix of a compressed image."""
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "img")


def _parse(value: Bytes) -> Datum:
    try:
        return Datum.FromString(bytes(value))
    except DecodeError as error:
        raise DataError("is not a Datum message; write the database again with convert_imageset") from error
