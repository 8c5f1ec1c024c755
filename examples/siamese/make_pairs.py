"""Make the databases of digit pairs from the databases of digits.

    python examples/siamese/make_pairs.py

reads examples/mnist/mnist_train_lmdb and mnist_test_lmdb (made by `caffe data mnist -o examples/mnist`) and writes
examples/siamese/mnist_siamese_train_lmdb and mnist_siamese_test_lmdb: as many pairs as there are digits, each of two
digits drawn at random. A pair is one record: channel 0 and channel 1 hold the two digits, the label is 1 if they are
the same digit and 0 if not, so about one pair in ten is of the same digit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from caffe.data.databases.datum import DatumReader
from caffe.data.databases.lmdb import Lmdb, LmdbWriter
from caffe.data.tools.mnist import put_pairs


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 1, H, W) and labels (N) of a database."""
    reader = DatumReader()
    source = Lmdb(str(folder))
    images, labels = zip(*(reader(bytes(value)) for _, value in source.scan()), strict=True)
    source.close()
    return np.stack(images), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, default=Path("examples/mnist"), help="folder of the digit databases")
    parser.add_argument("--output", type=Path, default=Path("examples/siamese"), help="folder for the pair databases")
    parser.add_argument("--seed", type=int, default=1, help="of the random draws")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for part in ("train", "test"):
        path = options.output / f"mnist_siamese_{part}_lmdb"
        with LmdbWriter(path, overwrite=True) as writer:
            count = sum(1 for _ in put_pairs(writer, *read(options.digits / f"mnist_{part}_lmdb"), rng))
        print(f"{path}: {count} pairs")


if __name__ == "__main__":
    main()
