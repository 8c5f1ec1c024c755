"""Gives access to the inside of a net: scores of classes, values of blobs, and gradients of both for an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import torch as bridge
from caffe.errors import ArgumentError, NetError, UnknownName, did_you_mean
from caffe.layers import is_a
from caffe.layers.activation import Sigmoid
from caffe.layers.softmax import Softmax, SoftmaxWithLoss

__all__ = ["Probe"]

_SOFTMAXES = (Sigmoid, Softmax, SoftmaxWithLoss)
_BATCH = 64


class Probe:
    """A net with one image input, in the phase TEST.

    `input` is the name of the input and `shape` (C, H, W) the shape of an image. `output` is the blob with the class
    scores: the net's first output, or the bottom of its last softmax, because a probability near 1 has almost no
    gradient. `blobs` names the blobs. Raises the errors of `caffe.torch.load`, and NetError for another input.
    """

    def __init__(self, model: str | Path | Any, weights: str | Path | None = None, output: str = "") -> None:
        self.module = model if isinstance(model, bridge.Module) else bridge.load(model, weights)
        self.module.eval()
        self.input = self.module.inputs[0] if self.module.inputs else ""
        shape = tuple(self.module.shapes.get(self.input, ()))
        if len(shape) != 4:
            fact = f'its first input "{self.input}" has shape {shape}' if shape else "it has no input"
            raise NetError(f'net "{self.module.name}": {fact}; expected a deploy net of images, shape (N, C, H, W)')
        self.shape = shape[1:]
        with torch.no_grad():
            sizes = {name: tuple(value.shape) for name, value in self._run(torch.zeros(1, *self.shape)).items()}
        self.blobs = [name for name in sizes if name not in self.module.inputs]
        self._sizes = sizes
        self.output = self.named(output) if output else self._scores()
        self.classes = int(np.prod(sizes[self.output][1:]))

    def size(self, blob: str) -> tuple[int, ...]:
        """Return the shape of a blob for one image."""
        return self._sizes[self.named(blob)]

    def named(self, blob: str) -> str:
        """Return the name if a blob has it; raises UnknownName otherwise."""
        if blob not in self._sizes:
            raise UnknownName(
                f'net "{self.module.name}" has no blob "{blob}"{did_you_mean(blob, self._sizes)} '
                f"(blobs: {', '.join(self._sizes)})"
            )
        return blob

    def last_map(self) -> str:
        """The last blob with spatial axes: (N, C, H, W) with H and W above 1. Raises NetError if there is none."""
        maps = [name for name in self.blobs if len(self._sizes[name]) == 4 and min(self._sizes[name][2:]) > 1]
        if not maps:
            raise NetError(f'net "{self.module.name}" has no blob of shape (N, C, H, W) with more than one place')
        return maps[-1]

    def below(self) -> str:
        """The bottom of the layer that computes the scores: the last features before the classes."""
        for layer in reversed(self.module.spec.layer):
            if self.output in layer.top and self.output not in layer.bottom and layer.bottom:
                return str(layer.bottom[0])
        return self.output

    def batch(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Convert images to float32 of shape (N, C, H, W); one image (C, H, W) becomes a batch of 1.

        Raises ArgumentError.
        """
        array = np.asarray(images, np.float32)
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4 or array.shape[1:] != self.shape or not len(array):
            raise ArgumentError(
                f"the images have shape {np.shape(images)}; expected {self.shape} or (N, *{self.shape})"
            )
        return array

    def values(self, images: np.ndarray, blob: str) -> np.ndarray:
        """Return a blob's values for images (N, C, H, W)."""
        array, name = self.batch(images), self.named(blob)
        with torch.no_grad():
            pieces = [self._run(torch.from_numpy(array[at : at + _BATCH]))[name] for at in range(0, len(array), _BATCH)]
        return np.concatenate([piece.numpy() for piece in pieces])

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the scores of images, (N, classes)."""
        array = self.batch(images)
        return self.values(array, self.output).reshape(len(array), -1)

    def target(self, image: np.ndarray, target: int | None) -> int:
        """Return the given class, or the best class of an image. Raises ArgumentError for a class that does not
        exist.
        """
        if target is None:
            return int(self.scores(image)[0].argmax())
        return self.known(target)

    def known(self, target: int) -> int:
        """Return the class index if the net has it; raises ArgumentError otherwise."""
        if not 0 <= target < self.classes:
            raise ArgumentError(f"class {target} does not exist; the net has {self.classes}, 0 to {self.classes - 1}")
        return target

    def gradient(self, image: Tensor, target: int, blob: str = "") -> tuple[Tensor, Tensor]:
        """Return the gradient of a class's score for a blob (default: the image), and the blob's values.

        Raises NetError if the score does not depend on the blob.
        """
        image = image.detach().clone().requires_grad_()
        with torch.enable_grad():
            values = self._run(image)
            at = values[blob] if blob else image
            score = values[self.output].flatten(1)[:, target].sum()
            (gradient,) = torch.autograd.grad(score, [at], allow_unused=True) if score.requires_grad else (None,)
        if gradient is None:
            raise NetError(
                f'the scores "{self.output}" have no gradient for "{blob or self.input}": they do not depend on it'
            )
        return gradient.detach(), at.detach()

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        others = {
            name: torch.zeros(len(images), *shape[1:])
            for name, shape in self.module.shapes.items()
            if name != self.input
        }
        return self.module.blobs(**{self.input: images}, **others)

    def _scores(self) -> str:
        """Return the bottom of the last layer if that is a softmax, else the first output."""
        for layer in reversed(self.module.spec.layer):
            if self.module.outputs[0] in layer.top and is_a(layer.type, *_SOFTMAXES) and layer.bottom:
                below = layer.bottom[0]
                return below if below not in layer.top else self.module.outputs[0]
        return self.module.outputs[0]
