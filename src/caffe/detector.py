"""Detector: a net that scores windows of images, as R-CNN does."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import io as images
from caffe.classifier import image_transformer
from caffe.errors import ArgumentError, MissingExtra, WindowError
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST

__all__ = ["Detector"]


class Detector(Net):
    """A deploy net with preprocessing of image windows.

        detector = caffe.Detector("deploy.prototxt", "net.caffemodel", mean=mean, raw_scale=255,
                                  channel_swap=(2, 1, 0), context_pad=16)
        detections = detector.detect_windows([("cat.jpg", [(top, left, bottom, right), ...]), ...])

    `context_pad` is the width, in pixels of the net's input, of the context around each window. Context outside the
    image is filled with the mean. The other arguments are those of `caffe.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | Path | Any,
        pretrained_file: str | Path,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
        python_layers: bool | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file, python_layers=python_layers)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[str | Path, Iterable[Sequence[float]]]]) -> list[dict]:
        """Score windows (top, left, bottom, right) of image files.

        Returns for each window a dict with `window`, `prediction` (the net's first output) and `filename`.
        """
        found, crops = [], []
        color = self.crop_dims[2] != 1
        for filename, windows in images_windows:
            image = images.load_image(filename, color)
            for window in windows:
                crops.append(self.crop(image, np.asarray(window)))
                found.append({"window": window, "filename": filename})
        if not found:
            return []
        name = self.inputs[0]
        rows: Any = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: rows})[self.outputs[0]]
        return [{**entry, "prediction": row} for entry, row in zip(found, predictions, strict=True)]

    def detect_selective_search(self, image_fnames: Sequence[str | Path]) -> list[dict]:
        """Score the windows that the package `selective_search_ijcv_with_python` proposes (it runs MATLAB)."""
        try:
            proposals = importlib.import_module("selective_search_ijcv_with_python")
        except ImportError as error:
            raise MissingExtra(
                "selective search needs the package selective_search_ijcv_with_python on $PYTHONPATH; or give windows "
                "of your own to detect_windows (`caffe detect --crop_mode list`)"
            ) from error
        paths = [os.path.abspath(name) for name in image_fnames]
        windows = proposals.get_windows(paths, cmd="selective_search_rcnn")
        return self.detect_windows(zip(image_fnames, windows, strict=True))

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the width of the context, and compute its fill value outside the image from the mean."""
        name = self.inputs[0]
        channels, *size = self.blobs[name].shape[1:]
        self.crop_dims = np.array([*size, channels])
        self.context_pad = context_pad or 0
        if 2 * self.context_pad >= min(size):
            raise ArgumentError(
                f"context_pad {context_pad} leaves nothing of an input of {size[0]} x {size[1]} pixels; lower it"
            )
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if (mean := self.transformer.mean.get(name)) is not None:
            if (swap := self.transformer.channel_swap.get(name)) is not None:
                mean = mean[np.argsort(swap)]
            self.crop_mean[...] = mean.transpose(1, 2, 0) / self.transformer.raw_scale.get(name, 1)

    def crop(self, im: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Crop a window (top, left, bottom, right) from an image (H, W, C), with context if it is set."""
        top, left, bottom, right = np.asarray(window, int)
        if not self.context_pad:
            return im[top:bottom, left:right]
        top, bottom, row, rows = self._with_context(top, bottom, im.shape[0], self.crop_dims[0])
        left, right, col, cols = self._with_context(left, right, im.shape[1], self.crop_dims[1])
        crop = self.crop_mean.copy()
        crop[row : row + rows, col : col + cols] = images.resize_image(im[top:bottom, left:right], (rows, cols))
        return crop

    def _with_context(self, first: int, last: int, limit: int, size: int) -> tuple[int, int, int, int]:
        """Return the window along one axis, widened by its context and clipped to the image's `limit`.

        Also returns the position of that part in a crop of `size` pixels: its first pixel and its length.
        """
        half = (last - first + 1) / 2
        wide = half * size / (size - 2 * self.context_pad)
        start, stop = np.round(first + half - wide), np.round(first + half + wide)
        scale = size / (stop - start + 1)
        pad = round(max(0, -start) * scale)
        start, stop = np.clip((start, stop), 0, limit)
        length = min(round((stop - start + 1) * scale), size - pad)
        if length <= 0 or stop <= start:
            raise WindowError(f"window from {first} to {last} lies outside the image, which has {limit} pixels there")
        return int(start), int(stop), pad, length
