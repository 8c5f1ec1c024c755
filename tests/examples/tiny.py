"""Writes a few records to every path that the example nets read, so that the nets can be trained in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.proto import caffe_pb2

IMAGES = {"mnist_siamese": ((2, 28, 28), 2), "mnist": ((1, 28, 28), 10), "cifar10": ((3, 32, 32), 10)}
"""The shape of an image and the number of classes, by the beginning of the database's name."""
IMAGENET = ((3, 256, 256), 1000)
RECORDS = 5
BATCH = 2


def provide(net: Any) -> None:
    """Write the files that the data layers of a NetParameter read, and set its batch sizes to two."""
    rng = np.random.default_rng(7)
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.batch_size = BATCH
            _database(Path(layer.data_param.source), layer.transform_param.mean_file, rng)
        elif layer.type == "HDF5Data":
            layer.hdf5_data_param.batch_size = BATCH
            _hdf5(Path(layer.hdf5_data_param.source), rng)


def write_images(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write an LMDB of images (N, C, H, W) of uint8 and their labels."""
    with LmdbWriter(path, overwrite=True) as writer:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.put(b"%08d" % index, encode_datum(image, int(label)))


def _database(path: Path, mean_file: str, rng: np.random.Generator) -> None:
    names = [name for name in IMAGES if path.name.startswith(name)]
    shape, classes = IMAGES[names[0]] if names else IMAGENET
    images = rng.integers(
        110, 130, (RECORDS, *shape), np.uint8
    )  # low contrast, so that the first losses are near log(classes)
    write_images(path, images, rng.integers(0, classes, RECORDS))
    if mean_file:
        mean = caffe_pb2.BlobProto(num=1, channels=shape[0], height=shape[1], width=shape[2])
        mean.data.extend([120.0] * int(np.prod(shape)))
        Path(mean_file).parent.mkdir(parents=True, exist_ok=True)
        Path(mean_file).write_bytes(mean.SerializeToString())


def _hdf5(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix(".h5")
    with h5py.File(file, "w") as out:
        out["data"] = rng.normal(size=(RECORDS, 4)).astype(np.float32)
        out["label"] = rng.integers(0, 2, RECORDS).astype(np.float32)
    path.write_text(f"{file}\n")
