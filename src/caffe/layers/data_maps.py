"""Layers that read images with a map of values for their pixels, for segmentation and edge detection."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from caffe.data.streams.maps import MapStream, read_pairs
from caffe.layers.data import SSD_CROPS, StreamSource
from caffe.proto import caffe_pb2

__all__ = ["DenseImageData", "ImageLabelmapData", "ImageSegData"]

_ImageData = caffe_pb2.ImageDataParameter
_MOVES = ("rotation", "mixup")


class _MapSource(StreamSource, abstract=True):
    """Base of the layers whose list file has an image and its map on each line."""

    more_options = ("transform_param", "data_param")

    def setup(self, *bottoms: Tensor) -> None:
        opt, param = self.opt, self.spec.transform_param
        fact = f"new_height is {opt.new_height} and new_width {opt.new_width}; set both or none"
        self.require((opt.new_height > 0) == (opt.new_width > 0), fact)
        for name in _MOVES:
            self.require(not getattr(param, name), f"{name} does not change the maps with the images; remove it")
        self.require(not param.HasField("random_resized_crop"), "random_resized_crop is not for maps; remove it")
        self.open(self._stream)
        self._log_size(f"{self.type}.cpp")

    def _stream(self) -> MapStream:
        opt, transformer = self.opt, self.transformer()
        self.require(transformer.color is None, "force_color and force_gray are for Data; use is_color")
        stream = MapStream(read_pairs(opt.source, self._alone()), transformer, opt.batch_size)
        stream.root, stream.size, stream.color = opt.root_folder, (opt.new_height, opt.new_width), opt.is_color
        stream.shuffle, stream.rand_skip = opt.shuffle, opt.rand_skip
        self._prepare(stream)
        return stream

    def _alone(self) -> bool:
        """Whether a line may have an image without a map."""
        return False

    def _prepare(self, stream: MapStream) -> None:
        """Configure the stream for this layer type."""


class ImageSegData(_MapSource, bottoms=0, tops=2, options="image_data_param"):
    """Reads images and label maps from a list file with lines `image map`.

    tops: data (N, C, H, W) after resizing and transform_param, classes (N, 1, H, W)

    Maps are grey images, resized to the nearest pixel. An image smaller than the crop is padded at the bottom and on
    the right with mean_value, its map with ignore_label. label_type says what follows the image on a line: PIXEL a map,
    IMAGE a label for all pixels, NONE nothing (the map is ignore_label). By default a whole number is a label.
    Source: Chen et al., arXiv:1412.7062; DeepLab's image_seg_data_layer.cpp.
    """

    honours = (*SSD_CROPS, "ImageDataParameter.ignore_label", "ImageDataParameter.label_type")

    def _alone(self) -> bool:
        return self.opt.HasField("label_type") and self.opt.label_type == _ImageData.NONE

    def _prepare(self, stream: MapStream) -> None:
        opt, param = self.opt, self.spec.transform_param
        self.require(not param.mean_file, "mean_file does not fit images of many sizes; write mean_value")
        self.require(0 <= opt.ignore_label <= 255, f"ignore_label is {opt.ignore_label}, expected 0 to 255")
        stream.padding = list(param.mean_value), opt.ignore_label
        kind = opt.label_type if opt.HasField("label_type") else None
        if kind is None and all(label.isdigit() for _, label in stream.lines):  # type: ignore[attr-defined]
            kind = _ImageData.IMAGE
        if kind == _ImageData.NONE:
            stream.read = partial(_constant, str(opt.ignore_label))
        elif kind == _ImageData.IMAGE:
            bad = [label for _, label in stream.lines if not str(label).isdigit() or int(label) > 255][:1]
            self.require(not bad, f"label_type is IMAGE, but the list names {bad}, expected a label of 0 to 255")
            stream.read = _one_label


class ImageLabelmapData(_MapSource, bottoms=0, tops=2, options="image_data_param"):
    """Reads images and edge maps from a list file with lines `image map`.

    tops: data (N, C, H, W) after resizing and transform_param, edges (N, 1, H, W), 1 where the map is 128 or more

    Source: Xie & Tu, arXiv:1504.06375; HED's image_labelmap_data_layer.cpp.
    """

    label_shape = (0, 1, 0, 0)
    honours = SSD_CROPS

    def _prepare(self, stream: MapStream) -> None:
        stream.read = stream.smooth


class DenseImageData(_MapSource, bottoms=0, tops=2):
    """Reads images and label maps from a list file with lines `image map`.

    tops: data (N, C, H, W) after resizing and transform_param, classes (N, 1, H, W)

    Maps are grey images, resized to the nearest pixel and divided by label_divide (ENet).
    Source: Badrinarayanan et al., arXiv:1511.00561; SegNet's dense_image_data_layer.cpp.
    """

    label_shape = (0, 1, 0, 0)
    honours = SSD_CROPS

    def _prepare(self, stream: MapStream) -> None:
        opt = self.opt
        for name in ("mean_file", "mirror", "crop_width", "crop_height"):
            fact = f"dense_image_data_param.{name} has no effect in SegNet's Caffe; write it in transform_param"
            self.require(not getattr(opt, name), fact)
        self.require(opt.label_divide > 0, "label_divide is 0, expected at least 1")
        if opt.label_divide > 1:
            stream.read = partial(_divided, stream.nearest, opt.label_divide)


def _constant(label: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape[:2], int(label), np.uint8)


def _one_label(name: Any, shape: tuple[int, ...]) -> np.ndarray:
    return _constant(str(name), "", shape)


def _divided(read: Callable[..., np.ndarray], divisor: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return read(name, shape) // divisor
