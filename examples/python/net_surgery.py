"""Net surgery: the fully connected layers of LeNet become convolutions, so that the net finds digits anywhere in a
picture.

A fully connected layer on C x H x W values equals a convolution with an H x W kernel: the same weights in another
shape.
"""

from __future__ import annotations

from pathlib import Path

import digits
import numpy as np

import caffe
import caffe.models


def main(out: Path, iterations: int) -> float:
    """Convert the weights, run on a picture of six digits; returns the share of digits found; draws
    `net_surgery.png`.
    """
    weights = digits.lenet(out, iterations)
    spec = caffe.models.lenet(batch=1)
    net = caffe.Net(spec, caffe.TEST, weights=weights)
    for layer, kernel in zip([each for each in spec.layer if each.type == "InnerProduct"], (4, 1), strict=True):
        layer.name, layer.type = f"{layer.name}_conv", "Convolution"
        layer.convolution_param.num_output = layer.inner_product_param.num_output
        layer.convolution_param.kernel_size.append(kernel)
        layer.ClearField("inner_product_param")
        layer.ClearField("param")
    full = caffe.Net(spec, caffe.TEST, weights=weights)
    for name in ("ip1", "ip2"):
        cast = full.params[f"{name}_conv"]
        cast[0].data.flat = net.params[name][0].data.flat
        cast[1].data[...] = net.params[name][1].data

    images, labels = digits.load()
    chosen = [int(np.flatnonzero(labels[-500:] == digit)[0]) - 500 for digit in (3, 1, 4, 5, 9, 2)]
    canvas = np.zeros((84, 112), np.float32)
    places = [(0, 4), (4, 44), (0, 80), (52, 0), (48, 40), (56, 84)]
    for (y, x), index in zip(places, chosen, strict=True):
        canvas[y : y + 28, x : x + 28] = images[index] / 255
    full.blobs["data"].reshape(1, 1, *canvas.shape)
    scores = full.forward(data=canvas[None, None])["prob"][0].copy()

    page = digits.page(10, 4)
    axes = page.subplots(1, 3)
    digits.show(axes[0], canvas, "the picture")
    digits.show(axes[1], scores.argmax(0), "most likely digit for each 28 x 28 window", cmap="tab10", vmin=0, vmax=9)
    digits.show(axes[2], scores.max(0), "how sure", cmap="viridis", vmin=0, vmax=1)
    found = []
    for (y, x), index in zip(places, chosen, strict=True):
        row, col = y // 4, x // 4  # two poolings by 2: one cell of the output is 4 pixels
        found.append(scores[:, row, col].argmax() == labels[index])
        axes[1].text(
            col, row, str(scores[:, row, col].argmax()), color="white", ha="center", va="center", fontweight="bold"
        )
    page.savefig(out / "net_surgery.png", dpi=110)
    return float(np.mean(found))


if __name__ == "__main__":
    digits.command(main)
