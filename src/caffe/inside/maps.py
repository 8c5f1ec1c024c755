"""Which pixels determine a class's score: saliency, occlusion, Grad-CAM, and class images.

All functions take a `Probe`, an image (C, H, W) as the net takes it, and a class; the default is the predicted class.
"""

from __future__ import annotations

import numpy as np
import torch

from caffe.errors import ArgumentError
from caffe.inside.probe import Probe

__all__ = ["class_image", "grad_cam", "occlusion", "saliency"]


def saliency(probe: Probe, image: np.ndarray, target: int | None = None) -> np.ndarray:
    """Return |d score / d pixel| of a class's score, the largest over the channels. (H, W)

    Source: Simonyan, Vedaldi & Zisserman, arXiv:1312.6034, section 3.
    """
    batch = probe.batch(image)[:1]
    gradient, _ = probe.gradient(torch.from_numpy(batch), probe.target(batch, target))
    return gradient[0].abs().amax(0).numpy()


def grad_cam(probe: Probe, image: np.ndarray, target: int | None = None, blob: str = "") -> np.ndarray:
    """Return where in a convolutional blob the class is detected (Grad-CAM), resized to the image. (H, W), not
    negative.

        weight_k = mean of d score / d map_k,  heat = max(0, sum of weight_k map_k)

    The default `blob` is the last one with spatial axes. Source: Selvaraju et al., arXiv:1610.02391.
    """
    batch, name = probe.batch(image)[:1], probe.named(blob) if blob else probe.last_map()
    if len(probe.size(name)) != 4:
        raise ArgumentError(f'blob "{name}" has shape {probe.size(name)}; expected maps, (N, C, H, W)')
    gradient, maps = probe.gradient(torch.from_numpy(batch), probe.target(batch, target), name)
    heat = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).clamp(min=0)
    return torch.nn.functional.interpolate(heat, probe.shape[1:], mode="bilinear", align_corners=False)[0, 0].numpy()


def occlusion(
    probe: Probe,
    image: np.ndarray,
    target: int | None = None,
    size: int = 0,
    stride: int = 0,
    fill: float | None = None,
) -> np.ndarray:
    """Return the decrease of a class's score when a square hides the image. (H, W), averaged over the squares on each
    pixel.

    `size` is the side of the square (default: a fifth of the image), `stride` the distance between squares (default: a
    quarter of `size`), `fill` the value of the hidden pixels (default: the image's mean). Source: Zeiler & Fergus,
    arXiv:1311.2901, section 4.2.
    """
    batch = probe.batch(image)[:1]
    height, width = probe.shape[1:]
    size = size or max(1, min(height, width) // 5)
    stride = stride or max(1, size // 4)
    if not (1 <= size <= min(height, width) and stride >= 1):
        raise ArgumentError(f"size {size} and stride {stride} do not suit an image of {height} x {width} pixels")
    target = probe.target(batch, target)
    tops, lefts = (sorted({*range(0, side - size, stride), side - size}) for side in (height, width))
    fill = float(batch.mean()) if fill is None else fill
    places = [(top, left) for top in tops for left in lefts]
    drop, count = np.zeros((height, width)), np.zeros((height, width))
    before = probe.scores(batch)[0, target]
    for at in range(0, len(places), 64):
        some = places[at : at + 64]
        hidden = np.repeat(batch, len(some), 0)
        for number, (top, left) in enumerate(some):
            hidden[number, :, top : top + size, left : left + size] = fill
        for (top, left), score in zip(some, probe.scores(hidden)[:, target], strict=True):
            drop[top : top + size, left : left + size] += before - score
            count[top : top + size, left : left + size] += 1
    return (drop / np.maximum(count, 1)).astype(np.float32)


def class_image(
    probe: Probe, target: int, steps: int = 200, rate: float = 0.05, decay: float = 0.01, seed: int = 0
) -> np.ndarray:
    """Return an image with a high score for a class, found by gradient ascent from noise. (C, H, W), about 0.

    Each step adds `rate` times the gradient, divided by its standard deviation. `decay` shrinks the values towards 0.
    The image is blurred slightly at intervals, so that no single pixel grows. The values have unit scale; multiply them
    by the standard deviation of the net's inputs to compare them.
    Source: arXiv:1312.6034, section 2; Yosinski et al., arXiv:1506.06579.
    """
    target = probe.known(target)
    image = 0.1 * torch.randn(1, *probe.shape, generator=torch.Generator().manual_seed(seed))
    for step in range(steps):
        gradient, _ = probe.gradient(image, target)
        image = (1 - decay) * image + rate * gradient / (gradient.std() + 1e-12)
        if step % 8 == 7 and step < steps - 8:
            image = _blurred(image)
    return image[0].numpy()


def _blurred(image: torch.Tensor) -> torch.Tensor:
    """Smooth each channel with the kernel 1 2 1, along both axes."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    kernel = (kernel[:, None] * kernel).expand(image.shape[1], 1, 3, 3)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel, groups=image.shape[1])
