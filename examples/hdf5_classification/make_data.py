"""Creates the HDF5 files of this example: 10,000 points of two classes with four features.

    python examples/hdf5_classification/make_data.py

The classes are two interlocking half moons with noise: a line classifies about 87 % correctly, a curve more. Features 0
and 1 are the coordinates of a point, 2 and 3 are mixtures of these two. 7,500 points are written to two files for
training, 2,500 to one for testing. The lists train.txt and test.txt, which the nets name, contain the paths of the
files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np


def moons(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 4) of unit variance, and their classes (count)."""
    labels = rng.integers(2, size=count)
    angle = np.pi * rng.random(count)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[labels == 1] = [1, 0.5] - points[labels == 1]
    points += rng.normal(scale=0.2, size=points.shape)
    features = np.concatenate([points, points @ rng.normal(size=(2, 2))], axis=1)
    return (features - features.mean(0)) / features.std(0), labels


def write(folder: Path, part: str, chunks: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write one HDF5 file per chunk, with a dataset for each top of the HDF5Data layer, and the list of the files."""
    paths = [folder / f"{part}_{index}.h5" for index in range(len(chunks))]
    for path, (data, label) in zip(paths, chunks, strict=True):
        with h5py.File(path, "w") as file:
            file["data"] = data.astype(np.float32)
            file["label"] = label.astype(np.float32)
    (folder / f"{part}.txt").write_text("".join(f"{path.as_posix()}\n" for path in paths))
    print(f"{folder / part}.txt: {sum(len(label) for _, label in chunks)} points in {len(paths)} file(s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/hdf5_classification/data"), help="folder")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data, label = moons(10_000, np.random.default_rng(options.seed))
    train, test = slice(0, 7_500), slice(7_500, 10_000)
    halves = zip(np.array_split(data[train], 2), np.array_split(label[train], 2), strict=True)
    write(options.output, "train", list(halves))
    write(options.output, "test", [(data[test], label[test])])


if __name__ == "__main__":
    main()
