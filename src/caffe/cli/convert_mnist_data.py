"""`caffe convert_mnist_data`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from caffe import log
from caffe.cli.command import command
from caffe.cli.convert_imageset import BACKEND
from caffe.cli.display import Display


@command(BACKEND, task="convert", arguments="IMAGE_FILE LABEL_FILE DB_NAME")
def convert_mnist_data(flags: SimpleNamespace, display: Display) -> None:
    """Convert MNIST's idx files, plain or .gz, to a database of records.

    caffe convert_mnist_data train-images-idx3-ubyte train-labels-idx1-ubyte mnist_train_lmdb
    """
    from caffe.data import create_database
    from caffe.data.tools.mnist import put_digits, read_pair

    image_file, label_file, path = flags.arguments
    images, labels = read_pair(Path(image_file), Path(label_file))
    count, rows, columns = images.shape
    with create_database(flags.backend, path) as writer, display.bar(path, count) as bar:
        log.info("convert_mnist_data.cpp:90", f"A total of {count} items.")
        log.info("convert_mnist_data.cpp:91", f"Rows: {rows} Cols: {columns}")
        for done in put_digits(writer, images, labels):
            bar.update(done)
    log.info("convert_mnist_data.cpp:109", f"Processed {count} files.")
    display.say(f"wrote {path}: {count:,} digits")
