"""Measure the nets in bits per pixel, and draw large digits for small ones.

    python examples/super_resolution/sample.py [--count 12] [--slow]

Pixels are sampled one after the other. `Sampler` caches the activations of all layers and computes only those that
depend on the new pixel. `--slow` also samples by running the whole net for every pixel, and compares the times.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F

import caffe

HERE = Path(__file__).parent
DATA = Path("examples/super_resolution/data")


class Sampler:
    """Draws images pixel by pixel with a net as in deploy.prototxt, and computes each activation once.

    A layer belongs to one of three groups. `drawn` depends on a single pixel, and is computed when the pixel is
    sampled. `rows` depends on the rows above, and is computed for a whole row at once. `cells` are all other layers,
    computed for a pixel before it is sampled. The conditioning net, which does not depend on pixels, runs once.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.count, _, self.height, self.width = net.blobs["level"].shape
        self.groups: dict[str, list[tuple[Any, list[str], list[str]]]] = {"drawn": [], "rows": [], "cells": []}
        group = {"level": "drawn"}
        for name, layer in zip(net._layer_names, net.layers, strict=True):
            bottoms, tops = list(net.bottom_names[name]), list(net.top_names[name])
            found = {group[bottom] for bottom in bottoms if bottom in group}
            if not found:
                continue
            if layer.type == "MaskedConvolution":
                own = "rows" if layer.masking.rows else "cells"
            else:
                own = "cells" if "cells" in found else found.pop()
            group.update(dict.fromkeys(tops, own))
            self.groups[own].append((layer, bottoms, tops))
        masked = [layer for layer in net.layers if layer.type == "MaskedConvolution"]
        self.margin = max(max(layer.slide.pad) for layer in masked)
        with torch.no_grad():
            self.weights = {
                layer: (layer.weight * layer.mask())[:, :, : layer.slide.kernel[0] // 2 + 1] for layer in masked
            }
        self.kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def draw(self, low: np.ndarray, numbers: np.ndarray, forced: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        """Levels (N, H, W) for small images (N, 1, h, w), and the probabilities (N, K, H, W) that they were drawn from.

        `numbers` (N, H, W) from 0 to 1 decide which level is drawn. With `forced` (N, H, W), these levels are taken.
        """
        self.net.forward(low=low, level=np.zeros(self.net.blobs["level"].shape, np.float32))
        side = self.margin
        self.kept = {
            name: F.pad(torch.zeros_like(torch.as_tensor(blob.data)), (side, side, side, 0))
            for name, blob in self.net.blobs.items()
            if tuple(blob.shape[2:]) == (self.height, self.width)
        }
        fixed = set(self.kept) - {top for group in self.groups.values() for _, _, tops in group for top in tops}
        for name in fixed - {"level"}:
            self._at(name, 0, self.height, 0, self.width)[...] = torch.as_tensor(self.net.blobs[name].data)
        for y in range(self.height):
            self._run("rows", y, 0, self.width)
            for x in range(self.width):
                self._run("cells", y, x, x + 1)
                taken = self._chosen(y, x, numbers) if forced is None else torch.as_tensor(forced[:, y, x])
                self._at("level", y, y + 1, x, x + 1)[..., 0, 0] = taken[:, None].float()
                self._run("drawn", y, x, x + 1)
        whole = 0, self.height, 0, self.width
        return self._at("level", *whole)[:, 0].int().numpy(), self._at("prob", *whole).numpy()

    def _chosen(self, y: int, x: int, numbers: np.ndarray) -> torch.Tensor:
        chances = self._at("prob", y, y + 1, x, x + 1)[..., 0, 0].numpy()
        return torch.as_tensor(chosen(chances, numbers[:, y, x]))

    def _at(self, name: str, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
        """A part of a blob, as a view; places before the first row or outside a row are zeros."""
        side = self.margin
        return self.kept[name][:, :, side + top : side + bottom, side + left : side + right]

    def _run(self, group: str, y: int, left: int, right: int) -> None:
        """Compute the layers of a group in row y, for the columns from `left` on, up to and without `right`."""
        for layer, bottoms, tops in self.groups[group]:
            if layer in self.weights:
                (high, wide), dilation = layer.slide.pad, layer.slide.dilation
                seen = self._at(bottoms[0], y - high, y + 1, left - wide, right + wide)
                made: Any = F.conv2d(seen, self.weights[layer], layer.bias, dilation=dilation, groups=layer.group)
            else:
                made = layer(*(self._at(bottom, y, y + 1, left, right) for bottom in bottoms))
            for name, value in zip(tops, made if isinstance(made, tuple) else (made,), strict=True):
                self._at(name, y, y + 1, left, right)[...] = value


def chosen(chances: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The level that each number from 0 to 1 stands for: chances (N, K), numbers (N) -> (N)."""
    return np.minimum((chances.cumsum(1) < numbers[:, None]).sum(1), chances.shape[1] - 1)


def draw_slowly(net: Any, low: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The same images as Sampler's, by a run of the whole net for every pixel."""
    level = np.zeros(net.blobs["level"].shape, np.float32)
    for y in range(level.shape[2]):
        for x in range(level.shape[3]):
            chances = net.forward(low=low, level=level)["prob"][:, :, y, x]
            level[:, 0, y, x] = chosen(chances, numbers[:, y, x])
    return level[:, 0].astype(int)


def bits(model: Path, weights: str, batches: int = 10) -> dict[str, float]:
    """Bits per pixel on the digits of the test net, for each loss of the net."""
    net = caffe.Net(str(model), weights, caffe.TEST)
    runs = [net.forward() for _ in range(batches)]
    return {name: float(np.mean([run[name] for run in runs])) / math.log(2) for name in runs[0]}


def picture(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Write rows of images (N, H, W), each under its name."""
    from matplotlib.figure import Figure

    count = len(next(iter(rows.values())))
    figure = Figure(figsize=(0.62 * count + 1.6, 0.62 * len(rows)), layout="constrained")
    for line, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axis = figure.add_subplot(len(rows), count, line * count + column + 1)
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="digits to draw")
    parser.add_argument("--picture", type=Path, default=DATA / "samples.png")
    parser.add_argument("--weights", default=str(DATA / "pixel_iter_2500.caffemodel"))
    parser.add_argument("--condition", default=str(DATA / "condition_iter_2500.caffemodel"))
    parser.add_argument("--slow", action="store_true", help="also sample without cached activations")
    options = parser.parse_args()
    alone = bits(HERE / "condition_train_val.prototxt", options.condition)["condition_loss"]
    print(f"conditioning net alone: {alone:.4f} bits per pixel")
    print(f"with the PixelCNN:      {bits(HERE / 'train_val.prototxt', options.weights)['loss']:.4f} bits per pixel")

    with h5py.File(DATA / "test.h5") as file:
        low, level = file["low"][: options.count], file["level"][: options.count, 0]
    net = deployed(options.weights, len(low))
    numbers = np.random.default_rng(1).random((3, *level.shape))
    sampler = Sampler(net)
    begin = time.perf_counter()
    drawn = [sampler.draw(low, each)[0] for each in numbers]
    seconds = (time.perf_counter() - begin) / len(drawn)
    print(f"{options.count} digits of {level[0].size} pixels drawn in {seconds:.2f} s")
    if options.slow:
        begin = time.perf_counter()
        same = (draw_slowly(net, low, numbers[0]) == drawn[0]).mean()
        slow = time.perf_counter() - begin
        print(f"by whole runs in {slow:.2f} s, {slow / seconds:.1f} times as long; {same:.2%} of the pixels are equal")
    scores = condition_scores(options.condition, low)
    single = np.stack([chosen(scores[:, :, y, x], numbers[0, :, y, x]) for y, x in np.ndindex(level[0].shape)], 1)
    top = level.max()
    rows = {"given": low[:, 0], "pixels drawn apart": single.reshape(level.shape) / top}
    rows |= {f"drawn {index + 1}": each / top for index, each in enumerate(drawn)} | {"the digit": level / top}
    picture(options.picture, rows)
    print(f"written: {options.picture}")


def deployed(weights: str, count: int) -> Any:
    """The net for sampling, for so many images at once."""
    net = caffe.Net(str(HERE / "deploy.prototxt"), weights, caffe.TEST)
    for name in ("low", "level"):
        net.blobs[name].reshape(count, *net.blobs[name].shape[1:])
    net.reshape()
    return net


def condition_scores(weights: str, low: np.ndarray) -> np.ndarray:
    """Probabilities (N, K, H, W) of the conditioning net alone."""
    net = caffe.Net(str(HERE / "condition_train_val.prototxt"), weights, caffe.TEST)
    net.blobs["low"].reshape(*low.shape)
    net.blobs["low"].data[...] = low
    net.forward(start="cond/conv1", end="cond/score")
    scores = net.blobs["cond/score"].data
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


if __name__ == "__main__":
    main()
