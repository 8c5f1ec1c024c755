"""The preparation of pictures for a net: size, colours, mean and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caffe.data.databases.datum import planes
from caffe.errors import ArgumentError
from caffe.opencv import cv2

__all__ = ["Preparation", "fitted"]

_COLORS = ("bgr", "rgb", "gray")


@dataclass(frozen=True)
class Preparation:
    """The preparation that a Data layer in the phase TEST applies to records of the stored size.

        y = scale (centre of the resized picture - mean)

    `resize` is (height, width), or a number for the shorter side. `crop` is the side of the centre crop (0: no crop).
    `mean` has one value, one per channel, or none.
    """

    color: str = "bgr"
    resize: tuple[int, ...] = ()
    crop: int = 0
    mean: tuple[float, ...] = ()
    scale: float = 1.0

    @classmethod
    def from_facts(cls, facts: Mapping[str, str], place: str) -> Preparation:
        """Parse words: `color: bgr`, `resize: 256,256`, `crop: 224`, `mean: 104,117,123`, `scale: 0.017`."""
        color = facts.get("color", "bgr").lower()
        if color not in _COLORS:
            raise ArgumentError(f'{place}: color "{color}"; expected {", ".join(_COLORS)}')
        resize = tuple(int(value) for value in _numbers(facts, "resize", place))
        crop = _numbers(facts, "crop", place)
        scale = _numbers(facts, "scale", place)
        if len(resize) > 2 or any(value < 1 for value in resize):
            raise ArgumentError(f'{place}: resize "{facts["resize"]}"; expected a height and a width in pixels')
        mean = tuple(_numbers(facts, "mean", place))
        return cls(color, resize, int(crop[0]) if crop else 0, mean, scale[0] if scale else 1.0)

    def facts(self) -> dict[str, str]:
        """Return the preparation as words."""
        return {
            "color": self.color,
            "resize": ",".join(map(str, self.resize)),
            "crop": str(self.crop),
            "mean": ",".join(f"{value:.6g}" for value in self.mean),
            "scale": f"{self.scale:.8g}",
        }

    @property
    def channels(self) -> int:
        """The number of channels of the net's input."""
        return 1 if self.color == "gray" else 3

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Convert pixels (H, W, 3) in BGR order, or (H, W), to the net's input (C, h, w), float32."""
        image = planes(fitted(recolored(pixels, self.color), self.resize)).astype(np.float32)
        if self.crop:
            top, left = ((side - self.crop) // 2 for side in image.shape[1:])
            if min(top, left) < 0:
                raise ArgumentError(f"a crop of {self.crop} does not fit a picture of {image.shape[1:]}")
            image = image[:, top : top + self.crop, left : left + self.crop]
        if self.mean:
            image = image - np.array(self.mean, np.float32).reshape(-1, 1, 1)
        return np.ascontiguousarray(image * np.float32(self.scale))


def recolored(pixels: np.ndarray, color: str) -> np.ndarray:
    """Convert pixels, BGR or grey, to the colours "bgr", "rgb" or "gray"."""
    if color == "gray":
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    return pixels if color == "bgr" else np.ascontiguousarray(pixels[..., ::-1])


def fitted(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize pixels to (height, width), or so that the shorter side has the given length."""
    if not size:
        return pixels
    height, width = pixels.shape[:2]
    if len(size) == 1:
        factor = size[0] / min(height, width)
        size = (max(size[0], round(height * factor)), max(size[0], round(width * factor)))
    if (height, width) == tuple(size):
        return pixels
    shrinks = size[0] < height and size[1] < width
    return cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _numbers(facts: Mapping[str, str], name: str, place: str) -> list[float]:
    text = facts.get(name, "")
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ArgumentError(f'{place}: {name} "{text}"; expected numbers separated by ","') from None
