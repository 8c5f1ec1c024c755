"""Test both nets on shifted digits, which do not occur in the training data, and draw the accuracy over the shift.

    python examples/neocognitron/shift.py [--picture shift.png]

The second drawing follows the shift through the net: the similarity (cosine) of a layer's activations with those of the
digit that is not shifted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import caffe

HERE = Path(__file__).parent
DATA = Path("examples/neocognitron/data")
DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
LAYERS = ("data", "S1", "C1", "S2", "C2", "S3", "C3")


def moved(images: np.ndarray, y: int, x: int) -> np.ndarray:
    """Shift images (N, 1, H, W) by y rows and x columns, and fill the free pixels with zeros."""
    height, width = images.shape[2:]
    room = ((0, 0), (0, 0), (max(y, 0), max(-y, 0)), (max(x, 0), max(-x, 0)))
    return np.pad(images, room)[:, :, max(-y, 0) : max(-y, 0) + height, max(-x, 0) : max(-x, 0) + width]


def digits(net: Any, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test digits (N, 1, 28, 28) and their labels."""
    found = []
    for _ in range(batches):
        net.forward()
        found.append((net.blobs["data"].data.copy(), net.blobs["label"].data.copy()))
    images, labels = zip(*found, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def run(net: Any, images: np.ndarray, start: str) -> None:
    """Run the net on these images, from its layer `start` on, without its data layer and its loss."""
    net.blobs["data"].reshape(*images.shape)
    net.blobs["data"].data[...] = images
    net.forward(start=start, end="S4" if "S4" in net._layer_names else "ip2")


def accuracies(net: Any, start: str, images: np.ndarray, labels: np.ndarray, furthest: int) -> np.ndarray:
    """The accuracy at shifts of 0 to `furthest` pixels: means over eight directions."""
    made = []
    for far in range(furthest + 1):
        right = []
        for y, x in DIRECTIONS if far else [(0, 0)]:
            run(net, moved(images, y * far, x * far), start)
            right.append((net.blobs["S4"].data.argmax(1) == labels).mean())
        made.append(np.mean(right))
    return np.array(made)


def likeness(net: Any, images: np.ndarray, furthest: int) -> dict[str, np.ndarray]:
    """Return the mean cosine of each layer's activations with and without a shift to the right."""
    made: dict[str, list[float]] = {name: [] for name in LAYERS}
    still: dict[str, np.ndarray] = {}
    for far in range(furthest + 1):
        run(net, moved(images, 0, far), "S1")
        now = {name: net.blobs[name].data.reshape(len(images), -1).copy() for name in LAYERS}
        still = still or now
        for name, value in now.items():
            length = np.linalg.norm(value, axis=1) * np.linalg.norm(still[name], axis=1)
            made[name].append(float(((value * still[name]).sum(1) / np.maximum(length, 1e-9)).mean()))
    return {name: np.array(values) for name, values in made.items()}


def draw(path: Path, found: dict[str, np.ndarray], alike: dict[str, np.ndarray]) -> None:
    """Draw the accuracy over the shift for each net, and the similarity over the shift for each layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in found.items():
        left.plot(100 * values, "o-", label=name)
    left.set_ylabel("accuracy in %")
    for index, (name, values) in enumerate(alike.items()):
        right.plot(values, label=name, color=f"C{index}", linestyle="--" if name.startswith("C") else "-")
    right.set_ylabel("similarity to the unshifted digit")
    for axis in (left, right):
        axis.set_xlabel("shift in pixels")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=DATA / "shift.png")
    parser.add_argument("--iteration", type=int, default=800, help="of the snapshots")
    parser.add_argument("--furthest", type=int, default=6, help="shift in pixels")
    options = parser.parse_args()
    found = {}
    print(f"{'shift':14}" + "".join(f"{far:>8}" for far in range(options.furthest + 1)))
    for name, start in (("mlp", "ip1"), ("neocognitron", "S1")):
        weights = str(DATA / f"{name}_iter_{options.iteration}.caffemodel")
        net = caffe.Net(str(HERE / f"{name}_train_test.prototxt"), weights, caffe.TEST)
        images, labels = digits(net, 10)
        found[name] = accuracies(net, start, images, labels, options.furthest)
        print(f"{name:14}" + "".join(f"{value:>8.1%}" for value in found[name]))
    draw(options.picture, found, likeness(net, images[:200], options.furthest))
    print(f"written: {options.picture}")


if __name__ == "__main__":
    main()
