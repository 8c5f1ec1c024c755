"""Pictures of images with the boxes of their objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from caffe.opencv import cv2
from caffe.pictures.grid import viewable

__all__ = ["outlined", "shown"]

_LEAST = 160
"""Images whose longer side is smaller are enlarged to this, so that the names are legible."""
_COLOURS = ((60, 60, 230), (60, 200, 60), (230, 120, 40), (30, 200, 230), (220, 60, 200), (200, 200, 40), (0, 128, 255))


def shown(image: np.ndarray, label: Any, names: Mapping[int, str] | None = None) -> np.ndarray:
    """Convert an image (C, H, W) to pixels (H, W, 3).

    If `label` is rows (M, 7) of AnnotatedData, the boxes are drawn.
    """
    pixels = viewable(image)
    if not isinstance(label, np.ndarray) or label.ndim != 2:
        return pixels
    texts = [(names or {}).get(int(row[0]), str(int(row[0]))) for row in label]
    return outlined(pixels, label[:, 2:6], label[:, 0].astype(int).tolist(), texts)


def outlined(pixels: np.ndarray, boxes: np.ndarray, labels: list[int], texts: list[str]) -> np.ndarray:
    """Draw boxes (M, 4), in fractions of the image, on pixels (H, W, 3), with a colour by label and a text at each."""
    height, width = pixels.shape[:2]
    times = max(1, -(-_LEAST // max(height, width, 1)))
    pixels = cv2.resize(pixels, (width * times, height * times), interpolation=cv2.INTER_NEAREST)
    corners = np.rint(boxes * np.array([width, height] * 2) * times).astype(int).tolist()
    for (left, top, right, bottom), label, text in zip(corners, labels, texts, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        cv2.rectangle(pixels, (left, top), (right - 1, bottom - 1), colour, 1)
        place = (left + 2, top - 3 if top > 12 else min(bottom - 3, top + 11))
        cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_PLAIN, 0.8, colour, 1, cv2.LINE_AA)
    return pixels
