"""`caffe convert_cifar_data`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display

_TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]


@command(task="convert", arguments="INPUT_FOLDER OUTPUT_FOLDER DB_TYPE")
def convert_cifar_data(flags: SimpleNamespace, display: Display) -> None:
    """Convert CIFAR-10's binary files to databases of records.

    Writes cifar10_train_DB_TYPE and cifar10_test_DB_TYPE into OUTPUT_FOLDER.

    INPUT_FOLDER holds data_batch_1.bin to data_batch_5.bin and test_batch.bin; DB_TYPE is lmdb or leveldb.

        caffe convert_cifar_data cifar-10-batches-bin examples/cifar10 lmdb
    """
    from caffe.data import create_database
    from caffe.data.tools.cifar import put_images, read_batch

    folder, out, backend = flags.arguments
    with (
        create_database(backend, Path(out) / f"cifar10_train_{backend}") as train,
        create_database(backend, Path(out) / f"cifar10_test_{backend}") as test,
        display.bar("CIFAR-10", 60_000) as bar,
    ):
        log.info("convert_cifar_data.cpp:44", "Writing Training data")
        for number, name in enumerate(_TRAIN, 1):
            log.info("convert_cifar_data.cpp:48", f"Training Batch {number}")
            put_images(train, *read_batch(Path(folder) / name))
            bar.update(train.count)
        log.info("convert_cifar_data.cpp:67", "Writing Testing data")
        put_images(test, *read_batch(Path(folder) / "test_batch.bin"))
        bar.update(train.count + test.count, total=train.count + test.count)
    for writer in (train, test):
        display.say(f"wrote {writer.path}: {writer.count:,} images")
