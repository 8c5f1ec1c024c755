"""distort_param, expand_param and noise_param of SSD: colour distortion, a larger canvas, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from caffe import log
from caffe.data.databases.datum import decode
from caffe.errors import DataError
from caffe.opencv import cv2

__all__ = ["Canvas", "Distortion", "Expansion", "Noise", "Part"]

Size = tuple[int, int]
"""Height and width."""
_LEVELS = np.arange(256, dtype=np.float32)


class Distortion:
    """Changes brightness, contrast, saturation, hue and the order of channels, each with its own probability.

    Contrast is applied either second or last of the first four, with equal probability. Each step rounds and clips to 0
    ... 255.
    Source: Howard, arXiv:1312.5402; SSD's im_transforms.cpp.
    """

    def __init__(self, param: Any) -> None:
        """`param` is a DistortionParameter. Raises DataError for invalid ranges."""
        self.param = param
        for name in ("brightness", "hue"):
            if getattr(param, f"{name}_delta") < 0:
                raise DataError(
                    f"distort_param.{name}_delta is {getattr(param, name + '_delta'):g}, expected 0 or more"
                )
        for name in ("contrast", "saturation"):
            low, high = getattr(param, f"{name}_lower"), getattr(param, f"{name}_upper")
            if getattr(param, f"{name}_prob") and not 0 <= low <= high:
                raise DataError(f"distort_param: {name} is {low:g} ... {high:g}; expected 0 <= lower <= upper")

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Distort uint8 pixels (H, W, C)."""
        param = self.param
        late = rng.uniform() <= 0.5
        if rng.uniform() < param.brightness_prob:
            pixels = _levels(pixels, 1, rng.uniform(-param.brightness_delta, param.brightness_delta))
        if not late:
            pixels = self._contrast(pixels, rng)
        pixels = self._hsv(pixels, rng)
        if late:
            pixels = self._contrast(pixels, rng)
        if rng.uniform() < param.random_order_prob and pixels.ndim == 3:
            pixels = np.ascontiguousarray(pixels[:, :, rng.permutation(pixels.shape[2])])
        return pixels

    def _contrast(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        param = self.param
        if rng.uniform() >= param.contrast_prob:
            return pixels
        return _levels(pixels, rng.uniform(param.contrast_lower, param.contrast_upper), 0)

    def _hsv(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change saturation and hue, with a single colour space conversion."""
        param = self.param
        factor = turn = None
        if rng.uniform() < param.saturation_prob:
            factor = rng.uniform(param.saturation_lower, param.saturation_upper)
        if rng.uniform() < param.hue_prob:
            turn = rng.uniform(-param.hue_delta, param.hue_delta)
        if factor is None and turn is None:
            return pixels
        _in_colour(pixels, "saturation and hue")
        planes = list(cv2.split(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)))
        if factor is not None:
            planes[1] = _levels(planes[1], factor, 0)
        if turn is not None:
            planes[0] = _levels(planes[0], 1, turn)
        return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2BGR)


class Part(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    rows: int
    columns: int

    @classmethod
    def of(cls, size: Size, window: np.ndarray | None = None) -> Part:
        """Convert a window (4,), in fractions of the image size, to pixels, at least one; None means the whole
        image.
        """
        height, width = size
        if window is None:
            return cls(0, 0, height, width)
        left, top, right, bottom = np.clip(window, 0, 1) * (width, height, width, height)
        rows, columns = max(1, int(bottom - top)), max(1, int(right - left))
        return cls(min(int(top), height - rows), min(int(left), width - columns), rows, columns)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return a view of this rectangle."""
        return pixels[self.top : self.top + self.rows, self.left : self.left + self.columns]


class Canvas(NamedTuple):
    """The size of a canvas and the position of the image in it."""

    rows: int
    columns: int
    top: int
    left: int

    def place(self, size: Size) -> np.ndarray:
        """Return the canvas (4,) in fractions of the image size."""
        height, width = size
        near, far = (-self.left, -self.top), (self.columns - self.left, self.rows - self.top)
        return np.array([*near, *far], np.float32) / np.array([width, height] * 2, np.float32)


class Expansion:
    """Places the image at a random position of a canvas up to max_expand_ratio times as large, filled with the mean.

    Source: SSD's data_transformer.cpp.
    """

    def __init__(self, param: Any, mean: Sequence[float]) -> None:
        """`param` is an ExpansionParameter, `mean` the values of mean_value. Raises DataError for a ratio below 1."""
        self.param = param
        self.mean = np.rint(np.array(mean, np.float32)).clip(0, 255)
        if not 1 <= param.max_expand_ratio < np.inf:
            raise DataError(f"expand_param.max_expand_ratio is {param.max_expand_ratio:g}, expected at least 1")

    def draw(self, size: Size, rng: np.random.Generator) -> Canvas | None:
        """Draw a canvas for an image of this size; None if the image is not expanded."""
        height, width = size
        if rng.uniform() > self.param.prob or abs(self.param.max_expand_ratio - 1) < 1e-2:
            return None
        ratio = rng.uniform(1, self.param.max_expand_ratio)
        rows, columns = int(height * ratio), int(width * ratio)
        return Canvas(rows, columns, int(rng.uniform(0, rows - height)), int(rng.uniform(0, columns - width)))

    def part(self, pixels: np.ndarray, canvas: Canvas, part: Part) -> np.ndarray:
        """Return the pixels (H, W, C) of a rectangle of the canvas. Only this part of the canvas is created."""
        mean = self.mean if len(self.mean) in (1, *pixels.shape[2:]) else np.zeros(1)
        height, width = pixels.shape[:2]
        top, left = canvas.top - part.top, canvas.left - part.left
        first, last = np.clip((top, top + height), 0, part.rows).tolist()
        start, end = np.clip((left, left + width), 0, part.columns).tolist()
        inner = pixels[first - top : last - top, start - left : end - left]
        fill = np.resize(mean, pixels.shape[2] if pixels.ndim == 3 else 1)
        if not inner.size or len(fill) > 4:  # OpenCV does not accept these arguments
            result = np.empty((part.rows, part.columns, *pixels.shape[2:]), pixels.dtype)
            result[...] = fill
            result[first:last, start:end] = inner
            return result
        edges = (first, part.rows - last, start, part.columns - end)
        return cv2.copyMakeBorder(inner, *edges, cv2.BORDER_CONSTANT, value=fill.tolist())


class Noise:
    """Applies the effects that noise_param names to every image, in the order of SSD's Caffe.

    decolorize, gauss_blur, hist_eq, clahe, jpeg, erode, posterize, inverse, saltpepper, convert_to_hsv, convert_to_lab
    Source: SSD's im_transforms.cpp, which ignores `prob`.
    """

    def __init__(self, param: Any) -> None:
        """`param` is a NoiseParameter. Raises DataError for missing values."""
        self.param = param
        if param.HasField("prob"):
            log.warning(
                "im_transforms.cpp", "noise_param.prob has no effect, as in SSD's Caffe: all images are changed"
            )
        pepper = param.saltpepper_param
        if param.saltpepper and not (pepper.value and 0 <= pepper.fraction <= 1):
            raise DataError("noise_param.saltpepper needs saltpepper_param with value, and fraction of 0 to 1")
        if param.jpeg > 100:
            raise DataError(f"noise_param.jpeg is {param.jpeg:g}, expected a quality of up to 100")

    @property
    def random(self) -> bool:
        """Whether an effect uses random numbers."""
        return bool(self.param.saltpepper)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply the effects to uint8 pixels (H, W, C). Returns uint8, or float32 with convert_to_lab."""
        param = self.param
        pixels = self._smoothed(pixels)
        if param.hist_eq:
            pixels = _of_luminance(pixels, cv2.equalizeHist)
        if param.clahe:
            pixels = _of_luminance(pixels, cv2.createCLAHE(clipLimit=4).apply)
        if param.jpeg > 0:
            data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(param.jpeg)])[1]
            pixels = decode(data.tobytes(), color=True)
        if param.erode:
            pixels = cv2.erode(pixels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
        if param.posterize:
            pixels = cv2.LUT(pixels, (np.arange(256) // 64 * 64 + 32).astype(np.uint8))
        if param.inverse:
            pixels = cv2.bitwise_not(pixels)
        if param.saltpepper:
            pixels = self._peppered(pixels, rng)
        return self._converted(pixels)

    def _smoothed(self, pixels: np.ndarray) -> np.ndarray:
        if self.param.decolorize:
            _in_colour(pixels, "decolorize")
            pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return cv2.GaussianBlur(pixels, (7, 7), 1.5) if self.param.gauss_blur else pixels

    def _peppered(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pepper, (height, width) = self.param.saltpepper_param, pixels.shape[:2]
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        if len(pepper.value) not in (1, channels):
            count = len(pepper.value)
            raise DataError(
                f"has {channels} channels, but saltpepper_param.value is given {count} times; give 1 or all"
            )
        count = int(pepper.fraction * width * height)
        result: np.ndarray = pixels.copy()
        values = np.array(pepper.value, np.float32).astype(np.uint8)
        places = rng.integers(height, size=count), rng.integers(width, size=count)
        result[places] = values if pixels.ndim == 3 else values[0]
        return result

    def _converted(self, pixels: np.ndarray) -> np.ndarray:
        if self.param.convert_to_hsv:
            _in_colour(pixels, "convert_to_hsv")
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        if self.param.convert_to_lab:
            _in_colour(pixels, "convert_to_lab")
            pixels = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
        return pixels


def _levels(pixels: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """Compute `factor` times each uint8 value plus `offset`, rounded and clipped to 0 ... 255."""
    table = np.clip(np.rint(_LEVELS * np.float32(factor) + np.float32(offset)), 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table)


def _of_luminance(pixels: np.ndarray, change: Any) -> np.ndarray:
    """Apply `change` to the luminance of the pixels."""
    if pixels.ndim == 2:
        return change(pixels)
    _in_colour(pixels, "hist_eq and clahe")
    planes = list(cv2.split(cv2.cvtColor(pixels, cv2.COLOR_BGR2YCrCb)))
    planes[0] = change(planes[0])
    return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2BGR)


def _in_colour(pixels: np.ndarray, what: str) -> None:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels != 3:
        raise DataError(f"has {channels} channels, but {what} need images in colour, with 3; remove them")
