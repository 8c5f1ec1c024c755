"""Invalid settings are errors that name their line, questionable settings give a warning, and a run with NaN stops."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from caffe.cli import main
from caffe.errors import SolverError
from caffe.solver import get_solver
from tests.solver import small


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)


def write_solver(more: str = "", *without: str) -> None:
    """Write the solver's file with one setting per line."""
    text = re.sub(r" (?=\w+:)", "\n", small.SOLVER)
    kept = [line for line in text.split("\n") if line.partition(":")[0] not in without]
    Path("solver.prototxt").write_text("\n".join([*kept, more, ""]))


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        ("display: -1", "display is -1, expected 0 or more"),
        ("snapshot: -5", "snapshot is -5, expected 0 or more"),
        ("test_interval: -1", "test_interval is -1, expected 0 or more"),
        ("max_iter: -1", "max_iter is -1, expected 0 or more"),
        ("stepsize: -1", "stepsize is -1, expected 0 or more"),
        ("stepvalue: -1", "stepvalue is -1, expected 0 or more"),
        ("delta: -1e-8", "delta is -1e-08, expected 0 or more"),
        ("device_id: -1", "device_id is -1, expected 0 or more"),
        ("nan_patience: -1", "nan_patience is -1, expected 0 or more"),
        ("base_lr: nan", "base_lr is nan, expected a finite number"),
        ("weight_decay: inf", "weight_decay is inf, expected a finite number"),
        ("test_interval: 1 test_iter: -1", "test_iter is -1, expected 0 or more"),
        ("iter_size: 0", "iter_size is 0, expected at least 1"),
        ('type: "AdaDelta" momentum: 1.5', "momentum is 1.5, expected at least 0 and below 1"),
        ('type: "Adam" momentum2: 1', "momentum2 is 1, expected at least 0 and below 1"),
        ('type: "RMSProp" momentum: 0 rms_decay: 1.2', "rms_decay is 1.2, expected at least 0 and below 1"),
        ('lr_policy: "step" stepsize: 0', "stepsize is 0, expected a number above 0"),
    ],
)
def test_what_means_nothing_is_one_error_with_its_line(more, fact, capfd):
    write_solver(more, *re.findall(r"(\w+):", more))
    number = len(Path("solver.prototxt").read_text().split("\n")) - 1
    assert main(["train", "-solver", "solver.prototxt", "-minloglevel", "2"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"caffe: error: solver.prototxt:{number}: ")
    assert fact in line


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        ("base_lr: -1", "base_lr is -1, below 0"),
        ("momentum: 1.5", "momentum is 1.5, expected below 1"),
        ("momentum: -0.9", "momentum is -0.9, below 0"),
        ("weight_decay: -0.1", "weight_decay is -0.1, below 0"),
        ("clip_gradients: 0", "clip_gradients is 0: all gradients become 0"),
        ('type: "AdaGrad" momentum: 0 delta: 0', "delta is 0: a weight whose gradient is 0 becomes NaN"),
        ("test_iter: 0 test_interval: 1", "test_iter is 0: the tests of test net #0 run no batch"),
        ('lr_policy: "step" stepsize: 1', "gamma is 0 (not set): the rate"),
        ('lr_policy: "exp" gamma: 1.1', "gamma is 1.1, above 1: the rate"),
        ('lr_policy: "inv" power: 1', "gamma is 0 (not set): the rate"),
        ('lr_policy: "poly"', "power is 0 (not set): the rate"),
        ('lr_policy: "poly" power: -1', "power is -1, below 0: the rate"),
        (
            'lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 3',
            "stepvalue is [5, 3], expected in ascending order",
        ),
    ],
)
def test_what_is_unwise_is_warned_of_in_advance(more, fact, caplog):
    get_solver(small.param(more))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert fact in warning


def test_a_warning_names_the_line(caplog):
    write_solver("momentum: 1.5", "momentum")
    number = len(Path("solver.prototxt").read_text().split("\n")) - 1
    get_solver("solver.prototxt")
    assert f"solver.prototxt:{number}: momentum is 1.5" in caplog.text


def test_usual_settings_are_not_warned_of(caplog):
    get_solver(small.param("display: 1 test_iter: 2 test_interval: 3 clip_gradients: 5"))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- a run that is NaN ---------------------------------------------------------------------------------------------


def spoil(solver, at: int, good_again: int = 10**9) -> None:
    """Set weights to NaN from iteration `at` on."""
    weights = solver.net.params["ip2"][0]
    first = weights.data.copy()

    def before() -> None:
        if solver.iter == at:
            weights.data[...] = np.nan
        elif solver.iter == good_again:
            for blobs in solver.net.params.values():
                for blob in blobs:
                    blob.data[...] = 0.01
            weights.data[...] = first
            for history in solver.history:
                history.zero_()

    solver.add_callback(before, lambda: None)


def test_a_run_that_stays_nan_stops_and_names_the_last_good_snapshot():
    solver = get_solver(small.param("max_iter: 1000 snapshot: 2 nan_patience: 4"))
    spoil(solver, 3)
    with pytest.raises(SolverError, match=r"Iteration 6: the loss is nan, as in all of the last 4 iterations") as error:
        solver.solve()
    assert "last good snapshot is snap_iter_2.solverstate" in str(error.value)
    assert sorted(path.name for path in Path().glob("snap_iter_*")) == [
        "snap_iter_2.caffemodel",
        "snap_iter_2.solverstate",
    ]


def test_a_run_that_recovers_is_not_stopped():
    solver = get_solver(small.param("max_iter: 20 nan_patience: 3"))
    spoil(solver, 3, good_again=5)
    solver.solve()
    assert solver.iter == 20


def test_patience_of_0_is_without_end(caplog):
    solver = get_solver(small.param("max_iter: 30 nan_patience: 0 snapshot_after_train: true"))
    spoil(solver, 3)
    solver.solve()
    assert solver.iter == 30
    assert 'Iteration 30: no snapshot, as weights of layer "ip1" are NaN' in caplog.text
    assert "There is no good snapshot of this run" in caplog.text
    assert list(Path().glob("snap_iter_*")) == []


def test_weights_that_are_nan_do_not_take_the_place_of_good_ones():
    solver = get_solver(small.param())
    solver.snapshot()
    before = Path("snap_iter_0.caffemodel").read_bytes()
    solver.net.params["ip2"][0].data[...] = np.nan
    with pytest.raises(SolverError, match=r"snap_iter_0.caffemodel exists; it is not overwritten"):
        solver.snapshot()
    assert Path("snap_iter_0.caffemodel").read_bytes() == before


@pytest.mark.parametrize(("flags", "code"), [([], 1), (["-nan", "stop"], 1), (["-nan", "warn"], 0)])
def test_flag_nan(flags, code, capfd):
    write_solver("base_lr: 1e30 max_iter: 20", "base_lr", "max_iter")
    assert main(["train", "-solver", "solver.prototxt", *flags]) == code
    assert ("training stops, without a snapshot" in capfd.readouterr().err) == bool(code)


def test_flag_nan_of_another_value(capfd):
    write_solver()
    assert main(["train", "-solver", "solver.prototxt", "-nan", "stpo"]) == 1
    assert 'expected stop or warn; did you mean "stop"?' in capfd.readouterr().err


def test_a_mean_without_memory_is_no_mistake():
    solver = get_solver(small.param('type: "AdaDelta" momentum: 0 delta: 1e-3'))
    solver.step(1)
    assert np.isfinite(solver.net.learnable[0].tensor.detach().numpy()).all()
