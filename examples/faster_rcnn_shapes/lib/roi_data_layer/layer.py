"""RoIDataLayer: one picture and its boxes in each iteration."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

import caffe

NAMES = ("background", "circle", "square", "triangle")


def read(folder: Path, line: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (3, H, W) with values around 0, and its boxes (K, 5): x1, y1, x2, y2 in pixels, and the class.

    `line` names the picture and its VOC file.
    """
    image, boxes = line.split()
    pixels = cv2.imread(str(folder / image)).transpose(2, 0, 1).astype(np.float32)
    found = []
    for item in ElementTree.parse(folder / boxes).iter("object"):
        x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        found.append([x1, y1, x2 - 1, y2 - 1, NAMES.index(item.findtext("name", ""))])
    return (pixels - 104) / 60, np.array(found, np.float32)


class RoIDataLayer(caffe.Layer):
    """tops: data (1, 3, H, W); im_info (1, 3): height, width, scale; gt_boxes (K, 5)

    param_str: 'source' is a list of pictures and VOC files. Pictures come in random order, half of them mirrored.
    """

    def setup(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        source = Path(ast.literal_eval("{" + self.param_str_ + "}")["source"])
        self._items = [read(source.parent, line) for line in source.read_text().splitlines()]
        self._random = np.random.default_rng(1)
        self._order: list[int] = []
        for blob, shape in zip(top, (self._items[0][0][None].shape, (1, 3), (1, 5)), strict=True):
            blob.reshape(*shape)

    def reshape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """The tops get their shapes in forward."""

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        if not self._order:
            self._order = self._random.permutation(len(self._items)).tolist()
        pixels, boxes = self._items[self._order.pop()]
        height, width = pixels.shape[1:]
        if self._random.random() < 0.5:
            pixels, boxes = pixels[:, :, ::-1], boxes.copy()
            boxes[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
        for blob, values in zip(top, (pixels[None], np.array([[height, width, 1]]), boxes), strict=True):
            blob.reshape(*values.shape)
            blob.data[...] = values

    def backward(self, top: Sequence[caffe.Blob], propagate_down: Sequence[bool], bottom: Sequence[caffe.Blob]) -> None:
        """There are no bottoms."""
