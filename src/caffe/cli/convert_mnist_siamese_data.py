"""`caffe convert_mnist_siamese_data`."""

from __future__ import annotations

import secrets
from pathlib import Path
from types import SimpleNamespace

from caffe import log
from caffe.cli.command import command
from caffe.cli.convert_imageset import written_backends
from caffe.cli.display import Display
from caffe.cli.flags import Flag

BACKEND = Flag("backend", "leveldb", "Backend of the database.", known=written_backends)
SEED = Flag("seed", -1, "Seed of the random pairs; -1 draws different pairs each time.")


@command(BACKEND, SEED, task="convert", arguments="IMAGE_FILE LABEL_FILE DB_NAME")
def convert_mnist_siamese_data(flags: SimpleNamespace, display: Display) -> None:
    """Convert MNIST's idx files, plain or .gz, to a database of pairs.

    The siamese net of the examples trains on it. There are as many pairs as images. A pair is one record with two
    channels: two randomly drawn images. The label is 1 if they show the same digit, else 0.

        caffe convert_mnist_siamese_data train-images-idx3-ubyte train-labels-idx1-ubyte mnist_siamese_train_leveldb
    """
    from caffe.data import create_database
    from caffe.data.pipeline.rng import generator
    from caffe.data.tools.mnist import put_pairs, read_pair

    image_file, label_file, path = flags.arguments
    images, labels = read_pair(Path(image_file), Path(label_file))
    count, rows, columns = images.shape
    rng = generator(flags.seed if flags.seed >= 0 else secrets.randbits(32), 0)
    with create_database(flags.backend, path) as writer, display.bar(path, count) as bar:
        log.info("convert_mnist_siamese_data.cpp:90", f"A total of {count} items.")
        log.info("convert_mnist_siamese_data.cpp:91", f"Rows: {rows} Cols: {columns}")
        for done in put_pairs(writer, images[:, None], labels, rng):
            bar.update(done)
    display.say(f"wrote {path}: {count:,} pairs")
