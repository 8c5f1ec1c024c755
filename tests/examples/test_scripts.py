"""The scripts that make the examples' data."""

from __future__ import annotations

import gzip
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from caffe.data import open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.databases.lmdb import Lmdb
from caffe.proto import caffe_pb2, upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT
from tests.examples import tiny


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(monkeypatch, script: str, *words: str) -> None:
    """Run a script of examples/ as from the command line."""
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")


def read(path: str) -> list[tuple[np.ndarray, int]]:
    source, reader = Lmdb(path), DatumReader()
    records = [(image.copy(), label) for image, label in (reader(bytes(value)) for _, value in source.scan())]
    source.close()
    return records


def test_pairs_hold_two_digits_and_whether_they_are_the_same(monkeypatch):
    labels = np.arange(30) % 3
    images = np.broadcast_to(labels[:, None, None, None], (30, 1, 5, 7)).astype(np.uint8)
    for part in ("train", "test"):
        tiny.write_images(Path(f"examples/mnist/mnist_{part}_lmdb"), images, labels)
    run(monkeypatch, "siamese/make_pairs.py")
    for part in ("train", "test"):
        records = read(f"examples/siamese/mnist_siamese_{part}_lmdb")
        assert len(records) == 30
        assert {pair.shape for pair, _ in records} == {(2, 5, 7)}
        assert all((pair[0, 0, 0] == pair[1, 0, 0]) == same for pair, same in records)
        assert {same for _, same in records} == {0, 1}
    first = read("examples/siamese/mnist_siamese_train_lmdb")
    run(monkeypatch, "siamese/make_pairs.py", "--seed", "2")
    again = read("examples/siamese/mnist_siamese_train_lmdb")
    assert any(not np.array_equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))


def test_cifar10_databases_keep_pixels_and_order(monkeypatch):
    records = np.random.default_rng(5).integers(0, 10, (12, 3073), np.uint8)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    Path("bin").mkdir()
    for index, name in enumerate(names):
        records[2 * index : 2 * index + 2].tofile(f"bin/{name}")
    run(monkeypatch, "cifar10/make_databases.py", "bin")
    for part, rows in (("train", records[:10]), ("test", records[10:])):
        for (image, label), row in zip(read(f"examples/cifar10/cifar10_{part}_lmdb"), rows, strict=True):
            assert label == row[0]
            np.testing.assert_array_equal(image, row[1:].reshape(3, 32, 32))
    mean = caffe_pb2.BlobProto.FromString(Path("examples/cifar10/mean.binaryproto").read_bytes())
    np.testing.assert_allclose(mean.data, records[:10, 1:].mean(0), rtol=1e-6)


def test_cifar10_script_names_a_damaged_file(monkeypatch):
    Path("bin").mkdir()
    Path("bin/data_batch_1.bin").write_bytes(bytes(3000))
    with pytest.raises(SystemExit, match=r"bin/data_batch_1.bin: 3000 bytes, expected a multiple of 3073"):
        run(monkeypatch, "cifar10/make_databases.py", "bin")
    assert not list(Path("examples/cifar10").glob("*lmdb"))


@pytest.mark.long
def test_a_curve_separates_the_moons_better_than_a_line(monkeypatch):
    run(monkeypatch, "hdf5_classification/make_data.py")
    lists = {
        part: Path(f"examples/hdf5_classification/data/{part}.txt").read_text().split() for part in ("train", "test")
    }
    rows = {part: sum(len(h5py.File(path)["label"]) for path in paths) for part, paths in lists.items()}
    assert rows == {"train": 7500, "test": 2500}
    assert len(lists["train"]) == 2
    assert accuracy("solver.prototxt", 1000) == pytest.approx(0.87, abs=0.03)
    assert accuracy("nonlinear_solver.prototxt", 3000) > 0.95


def accuracy(name: str, iterations: int) -> float:
    """Return the accuracy that a solver of the HDF5 example reaches."""
    param = upgrade.read_solver(ROOT / "examples/hdf5_classification" / name)
    param.net, param.random_seed = str(ROOT / param.net), 3
    solver = get_solver(param)
    solver.step(iterations)
    solver.test_all()
    return solver.test(0)["accuracy"][0]


def shell(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a shell script of examples/ in which `caffe` is the command of this package."""
    Path("bin").mkdir(exist_ok=True)
    command = Path("bin/caffe")
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m caffe "$@"\n')
    command.chmod(0o755)
    paths = {"PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [ROOT / "examples" / script, *words],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_imagenet_scripts_make_databases_and_mean():
    rng = np.random.default_rng(6)
    for part, count in (("train", 3), ("val", 2)):
        Path(part).mkdir()
        for number in range(count):
            cv2.imwrite(f"{part}/{number}.png", rng.integers(0, 256, (9, 12, 3), np.uint8))
        Path(f"{part}.txt").write_text("".join(f"{number}.png {number}\n" for number in range(count)))
    done = shell("imagenet/create_imagenet.sh", "train", "val/", ".", "out", RESIZE="8")
    assert done.returncode == 0, done.stderr
    for part, count in (("train", 3), ("val", 2)):
        records = read(f"out/ilsvrc12_{part}_lmdb")
        assert sorted(label for _, label in records) == list(range(count))
        assert {image.shape for image, _ in records} == {(3, 8, 8)}
    done = shell("imagenet/make_imagenet_mean.sh", "out")
    assert done.returncode == 0, done.stderr
    mean = caffe_pb2.BlobProto.FromString(Path("out/imagenet_mean.binaryproto").read_bytes())
    images = [image for image, _ in read("out/ilsvrc12_train_lmdb")]
    np.testing.assert_allclose(mean.data, np.mean(images, 0).ravel(), rtol=1e-5)
    done = shell("imagenet/create_imagenet.sh", "train", "val", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere/train.txt does not exist" in done.stderr
    assert "TRAIN_FOLDER VAL_FOLDER LIST_FOLDER" in shell("imagenet/create_imagenet.sh").stderr


def test_the_siamese_script_makes_leveldbs():
    for part, count in (("train", 4), ("t10k", 3)):
        for name, array in (
            ("images-idx3", np.zeros((count, 5, 3), np.uint8)),
            ("labels-idx1", np.zeros(count, np.uint8)),
        ):
            head = (0x800 + array.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape)
            Path(f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    done = shell("siamese/create_mnist_siamese.sh", ".", "out")
    assert done.returncode == 0, done.stderr
    for part, count in (("train", 4), ("test", 3)):
        source = open_source("LEVELDB", f"out/mnist_siamese_{part}_leveldb")
        assert sum(1 for _ in source.scan()) == count
        source.close()
    Path("t10k-labels-idx1-ubyte.gz").unlink()
    done = shell("siamese/create_mnist_siamese.sh", ".", "more")
    assert done.returncode == 1
    assert "no file t10k-labels-idx1-ubyte" in done.stderr
