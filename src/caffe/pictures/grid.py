"""Pictures composed of many small images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto import files

__all__ = ["grid", "image_tiles", "viewable", "write_picture"]

_GAP, _TEXT, _WIDEST = 4, 14, 256
_PAPER, _INK = 255, 0


def viewable(image: np.ndarray) -> np.ndarray:
    """Convert an image (C, H, W) of any dtype to uint8 pixels (H, W, 3). It is grey unless it has 3 channels or more.

    uint8 values are unchanged; others are scaled to 0 ... 255 unless they lie within this range.
    """
    if image.dtype != np.uint8:
        image = np.nan_to_num(image.astype(np.float32))
        low, high = float(image.min()), float(image.max())
        if low < -0.5 or high > 255.5 or high - low < 4:
            image = (image - low) * (255 / ((high - low) or 1))
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    image = image[:3] if len(image) >= 3 else image[:1]
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    return pixels if len(image) == 3 else np.repeat(pixels, 3, axis=2)


def grid(pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int = 0) -> np.ndarray:
    """Combine pictures (H, W, 3) of any sizes, with a line of text below each, in rows."""
    pictures = [_shown(picture) for picture in pictures]
    columns = min(columns or int(np.ceil(np.sqrt(len(pictures)))), len(pictures))
    height = max(len(picture) for picture in pictures) + _TEXT + _GAP
    width = max(picture.shape[1] for picture in pictures) + _GAP
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * height + _GAP, columns * width + _GAP, 3), _PAPER, np.uint8)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top, left = _GAP + number // columns * height, _GAP + number % columns * width
        canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
        cell = canvas[top + len(picture) : top + len(picture) + _TEXT, left : left + width - _GAP]
        cell[...] = _text(caption, cell.shape[1])
    return canvas


def image_tiles(images: np.ndarray) -> np.ndarray:
    """Combine images (N, C, H, W), in BGR if C is 3, to one RGB picture."""
    return np.ascontiguousarray(grid([viewable(image) for image in images], [""] * len(images))[..., ::-1])


def write_picture(path: str, pixels: np.ndarray) -> None:
    """Write pixels (H, W, 3) atomically, in the format given by the suffix of `path`."""
    suffix = os.path.splitext(path)[1] or ".png"
    try:
        done, data = cv2.imencode(suffix, pixels)
    except cv2.error:
        done = False
    if not done:
        raise FileError(f'cannot write a picture "{path}": expected the suffix .png or .jpg')
    with files.atomic(path) as file:
        file.write(data.tobytes())


def _shown(picture: np.ndarray) -> np.ndarray:
    """Resize a picture that is too small to see, or too large for a grid."""
    height, width = picture.shape[:2]
    if not height * width:
        raise DataError("a picture without pixels cannot be shown")
    if max(height, width) < 48:
        times = 64 // max(height, width)
        return cv2.resize(picture, (width * times, height * times), interpolation=cv2.INTER_NEAREST)
    if max(height, width) > _WIDEST:
        scale = _WIDEST / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture


def _text(caption: str, width: int) -> np.ndarray:
    cell = np.full((_TEXT, width, 3), _PAPER, np.uint8)
    cv2.putText(cell, caption, (0, _TEXT - 3), cv2.FONT_HERSHEY_PLAIN, 0.8, (_INK,) * 3, 1, cv2.LINE_AA)
    return cell
