"""Make the HDF5 files of this example: pictures of four objects, a question about one of them, and the answer.

    python examples/attention/make_data.py

`data` (N, 3, 24, 24) shows a disc, a square, a triangle and a cross at different places, each in one of six colours.
`question` (N, 4) names one of the objects: a 1 at its number. `label` (N) is the object's colour.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import h5py
import numpy as np

SHAPES = ("disc", "square", "triangle", "cross")
COLOURS = {
    "red": (255, 40, 40),
    "green": (40, 200, 40),
    "blue": (60, 80, 255),
    "yellow": (240, 230, 40),
    "violet": (200, 60, 230),
    "white": (255, 255, 255),
}
SIDE, CELL = 24, 8


def shape(kind: str) -> np.ndarray:
    """One object as a mask (7, 7)."""
    mask = np.zeros((7, 7), np.uint8)
    if kind == "disc":
        cv2.circle(mask, (3, 3), 3, 1, -1)
    elif kind == "square":
        mask[1:6, 1:6] = 1
    elif kind == "triangle":
        cv2.fillPoly(mask, [np.array([[3, 0], [6, 6], [0, 6]])], 1)
    else:
        mask[3, :] = mask[:, 3] = 1
    return mask.astype(bool)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture (3, 24, 24) from 0 to 1, and the colours of the four objects."""
    picture = rng.uniform(0, 60, (SIDE, SIDE, 3))
    colours = rng.integers(0, len(COLOURS), len(SHAPES))
    palette = list(COLOURS.values())
    for kind, colour, place in zip(SHAPES, colours, rng.permutation(9), strict=False):
        top, left = CELL * np.array(divmod(int(place), 3)) + rng.integers(0, 2, 2)
        picture[top : top + 7, left : left + 7][shape(kind)] = palette[colour]
    return picture.transpose(2, 0, 1) / 255, colours


def write(folder: Path, part: str, count: int, rng: np.random.Generator) -> None:
    """One HDF5 file, and the list that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [draw(rng) for _ in range(count)]
    asked = rng.integers(0, len(SHAPES), count)
    path = folder / f"{part}.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.stack([picture for picture, _ in scenes]).astype(np.float32)
        file["question"] = np.eye(len(SHAPES), dtype=np.float32)[asked]
        file["label"] = np.array(
            [colours[index] for (_, colours), index in zip(scenes, asked, strict=True)], np.float32
        )
    (folder / f"{part}.txt").write_text(f"{path.as_posix()}\n")
    print(f"{folder / part}.txt: {count} pictures with a question")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/attention/data"), help="folder")
    parser.add_argument("--counts", type=int, nargs=2, default=(6000, 1000), help="for training and for testing")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    for part, count in zip(("train", "test"), options.counts, strict=True):
        write(options.output, part, count, rng)


if __name__ == "__main__":
    main()
