"""Draws the detections of the trained net in pictures of the test set.

python examples/ssd_shapes/draw.py [FOLDER] [WEIGHTS] [OUT]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import caffe
from caffe.pictures.boxes import outlined
from caffe.pictures.grid import grid, write_picture

NAMES = ("background", "circle", "square", "triangle")
LEAST = 0.5


def draw(folder: Path, weights: str, out: str, count: int = 12) -> None:
    """Write a picture of the first test images with all boxes whose score is at least LEAST."""
    net = caffe.Net(str(Path(__file__).parent / "ssd_deploy.prototxt"), weights, caffe.TEST)
    pictures, captions = [], []
    for line in (folder / "test.txt").read_text().splitlines()[:count]:
        pixels = cv2.imread(str(folder / line.split()[0]))
        net.blobs["data"].data[...] = (pixels.transpose(2, 0, 1).astype(np.float32) - 104) * 0.0167
        found = net.forward()["found"][0, 0]
        found = found[found[:, 2] >= LEAST]
        texts = [f"{NAMES[int(row[1])]} {row[2]:.2f}" for row in found]
        pictures.append(outlined(pixels, found[:, 3:7], found[:, 1].astype(int).tolist(), texts))
        captions.append(f"{len(found)} found")
    write_picture(out, grid(pictures, captions))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("examples/ssd_shapes/data"))
    parser.add_argument("weights", nargs="?", help="default: ssd_iter_700.caffemodel in the folder")
    parser.add_argument("out", nargs="?", help="default: found.png in the folder")
    given = parser.parse_args()
    if not (given.folder / "test.txt").is_file():
        parser.error(f"{given.folder} has no test.txt; run python examples/ssd_shapes/make_data.py first")
    weights = given.weights or str(given.folder / "ssd_iter_700.caffemodel")
    draw(given.folder, weights, given.out or str(given.folder / "found.png"))
