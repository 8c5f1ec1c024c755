"""A siamese net: maps digits to points, so that equal digits are near each other.

Two copies of a small net with shared, named parameters process the two digits of a pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import digits
import numpy as np

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe.net_spec import Top


def side(n: NetSpec, image: Top, suffix: str = "") -> Top:
    """Return the net from a digit to a point; its parameters are shared by name."""

    def shared(name: str) -> dict[str, Any]:
        return {"param": [{"name": f"{name}_w"}, {"name": f"{name}_b"}], "weight_filler": {"type": "xavier"}}

    n["conv1" + suffix] = L.Convolution(image, kernel_size=5, num_output=16, stride=2, **shared("conv1"))
    n["relu1" + suffix] = L.ReLU(n["conv1" + suffix], in_place=True)
    n["conv2" + suffix] = L.Convolution(n["relu1" + suffix], kernel_size=5, num_output=32, stride=2, **shared("conv2"))
    n["relu2" + suffix] = L.ReLU(n["conv2" + suffix], in_place=True)
    n["ip1" + suffix] = L.InnerProduct(n["relu2" + suffix], num_output=128, **shared("ip1"))
    n["relu3" + suffix] = L.ReLU(n["ip1" + suffix], in_place=True)
    n["feat" + suffix] = L.InnerProduct(n["relu3" + suffix], num_output=2, **shared("feat"))
    return n["feat" + suffix]


def pairs_net(batch: int) -> Any:
    """Return the NetParameter of both sides and the loss."""
    n = NetSpec()
    n.pair = L.Input(shape={"dim": [batch, 2, 28, 28]})
    n.same = L.Input(shape={"dim": [batch]})
    n.left, n.right = L.Slice(n.pair, ntop=2, axis=1)
    n.loss = L.ContrastiveLoss(side(n, n.left), side(n, n.right, "_p"), n.same, margin=1.0)
    return n.to_proto()


def main(out: Path, iterations: int) -> float:
    """Train on pairs; returns the share of test digits whose nearest neighbour is the same digit; draws
    `siamese.png`.
    """
    images, labels = digits.load()
    images = (images / np.float32(255))[:, None]
    rng = np.random.default_rng(1)
    batch, held = 128, 800
    solver = digits.solver(pairs_net(batch), out, "siamese", base_lr=0.02)
    blobs = solver.net.blobs
    for _ in range(iterations):
        one, other = rng.integers(0, len(labels) - held, (2, batch))
        for row in range(0, batch, 3):  # a third of the pairs are of the same digit
            other[row] = rng.choice(np.flatnonzero(labels[:-held] == labels[one[row]]))
        blobs["pair"].data[...] = np.concatenate([images[one], images[other]], 1)
        blobs["same"].data[...] = labels[one] == labels[other]
        solver.step(1)

    n = NetSpec()
    n.data = L.Input(shape={"dim": [100, 1, 28, 28]})
    side(n, n.data)
    net = caffe.Net(n.to_proto(), caffe.TEST)
    net.share_with(solver.net)
    points, shown = net.forward_all(data=images[-held:])["feat"], labels[-held:]
    page = digits.page(7, 6)
    axis = page.subplots()
    for digit in range(10):
        axis.plot(*points[shown == digit].T, ".", label=str(digit), color=f"C{digit}")
    axis.legend(title="digit")
    axis.set_title("Digits as points")
    page.savefig(out / "siamese.png", dpi=110)
    distance = np.square(points[:, None] - points[None]).sum(2) + 1e9 * np.eye(held)
    return float((shown[distance.argmin(1)] == shown).mean())


if __name__ == "__main__":
    digits.command(main)
