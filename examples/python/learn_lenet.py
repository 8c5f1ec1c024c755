"""Trains LeNet step by step: a net written in Python, a solver driven from Python, and the intermediate results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import digits
import numpy as np

import caffe
from caffe import layers as L
from caffe import params as P


def lenet_net(train: str, test: str, batch: int = 64) -> Any:
    """Return the NetParameter: data from two LMDBs, LeNet, loss and accuracy."""
    n = caffe.NetSpec()
    source = {"backend": P.Data.LMDB, "transform_param": {"scale": 1 / 255}, "ntop": 2}
    n.data, n.label = L.Data(source=train, batch_size=batch, include={"phase": caffe.TRAIN}, **source)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"})
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=50, weight_filler={"type": "xavier"})
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, weight_filler={"type": "xavier"})
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    n.accuracy = L.Accuracy(n.ip2, n.label, include={"phase": caffe.TEST})
    net = n.to_proto()
    net.name = "LeNet"
    tested = caffe.NetSpec()
    tested.data, tested.label = L.Data(
        source=test, batch_size=100, include={"phase": caffe.TEST}, name="test", **source
    )
    net.layer.insert(1, tested.to_proto().layer[0])
    return net


def main(out: Path, iterations: int) -> float:
    """Train LeNet with tests in between; returns the final accuracy and draws `learn_lenet.png`."""
    net = lenet_net(*digits.databases(out))
    solver = digits.solver(net, out, "lenet", test_iter=[5], test_interval=10**6, test_initialization=False)
    solver.net.forward()
    first = solver.net.blobs["data"].data[:8, 0].copy()
    solver.step(1)
    gradient = solver.net.params["conv1"][0].diff[:, 0].copy()

    losses, accuracies, scores = np.zeros(iterations), [], []
    watched = solver.test_nets[0]
    watched.share_with(solver.net)
    watched.forward()
    fixed = watched.blobs["data"].data.copy()
    every = max(1, iterations // 12)
    for iteration in range(iterations):
        solver.step(1)
        losses[iteration] = solver.net.blobs["loss"].data
        if iteration % every == 0:
            right = [float(watched.forward()["accuracy"]) for _ in range(5)]
            accuracies.append((iteration, np.mean(right)))
            watched.blobs["data"].data[...] = fixed
            watched.forward(start="conv1")
            scores.append(watched.blobs["ip2"].data[:6].copy())
    draw(out / "learn_lenet.png", first, gradient, losses, accuracies, np.array(scores), watched)
    return float(accuracies[-1][1])


def draw(
    path: Path,
    first: np.ndarray,
    gradient: np.ndarray,
    losses: np.ndarray,
    accuracies: Any,
    scores: np.ndarray,
    net: Any,
) -> None:
    """Draw the first digits, the first update of the filters, curves, and the scores of six digits over time."""
    page = digits.page(11, 7)
    upper, lower = page.subfigures(2, 1)
    a, b, c = upper.subplots(1, 3, width_ratios=(1, 1, 2))
    digits.show(a, digits.tiles(first), "the first digits")
    digits.show(b, digits.tiles(gradient), "the first update of conv1's filters")
    c.plot(losses, linewidth=0.8)
    c.set_ylabel("training loss")
    c.set_xlabel("iteration")
    twin = c.twinx()
    twin.plot(*zip(*accuracies, strict=True), "o-", color="tab:orange")
    twin.set_ylabel("test accuracy")
    cells = lower.subplots(2, 6, height_ratios=(1, 2))
    for index in range(6):
        digits.show(cells[0, index], net.blobs["data"].data[index, 0])
        digits.show(cells[1, index], scores[:, index].T, "scores of 0 .. 9 over time", aspect="auto", cmap="viridis")
    page.savefig(path, dpi=110)


if __name__ == "__main__":
    digits.command(main)
