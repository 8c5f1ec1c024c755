"""Tests that a program runs during training do not change the training, nor does an error in the middle of a step."""

import contextlib
import errno
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caffe.errors import DataError, NetError, SolverError
from caffe.net import Net
from caffe.proto import caffe_pb2, files, state, text, weights
from caffe.solver import Watcher, get_solver
from caffe.solver.statistics import recompute
from tests.solver import damage, small


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    return tmp_path


BUSY = """
layer { name: "x" type: "DummyData" top: "x" top: "cont" include { phase: TRAIN } dummy_data_param {
  shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "x" type: "HDF5Data" top: "x" top: "cont" include { phase: TEST }
  hdf5_data_param { source: "x.txt" batch_size: 3 } }
layer { name: "noise" type: "DummyData" top: "noise" dummy_data_param {
  shape { dim: 3 dim: 2 dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "noise" top: "sum" }
layer { name: "bn" type: "BatchNorm" bottom: "sum" top: "bn" batch_norm_param { use_global_stats: false } }
layer { name: "h" type: "LSTM" bottom: "bn" bottom: "cont" top: "h"
  recurrent_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "l" type: "Reduction" bottom: "h" top: "l" loss_weight: 1 reduction_param { operation: SUMSQ } }
"""


def busy():
    """Return a solver whose tests draw random numbers, read data, and change hidden states and statistics."""
    with h5py.File("x.h5", "w") as file:
        file["x"], file["cont"] = np.random.default_rng(3).standard_normal((11, 2, 4)), np.ones((11, 2))
    Path("x.txt").write_text("x.h5\n")
    param = small.param('ema_decay: 0.5 lr_policy: "plateau" patience: 0 threshold: 0.1 test_iter: 2 test_interval: 2')
    param.ClearField("net")
    text.parse(BUSY, param.net_param)
    return get_solver(param)


def test_a_test_that_the_program_asks_for_changes_nothing():
    solver = busy()
    solver.step(3)
    before = damage.fingerprint(solver)
    first = solver.test(0)
    solver.test_all()
    assert solver.test(0) == first
    assert solver.lr == before["iter"][2]
    assert damage.fingerprint(solver) == before


def test_training_continues_as_without_the_tests_of_the_program():
    def heard(solver, ask):
        results, watcher = [], Watcher()
        watcher.tested = lambda solver, iteration, index, outputs: results.append((iteration, outputs))
        solver.watchers.append(watcher)
        for _ in range(6):
            ask(solver)
            solver.step(1)
        return results

    quiet = busy()
    expected = heard(quiet, lambda solver: None)
    generator = torch.get_rng_state()
    asked = busy()
    got = heard(asked, lambda solver: solver.test(0))
    assert len(got) == 3
    assert got == expected
    assert torch.equal(torch.get_rng_state(), generator)
    assert asked.policy.memory() == quiet.policy.memory()
    for mine, theirs in zip(asked.net.learnable, quiet.net.learnable, strict=True):
        assert torch.equal(mine.tensor, theirs.tensor)


def test_requests_wait_while_the_program_tests(folder):
    solver = get_solver(small.param("test_iter: 2 test_interval: 50 test_initialization: false"))
    solver.request("stop")
    solver.request("snapshot")
    assert solver.test(0)["loss"]
    assert not list(folder.glob("*.solverstate"))
    solver.step(5)
    assert solver.iter == 1
    assert (folder / "snap_iter_1.solverstate").exists()
    shown = []
    solver.test_nets[0].evaluate = lambda: shown.append(0) or 0.0
    solver.test_all()
    assert len(shown) == 2, "a solver that was stopped can be tested"


def test_an_error_in_a_test_that_the_program_asks_for():
    solver = busy()
    solver.step(3)
    before, run, calls = damage.fingerprint(solver), solver.test_nets[0].evaluate, []

    def fail():
        calls.append(run())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return calls[-1]

    solver.test_nets[0].evaluate = fail
    with pytest.raises(KeyboardInterrupt):
        solver.test(0)
    assert damage.fingerprint(solver) == before


# -- errors in the middle ------------------------------------------------------------------------------------------


def test_an_error_in_an_iteration_leaves_weights_and_state():
    solver = get_solver(small.param('lr_policy: "multistep" stepvalue: 2 gamma: 0.5'))
    solver.step(2)

    def fail():
        raise ValueError("not yet")

    solver.add_callback(lambda: None, fail)
    names = ("iter", "weights", "history", "policy")
    before = damage.fingerprint(solver)
    with pytest.raises(ValueError, match="not yet"):
        solver.step(1)
    after = damage.fingerprint(solver)
    assert [after[name] for name in names] == [before[name] for name in names]
    solver._callbacks.clear()
    solver.step(1)
    assert (solver.iter, solver.current_step) == (3, 1)


def test_a_rate_that_is_no_number_leaves_the_steps():
    solver = get_solver(small.param('lr_policy: "step" stepsize: 1 gamma: 1e38'))
    solver.iter = 10
    with pytest.raises(SolverError, match="gives a rate of inf"):
        solver.step(1)
    assert (solver.iter, solver.current_step) == (10, 0)


def test_a_line_search_that_is_interrupted_gives_the_weights_back():
    param = small.param()
    param.ClearField("net")
    param.type, param.momentum, param.base_lr, param.weight_decay = "LBFGS", 0, 1, 0
    text.parse(
        """
        layer { name: "a" type: "Parameter" top: "a" parameter_param { shape { dim: 2 } } }
        layer { name: "b" type: "Power" bottom: "a" top: "b" power_param { shift: -3 power: 4 } }
        layer { name: "l" type: "Reduction" bottom: "b" top: "l" loss_weight: 1 }
        """,
        param.net_param,
    )
    solver = get_solver(param)
    solver.step(1)
    before, run, calls = damage.fingerprint(solver), solver.net.forward_backward, []

    def fail():
        calls.append(run())
        if len(calls) == 2:
            raise DataError("no more records")
        return calls[-1]

    solver.net.forward_backward = fail
    with pytest.raises(DataError):
        solver.step(1)
    after = damage.fingerprint(solver)
    assert [after[name] for name in ("iter", "weights", "rule")] == [
        before[name] for name in ("iter", "weights", "rule")
    ]


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_state_that_is_not_written_leaves_the_pair_of_the_same_iteration(form, folder, monkeypatch):
    """An existing state file keeps the weight file that belongs to it."""
    solver = get_solver(small.param(f"snapshot_format: {form}"))
    solver.step(1)
    solver.snapshot()
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = get_solver(small.param(f"snapshot_format: {form} base_lr: 0.5"))
    other.step(1)

    def fail(path, *rest):
        with files.atomic(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "write_hdf5" if form == "HDF5" else "write", fail)
    with pytest.raises(SolverError, match=r"No space left on device.*earlier snapshots are intact"):
        other.snapshot()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


def test_a_file_system_without_links(folder, monkeypatch):
    (folder / "a").write_text("old")

    def refuse(*names):
        raise PermissionError("no links here")

    monkeypatch.setattr(files.os, "link", refuse)
    with contextlib.suppress(KeyError), files.put_back("a"):
        (folder / "a").write_text("new")
        raise KeyError
    assert (folder / "a").read_text() == "old"
    with files.put_back("a"):
        (folder / "a").write_text("new")
    assert (folder / "a").read_text() == "new"
    assert not list(folder.glob(".a*"))


AVERAGED = "ema_decay: 0.5 test_iter: 2 test_interval: 2"


def test_an_exchange_of_weights_that_is_interrupted(monkeypatch):
    """The interruption is between two blobs. Blobs that were already exchanged are exchanged back."""
    solver = get_solver(small.param(AVERAGED))
    solver.step(3)
    before, calls = damage.fingerprint(solver), []

    def interrupt(blob):
        calls.append(blob)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("caffe.blob.ParamBlob.advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        solver.test(0)
    monkeypatch.undo()
    assert damage.fingerprint(solver) == before


def test_tests_and_averages_inside_each_other():
    solver = get_solver(small.param(AVERAGED))
    solver.step(3)
    before, mean = damage.fingerprint(solver), [tensor.clone() for tensor in solver.average.tensors]
    inner = []

    def look(_):
        if not inner:
            inner.append(None)
            solver.save_average("mean.caffemodel")
            inner[0] = solver.test(0)

    solver.test_nets[0].callbacks["before_forward"].append(look)
    outer = solver.test(0)
    assert inner[0] == outer
    np.testing.assert_array_equal(weights.read("mean.caffemodel")["ip1"][0], mean[0])
    assert damage.fingerprint(solver) == before


def test_a_watcher_of_tests_sees_the_weights_in_training():
    solver, seen, watcher = get_solver(small.param(AVERAGED)), [], Watcher()
    watcher.tested = lambda solver, *result: seen.append(solver.net.params["ip1"][0].data.copy())
    solver.watchers.append(watcher)
    solver.step(2)
    own = solver.net.params["ip1"][0].data.copy()
    solver.step(1)
    np.testing.assert_array_equal(seen[1], own)


def test_keeping_the_statistics_of_one_layer_does_not_change_the_others():
    param = text.parse(
        """
        layer { name: "x" type: "DummyData" top: "x" dummy_data_param {
          shape { dim: 4 dim: 3 } data_filler { type: "gaussian" } } }
        layer { name: "a" type: "BatchNorm" bottom: "x" top: "a" }
        layer { name: "b" type: "BatchNorm" bottom: "a" top: "b" batch_norm_param { use_global_stats: true } }
        """,
        caffe_pb2.NetParameter(),
    )
    net = Net(param, caffe_pb2.TRAIN)
    net.forward()
    before = [blob.data.copy() for blob in net.params["a"]]
    with pytest.raises(NetError, match=r'layer "b" .*has fixed statistics'):
        recompute(net, 2)
    for blob, value in zip(net.params["a"], before, strict=True):
        np.testing.assert_array_equal(blob.data, value)
