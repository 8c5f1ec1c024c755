"""Training in a 16-bit precision: float32 weights, the same files, the same options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import NetError, SolverError
from caffe.net.plan.loss_scale import LossScale
from caffe.proto import weights
from caffe.solver import get_solver
from tests.solver import small

LOW = "precision: BFLOAT16 "


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)


def solver_of(more: str = "", drop: bool = False) -> caffe.SGDSolver:
    """Return the small net's solver, without Dropout unless `drop` is set, because Dropout draws other numbers in 16
    bits.
    """
    param = small.param(more)
    if not drop:
        lines = Path(param.net).read_text().splitlines()
        param.net = "plain.prototxt"
        Path(param.net).write_text("\n".join(line for line in lines if "Dropout" not in line))
    return get_solver(param)


def data_of(solver: caffe.SGDSolver) -> list[np.ndarray]:
    return [entry.tensor.detach().numpy().copy() for entry in solver.net.learnable]


@pytest.mark.parametrize(
    "more",
    ["", "iter_size: 3", "clip_gradients: 0.1", 'type: "Adam" momentum: 0.9', "ema_decay: 0.9", 'type: "Nesterov"'],
)
def test_training_follows_float32(more):
    low, exact = solver_of(LOW + more), solver_of(more)
    start = data_of(exact)
    for solver in (low, exact):
        solver.step(6)
    assert low.net.precision == torch.bfloat16
    for mine, expected, first in zip(data_of(low), data_of(exact), start, strict=True):
        assert mine.dtype == np.float32
        assert np.linalg.norm(mine - expected) <= 0.1 * np.linalg.norm(expected - first)


def test_steps_too_small_for_16_bits_add_up():
    low, exact = (solver_of(f"{more} base_lr: 1e-5 momentum: 0 weight_decay: 0") for more in (LOW, ""))
    start = data_of(exact)
    for solver in (low, exact):
        solver.step(20)
    moved = np.concatenate([(b - a).ravel() for a, b in zip(start, data_of(low), strict=True)])
    expected = np.concatenate([(b - a).ravel() for a, b in zip(start, data_of(exact), strict=True)])
    size = np.abs(np.concatenate([array.ravel() for array in start]))
    assert np.median(np.abs(expected)[size > 0] / size[size > 0]) < 2**-9, "below the resolution of bfloat16"
    assert np.linalg.norm(moved - expected) < 0.1 * np.linalg.norm(expected)


def test_a_resumed_run_equals_an_uninterrupted_run():
    whole = solver_of(LOW, drop=True)
    whole.step(6)
    first = solver_of(LOW, drop=True)
    first.step(3)
    state = first.snapshot()
    second = solver_of(LOW, drop=True)
    second.restore(state)
    second.step(3)
    for mine, expected in zip(data_of(second), data_of(whole), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_snapshots_are_those_of_float32():
    low = solver_of(LOW)
    low.step(2)
    low.snapshot()
    stored = weights.read("snap_iter_2.caffemodel")
    for name, blobs in low.net.params.items():
        for array, blob in zip(stored[name], blobs, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, blob.data)
    exact = solver_of()
    exact.restore("snap_iter_2.solverstate")
    assert exact.iter == 2


def test_test_nets_run_in_it_too():
    low = solver_of(LOW + "test_iter: 4 test_interval: 100")
    exact = solver_of("test_iter: 4 test_interval: 100")
    assert low.test_nets[0].precision == torch.bfloat16
    before = low.test()["loss"]
    assert before == pytest.approx(exact.test()["loss"], rel=0.02)
    assert low.test_nets[0].blobs["loss"].data.dtype == np.float32
    low.step(6)
    exact.step(6)
    after = low.test()["loss"]
    assert after == pytest.approx(exact.test()["loss"], rel=0.05)
    assert after != pytest.approx(before, rel=1e-3), "the weights are rounded anew after training"


def test_what_needs_exact_losses_is_refused():
    with pytest.raises(SolverError, match=r'"LBFGS": compares losses.* remove precision'):
        solver_of(LOW + 'type: "LBFGS" momentum: 0')


def test_float16_needs_a_gpu():
    with pytest.raises(NetError, match="FLOAT16 needs a GPU"):
        solver_of("precision: FLOAT16")


# -- float16, which is enabled on the CPU only for these tests ---------------------------------------------------------


def test_float16_follows_float32(monkeypatch):
    monkeypatch.setattr("caffe.net.net.check_precision", lambda *_: None)
    low, exact = (
        solver_of("precision: FLOAT16 iter_size: 2 clip_gradients: 0.5"),
        solver_of("iter_size: 2 clip_gradients: 0.5"),
    )
    start = data_of(exact)
    for solver in (low, exact):
        solver.step(6)
    assert low.net.loss_scale.good == 6
    for mine, expected, first in zip(data_of(low), data_of(exact), start, strict=True):
        assert np.linalg.norm(mine - expected) <= 0.02 * np.linalg.norm(expected - first)


def scaled(more: str = "") -> caffe.SGDSolver:
    """Return a solver with a loss scale."""
    solver = solver_of(more)
    solver.net.loss_scale = LossScale()
    return solver


def test_an_update_that_overflowed_is_left_out():
    solver = scaled("clip_gradients: 1 ema_decay: 0.5")
    overflow: list[int] = []

    def spoil() -> None:
        if solver.iter in overflow:
            solver.net.learnable[0].tensor.grad[0] = float("inf")

    solver.add_callback(lambda: None, spoil)
    solver.step(1)
    before, history = data_of(solver), [tensor.clone() for tensor in solver.history]
    overflow.append(1)
    solver.step(1)
    assert (solver.iter, solver.net.loss_scale.value) == (2, 2.0**15)
    for mine, expected in zip(data_of(solver), before, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert all(torch.equal(mine, kept) for mine, kept in zip(solver.history, history, strict=True))
    solver.step(1)
    assert any((mine != old).any() for mine, old in zip(data_of(solver), before, strict=True))


def test_the_scale_is_in_the_snapshot():
    solver = scaled()
    solver.net.loss_scale.recall({"value": 512.0, "good": 7})
    solver.step(1)
    state = solver.snapshot()
    other = scaled()
    other.restore(state)
    assert other.net.loss_scale.memory() == {"value": 512.0, "good": 8}
    plain = solver_of()
    plain.restore(state)
    again = scaled()
    again.restore(plain.snapshot())
    assert again.net.loss_scale.memory() == LossScale().memory()
