"""Solvers reproduce the reference's losses, rates and weights, and read and write its snapshots."""

import shutil

import h5py
import numpy as np
import pytest

from caffe.proto import state, weights
from caffe.solver import get_solver
from tests.conftest import reference, shared
from tests.replay import assert_close

HALF = 15
CASES = sorted(path.parent.name for path in (reference("golden", "solvers")).glob("*/record.npz"))
ENDS = [pytest.param("", id="binary"), pytest.param(".h5", marks=pytest.mark.long)]
"""The formats of snapshots. Other tests read and write HDF5 snapshots in every run."""
cases = pytest.mark.parametrize("case", CASES or [pytest.param("", marks=pytest.mark.skip("no reference files"))])


@pytest.fixture
def record(case, tmp_path, monkeypatch):
    """The recording of the reference. The working directory contains the files of the case."""
    root = shared("golden", "solvers")
    for path in [*root.iterdir(), *(root / case).iterdir()]:
        if path.is_file():
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return np.load("record.npz")


def follow(solver, record, first):
    """Train to the end, and compare every iteration from `first` on."""
    losses = []
    run = solver.net.forward_backward

    def kept():
        losses.append(run())
        return losses[-1]

    solver.net.forward_backward = kept
    for iteration in range(first, len(record["lr"])):
        losses.clear()
        assert solver.lr == pytest.approx(record["lr"][iteration], rel=1e-6)
        solver.step(1)
        assert_close(losses, record["losses"][iteration], f"losses of iteration {iteration}")
        for key in record:
            if key.startswith(f"weights/{iteration + 1}/"):
                _, _, layer, index = key.split("/")
                assert_close(solver.net.params[layer][int(index)].data, record[key], key)


@cases
def test_trajectory(case, record):
    solver = get_solver("solver.prototxt")
    solver.net.copy_from("init.caffemodel")
    follow(solver, record, 0)


@cases
@pytest.mark.parametrize("end", ENDS)
def test_resume_from_reference_snapshot(case, record, end):
    solver = get_solver("solver.prototxt")
    solver.restore(f"snap_iter_{HALF}.solverstate{end}")
    assert solver.iter == HALF
    follow(solver, record, HALF)


@cases
@pytest.mark.parametrize("end", ENDS)
def test_own_snapshot_has_the_content_of_the_reference_snapshot(case, record, end):
    solver = get_solver("solver.prototxt")
    solver.param.snapshot_prefix = "own"
    solver.param.snapshot_format = solver.param.HDF5 if end else solver.param.BINARYPROTO
    solver.net.copy_from("init.caffemodel")
    solver.step(HALF)
    own_path = solver.snapshot()
    assert own_path == f"own_iter_{HALF}.solverstate{end}"
    theirs, their_history = state.read(f"snap_iter_{HALF}.solverstate{end}")
    ours, our_history = state.read(own_path)
    assert (ours.iter, ours.current_step) == (theirs.iter, theirs.current_step)
    assert ours.learned_net == theirs.learned_net.replace("snap", "own")
    assert len(our_history) == len(their_history)
    for index, (got, stored) in enumerate(zip(our_history, their_history, strict=True)):
        assert_close(got, stored, f"history {index}", atol=1e-7)
    stored = weights.read(theirs.learned_net)
    got = weights.read(ours.learned_net)
    assert list(got) == list(stored)
    for layer, arrays in stored.items():
        assert len(got[layer]) == len(arrays)
        for index, array in enumerate(arrays):
            assert_close(got[layer][index], array, f"{layer}[{index}]")


def test_own_hdf5_state_is_laid_out_as_the_reference_state(tmp_path, monkeypatch):
    root = shared("golden", "solvers")
    for name in ("net.prototxt", "train.h5", "train.txt", "adam_plain/solver.prototxt"):
        shutil.copy(root / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    solver = get_solver("solver.prototxt")
    solver.param.snapshot_format = solver.param.HDF5

    def layout(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: getattr(item, "shape", None)}))
            return found, file["iter"].dtype, file["learned_net"].dtype.kind, file["current_step"].dtype

    ours, theirs = layout(solver.snapshot()), layout(root / "adam_plain" / "snap_iter_15.solverstate.h5")
    assert ours[0].pop("cafetiere")[0] > 0
    assert ours == theirs
