"""Draws pictures of coloured shapes, writes their boxes to VOC files, and converts them to databases.

usage: python examples/ssd_shapes/make_data.py [FOLDER]

The files written to FOLDER (default: examples/ssd_shapes/data) are images/, boxes/, the lists train.txt and test.txt,
the label map labelmap.prototxt, and the databases train_lmdb and test_lmdb.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from caffe.cli import main

NAMES = ("background", "circle", "square", "triangle")
SIDE = 64
COUNTS = {"train": 400, "test": 100}


def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, int, int, int, int]]]:
    """Draw a picture (H, W, 3) of one to three shapes without overlap; returns it and (name, xmin, ymin, xmax, ymax) of
    each.
    """
    picture = cv2.resize(rng.integers(60, 150, (8, 8, 3), np.uint8), (SIDE, SIDE))
    boxes: list[tuple[str, int, int, int, int]] = []
    wanted = rng.integers(1, 4)
    while len(boxes) < wanted:
        side = int(rng.integers(14, 30))
        left, top = rng.integers(0, SIDE - side, 2).tolist()
        right, bottom = left + side, top + side
        if any(left < box[3] and box[1] < right and top < box[4] and box[2] < bottom for box in boxes):
            if rng.uniform() < 0.1:
                break
            continue
        name = NAMES[rng.integers(1, len(NAMES))]
        colour = [int(value) for value in rng.choice([0, 30, 220, 255], 3)]
        if name == "circle":
            cv2.circle(picture, ((left + right) // 2, (top + bottom) // 2), side // 2, colour, -1)
        elif name == "square":
            cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), colour, -1)
        else:
            corners = np.array([[(left + right) // 2, top], [right - 1, bottom - 1], [left, bottom - 1]])
            cv2.fillPoly(picture, [corners], colour)
        boxes.append((name, left, top, right, bottom))
    return picture, boxes


def voc(boxes: list[tuple[str, int, int, int, int]]) -> str:
    """Return the boxes in the format of VOC."""
    text = f"<annotation><size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>\n"
    for name, *corners in boxes:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        text += f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>\n"
    return text + "</annotation>\n"


def make(folder: Path) -> None:
    """Write the pictures, the boxes, the lists, the label map and the databases."""
    for part in ("images", "boxes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    items = (f'item {{ name: "{name}" label: {label} display_name: "{name}" }}\n' for label, name in enumerate(NAMES))
    (folder / "labelmap.prototxt").write_text("".join(items))
    rng = np.random.default_rng(1)
    for part, count in COUNTS.items():
        lines = []
        for index in range(count):
            picture, boxes = draw(rng)
            name = f"{part}_{index:04d}"
            cv2.imwrite(str(folder / "images" / f"{name}.png"), picture)
            (folder / "boxes" / f"{name}.xml").write_text(voc(boxes))
            lines.append(f"images/{name}.png boxes/{name}.xml\n")
        (folder / f"{part}.txt").write_text("".join(lines))
        options = ["-anno_type=detection", f"-label_map_file={folder}/labelmap.prototxt", "-encoded", "-check_label"]
        if main(["convert_annoset", *options, f"{folder}/", f"{folder}/{part}.txt", f"{folder}/{part}_lmdb"]):
            sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("examples/ssd_shapes/data"))
    make(parser.parse_args().folder)
