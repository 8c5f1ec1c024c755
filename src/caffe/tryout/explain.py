"""A classifier that returns probabilities, and the regions of the picture that explain a class."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caffe.errors import ArgumentError, FileError, NetError
from caffe.inside import Probe, grad_cam, saliency
from caffe.opencv import cv2
from caffe.reliability import softmax
from caffe.zoo.folder import ModelFolder

__all__ = ["Answer", "Explainer"]

Prepare = Callable[[np.ndarray], np.ndarray]
"""Converts pixels (H, W, 3) in BGR order to the net's input (C, h, w), float32."""


@dataclass(frozen=True)
class Answer:
    """The probabilities of all classes, and an explanation of the class `target`.

    `seen` is the region of the picture that the net uses, pixels (h, w, 3) of uint8. `heat` (h, w) from 0 to 1 is the
    heat map of the class. `method` is "Grad-CAM", or "saliency" for a net without spatial blobs, or "" if no region of
    the picture increases the score of the class; `heat` is 0 then.
    """

    probabilities: np.ndarray
    target: int
    seen: np.ndarray
    heat: np.ndarray
    method: str


class Explainer:
    """A deploy net with its weights, the preparation of pictures, and the class names.

    Several threads can use an explainer; a lock serializes them. Raises FileError if the number of names does not match
    the net, and the errors of `caffe.inside.Probe`.
    """

    def __init__(
        self,
        net: str | Path,
        weights: str | Path,
        prepare: Prepare,
        labels: Sequence[str] = (),
        name: str = "",
        files: Sequence[Path] = (),
        show: Prepare | None = None,
    ) -> None:
        """`show` is `prepare` without mean and scale, for display: values in 0 .. 255 in BGR order."""
        self.probe = Probe(net, weights)
        self.prepare, self.show = prepare, show
        self.name = name or self.probe.module.name or Path(net).stem
        self.output = self.probe.module.outputs[-1]
        self.classes = int(np.prod(self.probe.size(self.output)[1:]))
        self.labels = list(labels) or [str(number) for number in range(self.classes)]
        if len(self.labels) != self.classes:
            raise FileError(f"{net}: there are {len(self.labels)} labels, and the net has {self.classes} classes")
        self.files = list(files) or [Path(net), Path(weights)]
        self._turn = threading.Lock()

    @classmethod
    def of_folder(cls, folder: ModelFolder) -> Explainer:
        """Create the explainer of a project or another model folder."""
        if "columns" in folder.facts:
            raise ArgumentError(f"{folder.path}: is a project for tables, not for pictures; use caffe classify")
        made = folder.preparation()
        plain = replace(made, mean=(), scale=1.0, color="gray" if made.color == "gray" else "bgr")
        files = folder.deploy_files
        return cls(folder.net, folder.weights, made.apply, folder.labels(), folder.name, files, plain.apply)

    def answer(self, pixels: np.ndarray, target: int | None = None) -> Answer:
        """Classify and explain a picture (H, W, 3) in BGR order. `target` is the class to explain (default: best)."""
        with self._turn:
            image = self.prepare(pixels)
            if image.shape != self.probe.shape:
                raise ArgumentError(f"the picture becomes {image.shape}, the net takes {self.probe.shape}")
            row = _probabilities(self.probe.values(image, self.output).ravel())
            chosen = int(row.argmax()) if target is None else self.probe.known(target)
            heat, method = self._heat(image, chosen)
            return Answer(row, chosen, self._seen(pixels, image), heat, method)

    def _heat(self, image: np.ndarray, target: int) -> tuple[np.ndarray, str]:
        """Return the heat map of a class, from 0 to 1, and the method."""
        for find, method in ((grad_cam, "Grad-CAM"), (saliency, "saliency")):
            try:
                heat = find(self.probe, image, target)
            except NetError:  # a fully connected net has no spatial blobs
                continue
            if heat.max() > 0:
                return heat / heat.max(), method
        return np.zeros(image.shape[1:], np.float32), ""

    def _seen(self, pixels: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Return the region of the picture that the net uses, in the original colours if they are known."""
        if self.show is not None:
            return _viewable(self.show(pixels))
        low, high = float(image.min()), float(image.max())
        return _viewable((image - low) * (255 / ((high - low) or 1)))


def _viewable(image: np.ndarray) -> np.ndarray:
    """Convert an image (C, h, w) in 0 .. 255 to pixels (h, w, 3)."""
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, 2))


def _probabilities(row: np.ndarray) -> np.ndarray:
    """Convert the net's output to probabilities: unchanged if it lies in 0 .. 1, else by softmax."""
    if row.min() >= 0 and row.max() <= 1:
        return row
    return softmax(row[None].astype(np.float64), 1)[0]


def heat_picture(heat: np.ndarray) -> np.ndarray:
    """Convert a heat map (h, w) to pixels (h, w, 4) in BGRA order. Low values are transparent."""
    values = np.rint(heat * 255).astype(np.uint8)
    colours = cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)
    return np.dstack([colours, values])
