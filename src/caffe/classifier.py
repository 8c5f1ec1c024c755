"""Classifier: a net that takes images and gives the scores of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import TEST
from caffe import io as images
from caffe.net import Net

__all__ = ["Classifier", "image_transformer"]


class Classifier(Net):
    """A deploy net with the preprocessing of its images.

        classifier = caffe.Classifier("deploy.prototxt", "net.caffemodel", image_dims=(256, 256), mean=mean,
                                      raw_scale=255, channel_swap=(2, 1, 0))
        scores = classifier.predict([caffe.io.load_image("cat.jpg")])

    `image_dims` (height, width) is the size that images are brought to before they are cropped to the net's input; the
    input's own size if not given. The others are those of `caffe.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | Path | Any,
        pretrained_file: str | Path,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = np.array(self.crop_dims if image_dims is None else image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The net's first output for images (H, W, C) as `caffe.io.load_image` gives them: (N, classes).

        With `oversample` the mean over ten crops: corners and centre, and these mirrored; else the centre alone.
        """
        resized = [images.resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            crops = images.oversample(resized, self.crop_dims)
        else:
            top, left = (self.image_dims - self.crop_dims) // 2
            height, width = self.crop_dims
            crops = np.array([image[top : top + height, left : left + width] for image in resized])
        scores = self.score(crops)
        return scores.reshape(len(inputs), 10, -1).mean(1) if oversample else scores

    def score(self, crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """The net's first output for images (H, W, C) of its input's size."""
        name = self.inputs[0]
        rows: Any = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        return self.forward_all(**{name: rows})[self.outputs[0]]


def image_transformer(
    net: Net,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> images.Transformer:
    """The transformer of a net's first input for images (H, W, C), with those steps that are given."""
    name = net.inputs[0]
    transformer = images.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer
