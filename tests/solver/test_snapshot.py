"""Snapshots: exact resumption, both formats, rejected files, and failures that must not change anything."""

import errno
import os
import shutil

import h5py
import numpy as np
import pytest
import torch

from caffe.errors import FileError, SolverError
from caffe.proto import caffe_pb2, files, state, weights
from caffe.solver import get_solver
from tests.solver import small

FORMATS = pytest.mark.parametrize("more", ["snapshot_format: BINARYPROTO", "snapshot_format: HDF5"])
TYPES = {
    "SGD": "",
    "Nesterov": "",
    "AdaGrad": "momentum: 0",
    "RMSProp": "momentum: 0",
    "AdaDelta": "base_lr: 1 delta: 1e-3",
    "Adam": "base_lr: 0.01",
    "AdamW": "base_lr: 0.01",
    "LAMB": "base_lr: 0.01",
    "LARS": "",
    "Lion": "base_lr: 0.01",
    "Muon": "base_lr: 0.01",
    "NAdam": "base_lr: 0.01",
    "SGD of Intel's Caffe": "local_lr_auto: true base_lr: 5",
    "SGD of NVCaffe": "larc: true larc_turbo: true larc_eta: 0.5",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    return tmp_path


def content(solver):
    """Return the whole state on which a run depends, as bytes and numbers."""
    params = [entry.tensor.detach().numpy().copy() for entry in solver.net.learnable]
    return params, [tensor.numpy().copy() for tensor in solver.history], solver.iter, solver.current_step


def assert_same(got, want):
    assert got[2:] == want[2:]
    for mine, theirs in zip(got[0] + got[1], want[0] + want[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


BOTH = {"SGD", "Adam", "Muon"}
"""The rules that every run of the tests resumes in both formats. Long runs resume all rules in both."""
RESUMED = [
    pytest.param(kind, f"snapshot_format: {form}", marks=[pytest.mark.long] * (form == "HDF5" and kind not in BOTH))
    for kind in sorted(TYPES)
    for form in ("BINARYPROTO", "HDF5")
]


@pytest.mark.parametrize(("kind", "more"), RESUMED)
def test_resumed_run_equals_unbroken_run(kind, more):
    """The runs are equal bit by bit, with dropout, shuffled data, tests in between, and a rate that depends on a step
    counter.
    """
    settings = (
        f'type: "{kind.split()[0]}" {TYPES[kind]} {more} test_iter: 2 test_interval: 4 '
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 7 stepvalue: 20'
    )
    unbroken = get_solver(small.param(settings))
    unbroken.step(13)
    path = unbroken.snapshot()
    unbroken.step(17)
    resumed = get_solver(small.param(settings + " random_seed: 99"))
    resumed.step(2)
    resumed.restore(path)
    assert (resumed.iter, resumed.current_step) == (13, 1)
    resumed.step(17)
    assert_same(content(resumed), content(unbroken))


def test_solve_from_a_snapshot():
    solver = get_solver(small.param("snapshot: 4"))
    solver.solve()
    resumed = get_solver(small.param())
    resumed.solve(resume_file="snap_iter_4.solverstate")
    assert_same(content(resumed), content(solver))


def test_hidden_states_are_kept():
    net = caffe_pb2.NetParameter(name="recurrent")
    data = net.layer.add(name="x", type="DummyData", top=["x", "cont"])
    data.dummy_data_param.shape.add(dim=[5, 2, 3])
    data.dummy_data_param.shape.add(dim=[5, 2])
    data.dummy_data_param.data_filler.add(type="gaussian")
    data.dummy_data_param.data_filler.add(type="constant", value=1)
    layer = net.layer.add(name="h", type="LSTM", bottom=["x", "cont"], top=["h"])
    layer.recurrent_param.num_output = 7
    layer.recurrent_param.weight_filler.type = "xavier"
    net.layer.add(name="l", type="Reduction", bottom=["h"], top=["l"], loss_weight=[1])
    param = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", net_param=net, snapshot_prefix="r", random_seed=3)
    unbroken = get_solver(param)
    unbroken.step(3)
    path = unbroken.snapshot()
    unbroken.step(3)
    resumed = get_solver(param)
    resumed.restore(path)
    resumed.step(3)
    assert_same(content(resumed), content(unbroken))


def test_learned_net_beside_the_state(folder):
    solver = get_solver(small.param())
    (folder / "old").mkdir()
    solver.param.snapshot_prefix = "old/snap"
    solver.step(1)
    solver.snapshot()
    shutil.move("old", "moved")
    resumed = get_solver(small.param())
    resumed.restore("moved/snap_iter_1.solverstate")
    assert_same(content(resumed), content(solver))
    os.remove("moved/snap_iter_1.caffemodel")
    with pytest.raises(
        FileError, match=r'weights are neither at ".*old/snap_iter_1.caffemodel" nor "?.*moved/snap_iter_1'
    ):
        resumed.restore("moved/snap_iter_1.solverstate")


@FORMATS
def test_snapshot_diff(more):
    solver = get_solver(small.param(f"{more} snapshot_diff: true"))
    solver.step(1)
    path = state.read(solver.snapshot())[0].learned_net
    stored = weights.read_diffs(path)
    np.testing.assert_array_equal(stored["ip1"][0], solver.net.params["ip1"][0].diff)
    assert np.abs(stored["ip1"][0]).max() > 0


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(solver, path, error, message):
    """Assert that `restore` raises, and that the solver, its data and the random generator do not change."""
    before, generator = content(solver), torch.get_rng_state()
    places = [source.position() for source in solver.net.sources.values()]
    with pytest.raises(error, match=message):
        solver.restore(path)
    assert_same(content(solver), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [source.position() for source in solver.net.sources.values()] == places


@pytest.fixture(params=["", ".h5"], ids=["binary", "hdf5"])
def snapped(request):
    """A solver that continued after its snapshot, the path of the snapshot, and the suffix of its format."""
    solver = get_solver(small.param("snapshot_format: HDF5" if request.param else ""))
    solver.step(2)
    path = solver.snapshot()
    solver.step(1)
    return solver, path, request.param


def test_weights_given_for_a_state(snapped):
    solver, _, end = snapped
    refused(solver, f"snap_iter_2.caffemodel{end}", FileError, "expected a solver state .* use -weights")


def test_missing_and_cut_off_states(snapped, folder):
    solver, path, _ = snapped
    refused(solver, "nowhere.solverstate", FileError, "nowhere.solverstate")
    whole = (folder / path).read_bytes()
    (folder / "cut.solverstate").write_bytes(whole[: len(whole) // 2])
    refused(solver, "cut.solverstate", FileError, "cut.solverstate: .*cut off")


def test_state_of_another_solver_type(snapped):
    _, path, end = snapped
    adam = get_solver(small.param('type: "Adam"'))
    refused(adam, path, SolverError, 'of type "SGD", this solver has type "Adam"')
    head, history = state.read(path)
    head.ClearField("type")
    (state.write_hdf5 if end else state.write)("plain", head, history)
    refused(
        adam, "plain", SolverError, r'holds 4 history blobs, expected 8 \(2 for each of 4 learnable blobs .* "Adam"'
    )


def test_state_of_another_net(snapped, folder):
    _, path, _ = snapped
    (folder / "net.prototxt").write_text(small.NET.replace("num_output: 11", "num_output: 13"))
    other = get_solver(small.param())
    message = r'history blob 0, for blob 0 of layer "ip1", has shape 11 14 \(154\), expected 13 14 \(182\)'
    refused(other, path, SolverError, message)


def test_weights_of_another_net_beside_the_state(snapped, folder):
    solver, path, end = snapped
    (folder / "net.prototxt").write_text(small.NET.replace("num_output: 11", "num_output: 13"))
    other = get_solver(small.param("snapshot_format: HDF5" if end else ""))
    other.param.snapshot_prefix = "other"
    other.snapshot()
    shutil.move(f"other_iter_0.caffemodel{end}", f"snap_iter_2.caffemodel{end}")
    refused(solver, path, Exception, 'layer "ip1"')


# -- failures while writing ----------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("fails_at", [1, 2], ids=["weights", "state"])
def test_a_full_disk_leaves_earlier_snapshots_and_no_rest(more, fails_at, folder, monkeypatch):
    solver = get_solver(small.param(more))
    solver.step(1)
    first = solver.snapshot()
    solver.step(1)
    kept = {path.name: path.read_bytes() for path in folder.glob("snap*")}
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(
        SolverError, match=r"no snapshot at iteration 2: .*snap_iter_2.*No space left.* are intact"
    ) as error:
        solver.snapshot()
    weights = "snap_iter_2.caffemodel" + (".h5" if "HDF5" in more else "")
    assert (f"{weights} is complete, but there is no state file for it" in str(error.value)) == (fails_at == 2)
    assert (folder / weights).exists() == (fails_at == 2)
    left = {path.name: path.read_bytes() for path in folder.iterdir() if "snap" in path.name}
    if fails_at == 2:
        left.pop(weights)
    assert left == kept
    monkeypatch.undo()
    os.chdir(folder)
    get_solver(small.param(more)).restore(first)


def test_caffe_can_read_the_hdf5_state():
    """Caffe reads /iter, /learned_net, /current_step and /history by name, and ignores other members."""
    solver = get_solver(small.param("snapshot_format: HDF5"))
    solver.step(1)
    with h5py.File(solver.snapshot()) as file:
        assert file["iter"][()] == [1]
        assert file["learned_net"][()] == b"snap_iter_1.caffemodel.h5"
        assert len(file["history"]) == 4


def test_caffe_can_read_the_binary_state():
    """The numbers of our additional fields are not used by Caffe's message."""
    solver = get_solver(small.param())
    solver.step(1)
    with open(solver.snapshot(), "rb") as file:
        stored = caffe_pb2.SolverState.FromString(file.read())
    numbers = sorted(field.number for field, _ in stored.ListFields())
    assert numbers[:4] == [1, 2, 3, 4]
    assert all(number >= 20000 for number in numbers[4:])
    assert [list(blob.shape.dim) for blob in stored.history] == [[11, 14], [11], [3, 11], [3]]
