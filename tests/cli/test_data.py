"""`caffe data`."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from caffe.cli import main


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
    assert 'mnist_train_lmdb" exists already; give -overwrite' in capsys.readouterr().err
    assert main(["data", "mnist", "-folder", "idx", "-o", "out", "-overwrite"]) == 0


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["mnits"], 'unknown data set "mnits"; did you mean "mnist"? (known: mnist)'),
        (["mnist", "-folder", "no"], "no file train-images-idx3-ubyte"),
        ([], 'got the arguments: none; expected "mnist"'),
    ],
)
def test_what_is_wrong_is_told(digits, capsys, argv, text):
    assert main(["data", *argv]) == 1
    assert text in capsys.readouterr().err
