"""Augmentation of single images: rotation, random resized crop, and colour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from caffe.errors import DataError
from caffe.opencv import cv2

__all__ = ["Augmentation"]

_TRIES = 10
_COLOURS = ("brightness", "contrast", "saturation")


class Augmentation:
    """Applies random changes to an image. The result depends only on the image and the generator.

    Source: Szegedy et al., arXiv:1409.4842, section 6 (crops); Howard, arXiv:1312.5402 (colours).
    """

    def __init__(self, param: Any) -> None:
        """`param` is a TransformationParameter. Raises DataError if its fields contradict each other."""
        self.rotation: float = param.rotation
        self.area: Any = param.random_resized_crop if param.HasField("random_resized_crop") else None
        self.crop: int = param.crop_size
        self.hue: float = param.hue
        self.strengths = {name: getattr(param, name) for name in _COLOURS}
        for name in ("rotation", "noise", "mixup", "hue", *_COLOURS):
            value = getattr(param, name)
            if not 0 <= value < math.inf:
                raise DataError(f"{name} is {value:g}, expected at least 0")
        if self.hue > 0.5:
            raise DataError(f"hue is {self.hue:g}, expected 0 to 0.5")
        if self.area is not None:
            self._check_area(param)

    def __bool__(self) -> bool:
        """Whether any augmentation is set."""
        return bool(self.rotation or self.area is not None or self.hue or any(self.strengths.values()))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment an image (C, H, W). Returns a new array of the same dtype."""
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        if self.rotation:
            pixels = _rotated(pixels, rng.uniform(-self.rotation, self.rotation))
        if self.area is not None:
            pixels = self._resized_crop(pixels, rng)
        pixels = self._coloured(pixels, rng)
        return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)

    def _check_area(self, param: Any) -> None:
        area = self.area
        if not self.crop:
            raise DataError("random_resized_crop needs crop_size, the size that crops are resized to")
        if param.mean_file or param.std_file:
            raise DataError(
                "random_resized_crop moves the pixels that mean_file and std_file refer to; use mean_value "
                "and std_value"
            )
        if not 0 < area.min_area <= area.max_area <= 1 or not 0 < area.min_ratio <= area.max_ratio < math.inf:
            raise DataError(
                f"random_resized_crop takes areas of {area.min_area:g} ... {area.max_area:g} and ratios of "
                f"{area.min_ratio:g} ... {area.max_ratio:g}; expected areas within 0 ... 1 and ratios above 0"
            )

    def _resized_crop(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = pixels.shape[:2]
        for _ in range(_TRIES):
            size = height * width * rng.uniform(self.area.min_area, self.area.max_area)
            ratio = math.exp(rng.uniform(math.log(self.area.min_ratio), math.log(self.area.max_ratio)))
            columns, rows = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
                break
        else:  # fallback: the largest centred square
            rows = columns = min(height, width)
            top, left = (height - rows) // 2, (width - columns) // 2
        piece = pixels[top : top + rows, left : left + columns]
        method = cv2.INTER_AREA if min(rows, columns) > self.crop else cv2.INTER_LINEAR
        return cv2.resize(piece, (self.crop, self.crop), interpolation=method)

    def _coloured(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factors = {name: rng.uniform(1 - s, 1 + s) for name, s in self.strengths.items() if s}
        turn = rng.uniform(-self.hue, self.hue) if self.hue else 0.0
        if not factors and not turn:
            return pixels
        kind = pixels.dtype
        values = pixels.astype(np.float32)
        values *= np.float32(factors.get("brightness", 1))
        if "contrast" in factors:
            middle = _grey(values).mean(dtype=np.float64)
            values = (values - np.float32(middle)) * np.float32(factors["contrast"]) + np.float32(middle)
        if "saturation" in factors or turn:
            values = _recoloured(values, factors.get("saturation", 1.0), turn)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8) if kind == np.uint8 else values


def _rotated(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate about the centre. Pixels from outside the image are mirrored at its edge."""
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _grey(values: np.ndarray) -> np.ndarray:
    """Return the brightness (H, W, 1) of each pixel.

    Images that do not have 3 channels use the mean of the channels.
    """
    if values.ndim == 3 and values.shape[2] == 3:
        return cv2.cvtColor(values, cv2.COLOR_BGR2GRAY)[..., None]
    return values.reshape(*values.shape[:2], -1).mean(axis=2, keepdims=True)


def _recoloured(values: np.ndarray, saturation: float, turn: float) -> np.ndarray:
    """Scale the saturation by a factor and rotate the hue by a fraction of the circle. The brightness is unchanged.

    Both are linear: a pixel's difference to its grey value is scaled, and rotated in the chrominance plane (I, Q of
    NTSC).
    """
    if values.ndim != 3 or values.shape[2] != 3:
        channels = values.shape[2] if values.ndim == 3 else 1
        raise DataError(f"has {channels} channels, but saturation and hue are for images with 3; remove them")
    to_yiq = np.array([[0.114, 0.587, 0.299], [-0.322, -0.274, 0.596], [0.312, -0.523, 0.211]])  # of B, G, R
    cosine, sine = math.cos(2 * math.pi * turn) * saturation, math.sin(2 * math.pi * turn) * saturation
    turned = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return cv2.transform(values, (np.linalg.inv(to_yiq) @ turned @ to_yiq).astype(np.float32))
