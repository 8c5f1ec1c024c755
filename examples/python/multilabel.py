"""Several labels per picture: a data layer written in Python, and a loss with a yes or no for each label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import digits
import numpy as np

import caffe
from caffe import layers as L

KINDS = ("circle", "square", "triangle", "cross")


class Shapes(caffe.Layer):
    """Pictures of shapes (N, 1, 32, 32), and which kinds of shapes they contain (N, 4), generated batch by batch."""

    def setup(self, bottom: Any, top: Any) -> None:
        settings = json.loads(self.param_str)
        self.batch = settings["batch"]
        self.rng = np.random.default_rng(settings["seed"])

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(self.batch, 1, 32, 32)
        top[1].reshape(self.batch, len(KINDS))

    def forward(self, bottom: Any, top: Any) -> None:
        for index in range(self.batch):
            labels = self.rng.random(len(KINDS)) < 0.4
            top[0].data[index, 0] = paint(labels, self.rng)
            top[1].data[index] = labels

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Data layers have no gradient."""


def paint(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a picture (32, 32) in 0 .. 1 with one shape of each kind in `labels`."""
    image = np.zeros((32, 32), np.uint8)
    for kind in np.flatnonzero(labels):
        x, y = (int(value) for value in rng.integers(8, 24, 2))
        if kind == 0:
            cv2.circle(image, (x, y), 6, 255, 1)
        elif kind == 1:
            cv2.rectangle(image, (x - 5, y - 5), (x + 5, y + 5), 255, 1)
        elif kind == 2:
            cv2.polylines(image, [np.array([(x, y - 6), (x - 6, y + 5), (x + 6, y + 5)])], True, 255, 1)
        else:
            cv2.drawMarker(image, (x, y), 255, cv2.MARKER_CROSS, 12)
    return image / np.float32(255) + rng.normal(0, 0.05, image.shape)


def shapes_net(batch: int, seed: int) -> Any:
    """The NetParameter."""
    n = caffe.NetSpec()
    source = {"module": "multilabel", "layer": "Shapes", "param_str": json.dumps({"batch": batch, "seed": seed})}
    n.data, n.label = L.Python(python_param=source, ntop=2)
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=16, weight_filler={"type": "msra"})
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=32, weight_filler={"type": "msra"})
    n.relu2 = L.ReLU(n.conv2, in_place=True)
    n.pool2 = L.Pooling(n.relu2, kernel_size=2, stride=2)
    n.hidden = L.InnerProduct(n.pool2, num_output=64, weight_filler={"type": "msra"})
    n.relu3 = L.ReLU(n.hidden, in_place=True)
    n.scores = L.InnerProduct(n.relu3, num_output=len(KINDS), weight_filler={"type": "xavier"})
    n.loss = L.SigmoidCrossEntropyLoss(n.scores, n.label)
    return n.to_proto()


def main(out: Path, iterations: int) -> float:
    """Train, then test on new pictures; returns the accuracy; draws `multilabel.png`."""
    solver = digits.solver(shapes_net(64, 1), out, "shapes", type="Adam", base_lr=0.002, momentum2=0.999)
    solver.step(iterations)
    test = caffe.Net(shapes_net(200, 2), caffe.TEST)
    test.share_with(solver.net)
    test.forward()
    guess, label = test.blobs["scores"].data > 0, test.blobs["label"].data > 0
    page = digits.page(10, 5)
    for index, axis in enumerate(page.subplots(2, 5).flat):
        names = ", ".join(name for name, there in zip(KINDS, guess[index], strict=True) if there) or "nothing"
        digits.show(axis, test.blobs["data"].data[index, 0], names)
        right = (guess[index] == label[index]).all()
        axis.title.set_color("black" if right else "tab:red")
    page.savefig(out / "multilabel.png", dpi=110)
    return float((guess == label).mean())


if __name__ == "__main__":
    digits.command(main)
