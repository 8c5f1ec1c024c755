"""Creates the databases and the mean image of CIFAR-10 from the files of its "binary version".

    curl -O https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz     (162 MB)
    tar xzf cifar-10-binary.tar.gz
    python examples/cifar10/make_databases.py cifar-10-batches-bin

This writes examples/cifar10/cifar10_train_lmdb (50,000 images), cifar10_test_lmdb (10,000) and mean.binaryproto, the
mean of the training images. The images keep the order and the channels (RGB) of the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.proto.caffe_pb2 import BlobProto

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # the class, then the pixels channel by channel
PARTS = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}


def records(folder: Path, part: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the images (3, 32, 32) and classes of a part, file by file."""
    for name in PARTS[part]:
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if not size or size % RECORD:
            sys.exit(f"{path}: {size} bytes, expected a multiple of {RECORD}; unpack cifar-10-binary.tar.gz again")
        for record in np.fromfile(path, np.uint8).reshape(-1, RECORD):
            yield record[1:].reshape(SHAPE), int(record[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder cifar-10-batches-bin")
    parser.add_argument("--output", type=Path, default=Path("examples/cifar10"), help="output folder")
    options = parser.parse_args()
    for part in PARTS:
        path = options.output / f"cifar10_{part}_lmdb"
        total = np.zeros(SHAPE)
        with LmdbWriter(path, overwrite=True) as writer:
            for index, (image, label) in enumerate(records(options.folder, part)):
                writer.put(b"%05d" % index, encode_datum(image, label))
                total += image
        print(f"{path}: {writer.count} images")
        if part == "train":
            mean = BlobProto(num=1, channels=3, height=32, width=32, data=(total / writer.count).ravel())
            (options.output / "mean.binaryproto").write_bytes(mean.SerializeToString())


if __name__ == "__main__":
    main()
