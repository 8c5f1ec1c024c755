"""Kinds of image labels (numbers, boxes, pixel maps), and how the labels of a batch become one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe.data.pipeline import boxes
from caffe.data.pipeline.resizing import Resize
from caffe.opencv import cv2

__all__ = ["Boxes", "Maps", "Numbers", "Place"]

Shape = tuple[int, ...]
Place = tuple[int, int, bool]
"""The position of the crop in an image, and whether it is mirrored."""


class Numbers:
    """One number per image. Crops do not change it."""

    kind = "number"

    def shape(self, count: int, label: Any, crop: Shape) -> Shape:
        """Return the shape of the labels of `count` images.

        `label` is the first label, `crop` the shape (C, H, W) of its image.
        """
        return (count,)

    def varied(self, label: Any, resize: Resize | None, size: tuple[int, int], window: np.ndarray | None) -> Any:
        """Adapt the label of an image of `size` that was cropped to `window`, in fractions of the image, or else
        resized.
        """
        return label

    def collated(
        self, labels: Sequence[Any], places: Sequence[Place], sizes: Sequence[tuple[int, int]], crop: Shape
    ) -> np.ndarray:
        """Combine the labels of a batch.

        `places` and `sizes` give the crop position and the original size of each image.
        """
        return np.array(labels, np.float32)


class Boxes(Numbers):
    """Boxes (M, 7) per image, as described in `boxes`.

    A batch has rows (1, 1, M, 8): index of the image, label, instance, xmin, ymin, xmax, ymax, difficult. A batch
    without boxes has one row of -1.
    """

    kind = "boxes"

    def __init__(self, emit: Any = None, resize: Resize | None = None) -> None:
        """`emit` is the EmitConstraint; `resize` is the Resize that was applied to the images."""
        self.emit = emit
        self.resize = resize

    def shape(self, count: int, label: Any, crop: Shape) -> Shape:
        return (1, 1, max(1, len(label)), 8)

    def varied(self, label: Any, resize: Resize | None, size: tuple[int, int], window: np.ndarray | None) -> Any:
        if window is not None:
            rows, stays = boxes.projected(label, window, self.emit)
            return rows[stays]
        return label if resize is None else resize.moved(label, *size)

    def collated(
        self, labels: Sequence[Any], places: Sequence[Place], sizes: Sequence[tuple[int, int]], crop: Shape
    ) -> np.ndarray:
        items = np.repeat(np.arange(len(labels)), [len(rows) for rows in labels])
        rows = np.concatenate([boxes.NONE, *labels])
        _, height, width = crop
        near = np.array([place[1::-1] for place in places], np.float32)
        whole = np.array(sizes, np.float32)[:, ::-1]
        far = near + np.array([width, height], np.float32)
        windows = np.concatenate([near / whole, far / whole], 1)
        rows, stays = boxes.projected(rows, windows[items], self.emit)
        rows, items = rows[stays], items[stays]
        boxes.mirrored(rows, np.array([place[2] for place in places])[items])
        if self.resize is not None:
            rows[:, boxes.SIDES] *= np.tile(np.array(self.resize.stretch(height, width), np.float32), 2)
        if not len(rows):
            return np.full((1, 1, 1, 8), -1, np.float32)
        return np.concatenate([items[:, None].astype(np.float32), rows], 1)[None, None]


class Maps(Numbers):
    """A map (1, H, W) per image. It is cropped and mirrored like the image, but not normalized."""

    kind = "map"

    def shape(self, count: int, label: Any, crop: Shape) -> Shape:
        return (count, len(label), *crop[1:])

    def varied(self, label: Any, resize: Resize | None, size: tuple[int, int], window: np.ndarray | None) -> Any:
        if resize is None:
            return label
        rows, columns = resize.size(*size)
        return np.stack([cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_NEAREST) for plane in label])

    def collated(
        self, labels: Sequence[Any], places: Sequence[Place], sizes: Sequence[tuple[int, int]], crop: Shape
    ) -> np.ndarray:
        _, height, width = crop
        result = np.empty((len(labels), len(labels[0]), height, width), np.float32)
        for slot, label, (top, left, mirrored) in zip(result, labels, places, strict=True):
            piece = label[:, top : top + height, left : left + width]
            slot[...] = piece[..., ::-1] if mirrored else piece
        return result
