"""Solver states."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from caffe.errors import FileError
from caffe.proto import caffe_pb2, state, weights
from tests.conftest import shared

HISTORY = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([5.0, 7.0], np.float32)]


def example() -> caffe_pb2.SolverState:
    return caffe_pb2.SolverState(
        iter=11,
        learned_net="a_iter_11.caffemodel",
        current_step=2,
        random_state=b"\0\1\2",
        source=[caffe_pb2.SourceState(layer="d", position=b"\7")],
    )


@pytest.mark.parametrize("solver", ["adam_plain", "sgd_l2", "policy_multistep"])
def test_states_of_caffe_in_both_formats(tmp_path, solver):
    path = shared("golden", "solvers", solver, "snap_iter_15.solverstate")
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    binary, history = state.read(path)
    assert (binary.iter, binary.learned_net) == (15, message.learned_net)
    assert len(history) == len(message.history) > 0
    for array, proto in zip(history, message.history, strict=True):
        np.testing.assert_array_equal(array.ravel(), np.array(proto.data, np.float32), strict=True)
    hdf5, other = state.read(path.with_name(path.name + ".h5"))
    assert (hdf5.iter, hdf5.current_step) == (binary.iter, binary.current_step)
    assert hdf5.learned_net == binary.learned_net + ".h5"
    for one, two in zip(history, other, strict=True):
        np.testing.assert_array_equal(one, two, strict=True)
    state.write(tmp_path / "s", binary, history)
    assert (tmp_path / "s").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("write", [state.write, state.write_hdf5])
def test_what_is_written_is_read_again(tmp_path, write):
    write(tmp_path / "s", example(), HISTORY)
    message, history = state.read(tmp_path / "s")
    assert message == example()
    for one, two in zip(history, HISTORY, strict=True):
        np.testing.assert_array_equal(one, two, strict=True)


def test_hdf5_is_laid_out_as_caffe_does(tmp_path):
    path = shared("golden", "solvers", "adam_plain", "snap_iter_15.solverstate.h5")
    message, history = state.read(path)
    state.write_hdf5(tmp_path / "s", message, history)
    with h5py.File(path) as theirs, h5py.File(tmp_path / "s") as ours:
        assert set(ours) == set(theirs)
        for name in ("iter", "current_step", "learned_net", "history/0"):
            assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape), name


def test_a_state_given_as_weights(tmp_path):
    for write, name in ((state.write, "s.solverstate"), (state.write_hdf5, "s.solverstate.h5")):
        write(tmp_path / name, example(), HISTORY)
        with pytest.raises(FileError, match=f"{name}: is a solver state .* use -snapshot; the weights are in"):
            weights.read(tmp_path / name)


def test_a_cut_off_state(tmp_path):
    state.write(tmp_path / "s", example(), HISTORY)
    with (tmp_path / "s").open("r+b") as file:
        file.truncate(50)
    with pytest.raises(FileError, match="s: is cut off: it has 50 bytes and lacks"):
        state.read(tmp_path / "s")
