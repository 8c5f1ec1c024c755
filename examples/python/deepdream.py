"""DeepDream on a small net: changes a picture so that the activations of a layer grow.

Run forward to a layer, set its gradient to its own values, run backward to the data, and add that gradient to the
picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import digits
import numpy as np

import caffe
import caffe.models


def dreamer(weights: Path) -> Any:
    """Return LeNet up to pool2, with gradients down to the data."""
    spec = caffe.models.lenet(batch=1)
    spec.force_backward = True
    del spec.layer[[layer.name for layer in spec.layer].index("pool2") + 1 :]
    return caffe.Net(spec, caffe.TEST, weights=weights)


def step(net: Any, rng: np.random.Generator, end: str, size: float = 0.01) -> None:
    """Make one step of gradient ascent on the norm of layer `end`, at a random shift so that no grid appears."""
    source, goal = net.blobs["data"], net.blobs[end]
    shift = rng.integers(-4, 5, 2)
    source.data[0] = np.roll(source.data[0], shift, (-2, -1))
    net.forward(end=end)
    goal.diff[...] = goal.data
    net.backward(start=end)
    gradient = source.diff[0] - source.diff[0].mean()  # keeps the mean brightness constant
    source.data[0] += size / max(np.abs(gradient).mean(), 1e-9) * gradient
    source.data[0] = np.clip(np.roll(source.data[0], -shift, (-2, -1)), 0, 1)


def dream(net: Any, image: np.ndarray, steps: int, end: str, octaves: int = 3) -> np.ndarray:
    """Return the picture after `steps` steps at each of several sizes, smallest first."""
    rng = np.random.default_rng(3)
    sizes = [[int(side / 1.4**octave) for side in image.shape] for octave in range(octaves)]
    detail = np.zeros((*sizes[-1], 1), np.float32)
    for size in reversed(sizes):
        base = caffe.io.resize_image(image[..., None], size)
        net.blobs["data"].reshape(1, 1, *size)
        net.blobs["data"].data[0, 0] = (base + caffe.io.resize_image(detail, size))[..., 0]
        for _ in range(steps):
            step(net, rng, end)
        detail = net.blobs["data"].data[0, 0][..., None] - base
    return net.blobs["data"].data[0, 0].copy()


def main(out: Path, iterations: int) -> tuple[float, float]:
    """Dream from a blurred picture; returns the activation before and after; draws `deepdream.png`."""
    net = dreamer(digits.lenet(out, iterations))
    images, _ = digits.load()
    mosaic = digits.tiles(images[:9].astype(np.float32), gap=0)
    start = caffe.io.resize_image(caffe.io.resize_image(mosaic[..., None], (14, 14)), (112, 112))[..., 0] * 0.6 + 0.2
    dreams = {end: dream(net, start, max(4, iterations // 12), end) for end in ("pool1", "pool2")}
    page = digits.page(10, 4)
    axes = page.subplots(1, 3)
    digits.show(axes[0], start, "before", vmin=0, vmax=1)
    for axis, (end, picture) in zip(axes[1:], dreams.items(), strict=True):
        digits.show(axis, picture, f"what maximizes {end}", vmin=0, vmax=1)
    page.savefig(out / "deepdream.png", dpi=110)

    def excitement(picture: np.ndarray) -> float:
        net.blobs["data"].data[0, 0] = picture
        return float(np.square(net.forward(end="pool2")["pool2"]).mean())

    return excitement(start), excitement(dreams["pool2"])


if __name__ == "__main__":
    digits.command(main)
