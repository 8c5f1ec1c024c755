"""Creates databases of digit pairs from the databases of digits.

    python examples/siamese/make_pairs.py

This reads examples/mnist/mnist_train_lmdb and mnist_test_lmdb (created by `caffe data mnist -o examples/mnist`) and
writes examples/siamese/mnist_siamese_train_lmdb and mnist_siamese_test_lmdb, with as many pairs as there are digits. A
pair is one record of two random digits: channels 0 and 1 contain the two digits, and the label is 1 if they are equal,
else 0. About one pair in ten has equal digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from caffe.data.databases.datum import DatumReader
from caffe.data.databases.lmdb import Lmdb, LmdbWriter
from caffe.data.tools.mnist import put_pairs


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 1, H, W) and labels (N) of a database."""
    reader = DatumReader()
    source = Lmdb(str(folder))
    images, labels = zip(*(reader(bytes(value)) for _, value in source.scan()), strict=True)
    source.close()
    return np.stack(images), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, default=Path("examples/mnist"), help="folder of the digit databases")
    parser.add_argument("--output", type=Path, default=Path("examples/siamese"), help="folder for the pair databases")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for part in ("train", "test"):
        path = options.output / f"mnist_siamese_{part}_lmdb"
        with LmdbWriter(path, overwrite=True) as writer:
            count = sum(1 for _ in put_pairs(writer, *read(options.digits / f"mnist_{part}_lmdb"), rng))
        print(f"{path}: {count} pairs")


if __name__ == "__main__":
    main()
