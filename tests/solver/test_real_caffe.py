"""Snapshots of the original Caffe can be resumed here, and ours in the original, with equal results for ten iterations.

The net has no BatchNorm, because kendryte-caffe's layer differs from BVLC's: it updates no statistics in training.
Runs where CAFETIERE_REAL_CAFFE names a Python that has the original's pycaffe, for example one of version 3.8 with
`pip install kendryte-caffe`.
"""

import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.solver import get_solver

PYTHON = os.environ.get("CAFETIERE_REAL_CAFFE", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="CAFETIERE_REAL_CAFFE names no Python with the original pycaffe")

HALF, REST = 7, 10
NET = """
name: "crossing"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 13 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "scale" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "scale" top: "scale" }
layer { name: "ip" type: "InnerProduct" bottom: "scale" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.05 weight_decay: 0.002 lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 12
max_iter: 100 random_seed: 5 solver_mode: CPU snapshot_after_train: false
"""
KINDS = {
    "SGD": 'momentum: 0.9 regularization_type: "L1"',
    "Nesterov": "momentum: 0.9 clip_gradients: 1",
    "AdaGrad": "",
    "RMSProp": "base_lr: 0.01 rms_decay: 0.9",
    "AdaDelta": "base_lr: 1 momentum: 0.9 delta: 1e-4",
    "Adam": "base_lr: 0.01 momentum: 0.9 iter_size: 2",
}


@pytest.fixture(params=["BINARYPROTO", "HDF5"])
def form(request, tmp_path, monkeypatch):
    """The snapshot format. The working directory contains the data and the net."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    with h5py.File("data.h5", "w") as file:
        file["data"] = rng.standard_normal((13, 2, 7, 6)).astype(np.float32)
        file["label"] = rng.integers(0, 5, 13).astype(np.float32)
    Path("list.txt").write_text("data.h5\n")
    Path("net.prototxt").write_text(NET)
    return request.param


def write_solver(kind, form, prefix, more=""):
    """Write a solver prototxt; return its path."""
    settings = {line.split(":")[0] for line in KINDS[kind].replace(" ", "\n").splitlines()}
    base = SOLVER.replace("base_lr: 0.05 ", "") if "base_lr" in settings else SOLVER
    path = Path(f"{prefix}.prototxt")
    path.write_text(f'{base} type: "{kind}" {KINDS[kind]} snapshot_format: {form} snapshot_prefix: "{prefix}" {more}')
    return str(path)


def original(solver, state, iterations, out):
    """Train with the original Caffe; return the recorded losses and weights."""
    script = Path(__file__).with_name("real_caffe.py")
    command = [PYTHON, str(script), solver, state, str(iterations), out]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env={**environment, "GLOG_minloglevel": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(out)


def ours(solver, record):
    """Train here for the recorded number of iterations; compare every loss and the final weights."""
    for expected in record["losses"]:
        solver.step(1)
        assert float(solver.net.blobs["loss"].data) == pytest.approx(expected, rel=1e-4)
    assert solver.iter == record["iteration"]
    compare(solver, record)


def compare(solver, record):
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            np.testing.assert_allclose(blob.data, record[f"{name}/{index}"], rtol=1e-3, atol=2e-5, err_msg=name)


def state_path(prefix, form, iteration=HALF):
    return f"{prefix}_iter_{iteration}.solverstate" + (".h5" if form == "HDF5" else "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_of_the_original_resumes_here(kind, form):
    path = write_solver(kind, form, "theirs")
    original(path, "-", HALF, "first.npz")
    record = original(path, state_path("theirs", form), REST, "rest.npz")
    solver = get_solver(write_solver(kind, form, "here"))
    solver.restore(state_path("theirs", form))
    ours(solver, record)


@pytest.mark.parametrize("kind", KINDS)
def test_our_snapshot_resumes_in_the_original(kind, form):
    """The files contain a moving average and all other fields that we add."""
    solver = get_solver(write_solver(kind, form, "ours", "ema_decay: 0.9"))
    solver.step(HALF)
    state = solver.snapshot()
    assert state == state_path("ours", form)
    record = original(write_solver(kind, form, "there"), state, REST, "rest.npz")
    ours(solver, record)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_there_and_back(kind, form):
    """Train here, resume in the original, and resume here again; compare with an uninterrupted run here."""
    unbroken = get_solver(write_solver(kind, form, "ours"))
    unbroken.step(HALF)
    state = unbroken.snapshot()
    original(write_solver(kind, form, "there"), state, REST, "rest.npz")
    back = get_solver(write_solver(kind, form, "back"))
    back.restore(state_path("there", form, HALF + REST))
    unbroken.step(REST + 3)
    back.step(3)
    compare(back, {f"{n}/{i}": b.data for n, blobs in unbroken.net.params.items() for i, b in enumerate(blobs)})
