"""Decodes uploaded pictures, or rejects them with a reason."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from caffe.data.databases.datum import decode
from caffe.errors import DataError
from caffe.opencv import cv2

__all__ = ["LARGEST", "MOST_PIXELS", "Upload", "read_upload"]

LARGEST = 32 << 20
"""Largest size of a file in bytes."""
MOST_PIXELS = 100_000_000
"""Largest number of pixels. A small file can decode to more pixels than fit in memory."""

_UNREADABLE = (
    (b"%PDF", 0, "is a PDF; save the page as PNG or JPEG"),
    (b"ftypheic", 4, "is a HEIC photograph, which OpenCV does not read; save it as JPEG"),
    (b"ftypheix", 4, "is a HEIC photograph, which OpenCV does not read; save it as JPEG"),
    (b"ftypmif1", 4, "is a HEIF photograph, which OpenCV does not read; save it as JPEG"),
    (b"ftypisom", 4, "is a video; give a single picture"),
    (b"ftypmp4", 4, "is a video; give a single picture"),
    (b"ftypqt", 4, "is a video; give a single picture"),
    (b"PK\x03\x04", 0, "is a ZIP archive; give the picture in it"),
)


@dataclass(frozen=True)
class Upload:
    """A picture (H, W, 3) in BGR order, and the conversions that were made."""

    pixels: np.ndarray
    notes: list[str] = field(default_factory=list)


def read_upload(data: bytes) -> Upload:
    """Decode the bytes of a picture as `caffe new` and `caffe classify` do. Raises DataError."""
    if not data:
        raise DataError("the file is empty; give a picture")
    if len(data) > LARGEST:
        raise DataError(
            f"the file has {len(data) / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are allowed; reduce its size"
        )
    width, height = _stated_size(data)
    if width * height > MOST_PIXELS:
        raise DataError(
            f"the picture has {width} x {height} pixels; at most {MOST_PIXELS:,} are allowed; reduce its size"
        )
    try:
        pixels = decode(data, True)
    except DataError:
        raise DataError(f"the file {_why(data)}") from None
    return Upload(pixels, list(_changes(data, pixels)))


def _why(data: bytes) -> str:
    for mark, place, text in _UNREADABLE:
        if data[place : place + len(mark)] == mark:
            return text
    if b"<svg" in data[:1000]:
        return "is an SVG drawing, which has no pixels; save it as PNG"
    known = data[:2] == b"\xff\xd8" or data[:4] in (b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
    return (
        "is damaged: it begins like a picture, but cannot be decoded"
        if known
        else ("is not a picture; give a JPEG, PNG, GIF, WebP, TIFF or BMP")
    )


def _changes(data: bytes, pixels: np.ndarray) -> Iterator[str]:
    """Return the conversions that the user should know, one line each."""
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if whole is not None and whole.ndim == 3 and whole.shape[2] == 4 and int(whole[..., 3].min()) < whole.max():
        yield "the transparency is removed: transparent regions show the colours below"
    if whole is not None and whole.dtype != np.uint8:
        yield f"{8 * whole.itemsize} bits a channel become 8"
    if _jpeg_frame(data)[2] == 4:
        yield "the colours are converted from CMYK (printing) to RGB"
    if b"Exif" in data or b"eXIf" in data:
        flat = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if flat is not None and (flat.shape != pixels.shape or not np.array_equal(flat, pixels)):
            yield "the picture is rotated as the camera recorded (EXIF)"
    if data[:4] == b"GIF8" and data.count(b"\x21\xf9\x04") > 1:
        yield "only the first frame of the animation is used"


def _stated_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of a file; (0, 0) for an unknown format."""
    for mark, place, form in (
        (b"\x89PNG\r\n\x1a\n", 16, ">II"),
        (b"GIF8", 6, "<HH"),
        (b"BM", 18, "<ii"),
    ):
        if data.startswith(mark) and len(data) >= place + struct.calcsize(form):
            width, height = struct.unpack_from(form, data, place)
            return abs(width), abs(height)
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return _jpeg_frame(data)[:2]


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return width, height and number of channels from the frame header of a JPEG; zeros for other files."""
    place = 2 if data[:2] == b"\xff\xd8" else len(data)
    while place + 10 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, place + 5)
            return width, height, channels
        place += 1 if kind == 0xFF else 2 + length
    return 0, 0, 0
