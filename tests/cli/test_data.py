"""`caffe data`."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caffe.cli import main
from caffe.data import open_source
from caffe.data.tools import datasets
from caffe.data.tools.statistics import images
from tests.data.test_download import server  # noqa: F401 - a fixture


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A folder with tiny idx files: 7 digits to train on and 3 to test with."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, count in (("train", 7), ("t10k", 3)):
        pixels = np.arange(count * 784, dtype=np.uint8).tobytes()
        head = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels))
        labels = bytes(range(count))
        head = b"".join(n.to_bytes(4, "big") for n in (0x801, count))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_mnist_from_a_folder(digits, capsys):
    assert main(["data", "mnist", "-folder", "idx", "-o", "out"]) == 0
    assert capsys.readouterr().out == "wrote out/mnist_train_lmdb: 7 digits\nwrote out/mnist_test_lmdb: 3 digits\n"
    assert (digits / "out" / "mnist_train_lmdb" / "data.mdb").exists()
    assert main(["data", "mnist", "-folder", "idx", "-o", "out"]) == 1
    assert 'mnist_train_lmdb" already exists; give -overwrite' in capsys.readouterr().err
    assert main(["data", "mnist", "-folder", "idx", "-o", "out", "-overwrite"]) == 0


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["mnits"], 'unknown data set "mnits"; did you mean "mnist"? (known: mnist, fashion_mnist'),
        (["mnist", "-folder", "no"], "no file train-images-idx3-ubyte"),
        ([], 'got the arguments: none; expected "mnist|fashion_mnist|'),
    ],
)
def test_errors_name_the_fault(digits, capsys, argv, text):
    assert main(["data", *argv]) == 1
    assert text in capsys.readouterr().err


def files_of(name, folder):
    """Tiny files of a data set: 20 pictures to train on, 5 to test with."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    if name == "digits":
        rows = np.column_stack([rng.integers(0, 17, (25, 64)), np.arange(25) % 10])
        text = "\n".join(",".join(map(str, row)) for row in rows.tolist())
        (folder / "digits.csv.gz").write_bytes(gzip.compress(text.encode()))
        return
    names = {"cifar10": [f"data_batch_{n}.bin" for n in range(1, 6)], "cifar100": ["train.bin"]}[name]
    each = 20 // len(names)
    for file, count in [*((file, each) for file in names), ("test_batch.bin" if name == "cifar10" else "test.bin", 4)]:
        labels = np.arange(count, dtype=np.uint8)[:, None] % 10
        extra = labels if name == "cifar10" else np.column_stack([labels, labels])
        pixels = rng.integers(0, 9, (count, 3, 32, 32), np.uint8)
        pixels[:, 0] += 200  # red
        (folder / file).write_bytes(np.column_stack([extra, pixels.reshape(count, -1)]).tobytes())


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
def test_known_data_sets_from_their_files(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    files_of(name, tmp_path / "files")
    assert main(["data", name, "-folder", "files", "-o", "out"]) == 0
    assert f"wrote out/{name}_train_lmdb: 20 pictures" in capsys.readouterr().out
    with closing(open_source("LMDB", f"out/{name}_train_lmdb")) as source:
        image = next(iter(images(source)))[1]
    assert image.shape == ((1, 8, 8) if name == "digits" else (3, 32, 32))
    if name != "digits":
        assert image[2].min() >= 200  # red is last
    assert main(["data", name, "-folder", "files", "-o", "out"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["data", name, "-folder", ".", "-o", "other"]) == 1
    assert "expected" in capsys.readouterr().err


def test_a_known_set_is_downloaded_and_becomes_a_project(tmp_path, monkeypatch, server, capsys):  # noqa: F811
    monkeypatch.setenv("CAFFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files_of("cifar10", tmp_path / "cifar-10-batches-bin")
    with tarfile.open("c.tar.gz", "w:gz") as archive:
        archive.add("cifar-10-batches-bin")
    content = (tmp_path / "c.tar.gz").read_bytes()
    monkeypatch.setattr("tests.data.test_download.CONTENT", content)
    places = ((f"{server}/c.tar.gz", hashlib.md5(content).hexdigest()),)
    monkeypatch.setitem(datasets.KNOWN, "cifar10", replace(datasets.KNOWN["cifar10"], files=places))
    assert main(["new", "p", "-data", "cifar10"]) == 0
    out = capsys.readouterr().out
    assert "20 to train on, 4 to validate with" in out
    assert "cifar_quick with pictures of 32 pixels" in out
    assert Path("p/labels.txt").read_text().split() == ["airplane", "automobile", "bird", "cat"]
    assert main(["new", "q", "-data", "cifar11"]) == 1
    assert 'unknown data set "cifar11"' in capsys.readouterr().err
