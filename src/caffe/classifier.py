"""Classifier: a net that computes class scores of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import io as images
from caffe.errors import ArgumentError, NetError
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST

__all__ = ["Classifier", "image_transformer"]


class Classifier(Net):
    """A deploy net with image preprocessing.

        classifier = caffe.Classifier("deploy.prototxt", "net.caffemodel", image_dims=(256, 256), mean=mean,
                                      raw_scale=255, channel_swap=(2, 1, 0))
        scores = classifier.predict([caffe.io.load_image("cat.jpg")])

    Images are resized to `image_dims` (height, width) and then cropped to the size of the net's input, which is the
    default of `image_dims`. The other arguments are those of `caffe.io.Transformer`.
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
        python_layers: bool | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file, python_layers=python_layers)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = np.array(self.crop_dims if image_dims is None else image_dims)
        if self.image_dims.shape != (2,) or (self.image_dims < 1).any():
            raise ArgumentError(f"image_dims is {self.image_dims.tolist()}; expected a height and a width in pixels")

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """The net's first output (N, classes) for images (H, W, C) as returned by `caffe.io.load_image`.

        A net with one channel also accepts images (H, W). With `oversample` the result is the mean over ten crops (the
        corners, the centre, and their mirror images), else it is for the centre crop.
        """
        if (self.image_dims < self.crop_dims).any():
            fact = f"images are brought to {_size_text(self.image_dims)} pixels, the net takes"
            raise ArgumentError(f"{fact} {_size_text(self.crop_dims)}; make image_dims at least as large")
        if not len(inputs):
            raise ArgumentError("predict was given no images; give a list of one or more")
        planes = [self._image(number, image) for number, image in enumerate(inputs)]
        resized = [images.resize_image(image, self.image_dims) for image in planes]
        if oversample:
            crops = images.oversample(resized, self.crop_dims)
        else:
            top, left = (self.image_dims - self.crop_dims) // 2
            height, width = self.crop_dims
            crops = np.array([image[top : top + height, left : left + width] for image in resized])
        scores = self.score(crops)
        return scores.reshape(len(inputs), 10, -1).mean(1) if oversample else scores

    def _image(self, number: int, image: np.ndarray) -> np.ndarray:
        """Convert an image (H, W, C) or (H, W) to (H, W, C) with the net's number of channels."""
        name, array = self.inputs[0], np.asarray(image)
        channels = self.blobs[name].shape[1]
        if array.ndim == 2 and channels == 1:
            return array[..., None]
        if array.ndim != 3 or array.shape[2] != channels:
            raise ArgumentError(
                f'image {number} has shape {array.shape}; expected (H, W, {channels}) for the input "{name}"; '
                f"caffe.io.load_image(file, color={channels != 1}) gives it"
            )
        return array

    def score(self, crops: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """The net's first output for images (H, W, C) with the size of the net's input."""
        name = self.inputs[0]
        rows: Any = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        return self.forward_all(**{name: rows})[self.outputs[0]]


def _size_text(size: Sequence[int] | np.ndarray) -> str:
    """`227 x 227`, for messages."""
    return " x ".join(str(int(side)) for side in size)


def image_transformer(
    net: Net,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> images.Transformer:
    """The transformer of a net's first input for images (H, W, C), with those steps that are given.

    Raises NetError for a net that does not take images or has no output.
    """
    kind, place = type(net).__name__, f"{net.path or 'the net'}"
    if not net.inputs or len(net.blobs[net.inputs[0]].shape) != 4:
        taken = ", ".join(f'"{name}" {net.blobs[name].shape}' for name in net.inputs) or "none"
        raise NetError(
            f"{place}: a {kind} needs a deploy net whose first input has 4 axes (N, C, H, W); its inputs are: {taken}"
        )
    if not net.outputs:
        raise NetError(f"{place}: a {kind} needs a net with an output, and this net has none")
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
