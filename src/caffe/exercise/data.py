"""Data sets for runs with planted faults: digits, patterns, curves and sequences."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np

__all__ = ["curve_sets", "digit_sets", "drawn_digits", "pattern_sets", "sequence_sets"]

_FONTS = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX]


def _save(folder: Path, name: str, data: np.ndarray, label: np.ndarray, train: int) -> None:
    data, label = data.astype(np.float32), label.astype(np.float32)
    np.savez(folder / f"{name}_train.npz", data=data[:train], label=label[:train])
    np.savez(folder / f"{name}_test.npz", data=data[train:], label=label[train:])


def drawn_digits(seed: int, count: int = 1797, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits with OpenCV, shifted and with noise: images (count, 1, size, size) from 0 to 1, and their labels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(10, size=count)
    images = np.empty((count, 1, size, size))
    for image, digit in zip(images, label, strict=True):
        canvas = np.zeros((32, 32), np.uint8)
        place = int(5 + rng.integers(-3, 4)), int(27 + rng.integers(-3, 4))
        scale, font = (
            float(rng.uniform(0.8, 1.05)),
            int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX])),
        )
        cv2.putText(canvas, str(digit), place, font, scale, 255, int(rng.integers(2, 5)), cv2.LINE_AA)
        image[0] = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / 255
    return np.clip(images + 0.08 * rng.standard_normal(images.shape), 0, 1), label


def digit_sets(folder: Path, data: np.ndarray, label: np.ndarray) -> None:
    """Return digits (1797, 1, 8, 8) from 0 to 1, and faulty versions of them."""
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


def pattern_sets(folder: Path, seed: int = 2) -> None:
    """Return eight patterns of 10 x 10 with noise; and the same as pixels from 0 to 255 without their mean."""
    rng = np.random.default_rng(seed)
    shapes = rng.random((8, 1, 10, 10)) * (rng.random((8, 1, 10, 10)) < 0.4)
    label = rng.integers(8, size=2400)
    data = np.clip(shapes[label] + 0.25 * rng.standard_normal((2400, 1, 10, 10)), 0, 1)
    _save(folder, "patterns", data, label, 2000)
    _save(folder, "patterns255", np.rint(255 * data) - np.rint(255 * data.mean()), label, 2000)
    _save(folder, "patterns_huge", 1e4 * data, label, 2000)
    _save(folder, "patterns_shuffled", data, rng.permutation(label), 2000)


def curve_sets(folder: Path, seed: int = 3) -> None:
    """Return two smooth functions of six numbers, for regression; and targets far from a net's initial outputs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3000, 6))
    y = np.stack([np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2], np.tanh(x[:, 3]) - 0.3 * x[:, 4]], 1)
    y += 0.05 * rng.standard_normal(y.shape)
    _save(folder, "curves", x, y, 2500)
    _save(folder, "curves_large", 1000 * x, y, 2500)
    _save(folder, "curves_shuffled", x, rng.permutation(y), 2500)


def sequence_sets(folder: Path, seed: int = 4) -> None:
    """Return sixteen streams of symbols. Each symbol depends on the two before it, with 10 % noise. A row is a step."""
    rng = np.random.default_rng(seed)
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
