"""Classifies a picture and looks inside the net: filters, activations, probabilities."""

from __future__ import annotations

from pathlib import Path

import cv2
import digits
import numpy as np

import caffe
import caffe.models


def main(out: Path, iterations: int) -> float:
    """Classify a digit in a file; returns the accuracy on 200 digits; draws `classify_digit.png`."""
    net = caffe.Net(caffe.models.lenet(batch=1), caffe.TEST, weights=digits.lenet(out, iterations))
    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_transpose("data", (2, 0, 1))  # (H, W, C) -> (C, H, W)

    images, labels = digits.load()
    cv2.imwrite(str(out / "digit.png"), images[-1])
    image = caffe.io.load_image(out / "digit.png", color=False)
    net.blobs["data"].data[...] = transformer.preprocess("data", image)
    probabilities = net.forward()["prob"][0].copy()

    page = digits.page(11, 6)
    axes = page.subplots(2, 3)
    digits.show(axes[0, 0], image[..., 0], "the picture")
    digits.show(axes[0, 1], digits.tiles(net.params["conv1"][0].data[:, 0]), "filters of conv1")
    digits.show(axes[0, 2], digits.tiles(net.blobs["conv1"].data[0]), "conv1")
    digits.show(axes[1, 0], digits.tiles(net.blobs["pool2"].data[0]), "pool2", cmap="viridis")
    axes[1, 1].plot(net.blobs["ip1"].data.ravel(), ".", markersize=3)
    axes[1, 1].set_title("ip1", fontsize=9)
    axes[1, 2].bar(range(10), probabilities)
    axes[1, 2].set_xticks(range(10))
    axes[1, 2].set_title("probabilities", fontsize=9)
    page.savefig(out / "classify_digit.png", dpi=110)

    rows = images[-200:, None] / np.float32(255)
    guesses = net.forward_all(data=rows)["prob"].argmax(1)
    return float((guesses == labels[-200:]).mean())


if __name__ == "__main__":
    digits.command(main)
