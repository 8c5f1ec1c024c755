"""Logistic regression from HDF5 files, and the effect of a hidden layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import digits
import h5py
import numpy as np

import caffe
from caffe import layers as L


def moons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points of two half moons with noise (count, 2), and the index of their moon."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    angle = rng.uniform(0, np.pi, count)
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    points[label == 1] = [1, 0.5] - points[label == 1]
    return (points + rng.normal(0, 0.15, points.shape)).astype(np.float32), label.astype(np.float32)


def write(out: Path, name: str, count: int, seed: int) -> str:
    """Write an HDF5 file of such points; returns the path of the list that names it."""
    with h5py.File(out / f"{name}.h5", "w") as file:
        file["data"], file["label"] = moons(count, seed)
    (out / f"{name}.txt").write_text(f"{out / name}.h5\n")
    return str(out / f"{name}.txt")


def classifier(source: str, hidden: int) -> Any:
    """Return the NetParameter of a classifier of points, with a hidden layer of that size, or without."""
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(source=source, batch_size=100, ntop=2)
    top = n.data
    if hidden:
        n.hidden = L.InnerProduct(top, num_output=hidden, weight_filler={"type": "xavier"})
        top = n.relu = L.ReLU(n.hidden, in_place=True)
    n.scores = L.InnerProduct(top, num_output=2, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.scores, n.label)
    return n.to_proto()


def main(out: Path, iterations: int) -> tuple[float, float]:
    """Train both nets; returns their accuracies; draws `logistic_regression.png`."""
    source = write(out, "moons_train", 4000, 1)
    points, labels = moons(1000, 2)
    grid = np.stack(np.meshgrid(np.linspace(-1.6, 2.6, 120), np.linspace(-1.1, 1.6, 80)), -1).astype(np.float32)
    page = digits.page(10, 4)
    accuracies = []
    for axis, hidden in zip(page.subplots(1, 2), (0, 40), strict=True):
        solver = digits.solver(classifier(source, hidden), out, "moons", base_lr=0.1, weight_decay=0)
        solver.step(iterations)
        net = solver.net
        first = net.layer_names[1]  # start after the data layer, with our own points

        def scores(x: np.ndarray, net: Any = net, first: str = first) -> np.ndarray:
            rows = []
            for start in range(0, len(x), 100):
                net.blobs["data"].data[...] = x[start : start + 100]
                rows.append(net.forward(start=first, end="scores")["scores"].copy())
            return np.concatenate(rows)

        accuracies.append(float((scores(points).argmax(1) == labels).mean()))
        plane = np.diff(scores(grid.reshape(-1, 2)), axis=1).reshape(grid.shape[:2])
        axis.contourf(grid[..., 0], grid[..., 1], np.tanh(plane / 4), 20, cmap="coolwarm", alpha=0.6)
        axis.scatter(*points[:400].T, c=labels[:400], cmap="coolwarm", s=8, edgecolors="k", linewidths=0.2)
        name = f"{hidden} hidden units" if hidden else "logistic regression"
        axis.set_title(f"{name}: {100 * accuracies[-1]:.1f} % of 1,000 points right")
    page.savefig(out / "logistic_regression.png", dpi=110)
    return accuracies[0], accuracies[1]


if __name__ == "__main__":
    digits.command(main)
