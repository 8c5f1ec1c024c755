"""Reads the binary files of CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.writer import RecordWriter
from caffe.errors import FileError

__all__ = ["put_images", "read_batch"]

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the images (n, 3, 32, 32), in RGB order, and labels (n) of a file. Raises FileError if it is not a CIFAR-10
    file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}; expected the binary version of CIFAR-10") from error
    if not content or len(content) % _RECORD:
        raise FileError(
            f"{path} has {len(content)} bytes, not a multiple of {_RECORD}: it is truncated or not of the binary "
            "version of CIFAR-10; download it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return rows[:, 1:].reshape(-1, *_SHAPE), rows[:, 0]


def put_images(writer: RecordWriter, images: np.ndarray, labels: np.ndarray) -> None:
    """Add images to a database. Their keys continue the numbering of the records in it."""
    for image, label in zip(images, labels.tolist(), strict=True):
        writer.put(b"%05d" % writer.count, encode_datum(image, label))
