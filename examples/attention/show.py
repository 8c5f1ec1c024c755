"""Print the accuracy of both nets, and draw the attention weights.

python examples/attention/show.py [--picture attention.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import caffe

sys.path.append(str(Path(__file__).parent))
from make_data import COLOURS, SHAPES

HERE = Path(__file__).parent
DATA = Path("examples/attention/data")


def accuracy(net: Any, batches: int = 10) -> np.ndarray:
    """Return the accuracy of the answers to questions about each shape, (4,), on the test data."""
    asked, right = np.zeros(len(SHAPES)), np.zeros(len(SHAPES))
    for _ in range(batches):
        net.forward()
        question = net.blobs["question"].data.argmax(1)
        hit = net.blobs["ip2"].data.argmax(1) == net.blobs["label"].data
        asked += np.bincount(question, minlength=len(SHAPES))
        right += np.bincount(question, hit, minlength=len(SHAPES))
    return right / np.maximum(asked, 1)


def picture(path: Path, net: Any, count: int = 8) -> None:
    """Draw the first pictures of a batch, below them the attention, and the question with the net's answer."""
    from matplotlib.figure import Figure

    net.forward()
    images, attention = net.blobs["data"].data[:count], net.blobs["attention"].data[:count]
    side = round(attention.shape[1] ** 0.5)
    colours = list(COLOURS)
    figure = Figure(figsize=(1.3 * count, 3.2), layout="constrained")
    for index in range(count):
        shown = images[index].transpose(1, 2, 0)
        question = SHAPES[net.blobs["question"].data[index].argmax()]
        answer = colours[net.blobs["ip2"].data[index].argmax()]
        upper, lower = (figure.add_subplot(2, count, row * count + index + 1) for row in (0, 1))
        upper.imshow(shown)
        upper.set_title(f"{question}?", fontsize=9)
        weight = np.kron(attention[index].reshape(side, side), np.ones((4, 4)))
        lower.imshow(shown * (0.15 + 0.85 * (weight / weight.max())[..., None]))
        lower.set_title(answer, fontsize=9)
        for axis in (upper, lower):
            axis.set_axis_off()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=DATA / "attention.png")
    parser.add_argument("--iteration", type=int, default=3000, help="of the snapshots")
    options = parser.parse_args()
    print(f"{'':10}" + "".join(f"{name:>10}" for name in (*SHAPES, "all")))
    for name in ("global", "attention"):
        weights = str(DATA / f"{name}_iter_{options.iteration}.caffemodel")
        net = caffe.Net(str(HERE / f"{name}_train_val.prototxt"), weights, caffe.TEST)
        shares = accuracy(net)
        print(f"{name:10}" + "".join(f"{share:>10.1%}" for share in (*shares, shares.mean())))
    picture(options.picture, net)
    print(f"written: {options.picture}")


if __name__ == "__main__":
    main()
