"""After an update, the diff of a blob is the amount that was subtracted from its data, for any access."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 5 dim: 3 } shape { dim: 5 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


@pytest.fixture
def solver() -> caffe.SGDSolver:
    param = text.parse(
        'base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 1 momentum: 0.9 random_seed: 1 '
        "snapshot_after_train: false",
        caffe_pb2.SolverParameter(),
    )
    param.net_param.CopyFrom(text.parse(NET, caffe_pb2.NetParameter()))
    made = caffe.get_solver(param)
    rng = np.random.default_rng(3)
    for name in ("x", "t"):
        made.net.blobs[name].data[...] = rng.standard_normal(made.net.blobs[name].shape)
    return made


def moved(solver: caffe.SGDSolver, steps: int = 1) -> np.ndarray:
    before = solver.net.params["ip"][0].data.copy()
    solver.step(steps)
    return before - solver.net.params["ip"][0].data


def test_the_diff_is_what_was_subtracted(solver):
    for _ in range(3):
        amount = moved(solver)
        np.testing.assert_allclose(solver.net.params["ip"][0].diff, amount, rtol=1e-4, atol=1e-7)


def test_a_held_diff_follows(solver):
    view = solver.net.params["ip"][0].diff
    for _ in range(2):
        amount = moved(solver)
        np.testing.assert_allclose(view, amount, rtol=1e-4, atol=1e-7)


def test_a_diff_read_late_is_that_of_the_last_update(solver):
    moved(solver, 2)
    amount = moved(solver)
    view = solver.net.params["ip"][0].diff
    np.testing.assert_allclose(view, amount, rtol=1e-4, atol=1e-7)
    view[...] = 7
    assert (solver.history[0].numpy() != 7).all(), "writing to the diff leaves the history alone"


@pytest.mark.parametrize("fused", [True, False], ids=["one piece", "layer by layer"])
def test_gradients_add_to_it_until_it_is_cleared(solver, fused):
    amount = moved(solver)
    net = solver.net
    if fused:
        net.forward_backward()
    else:
        net.forward()
        net.backward()
    both = net.params["ip"][0].diff.copy()
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()
    net.forward_backward()
    np.testing.assert_allclose(both, amount + net.params["ip"][0].diff, rtol=1e-4, atol=1e-6)


def test_restoring_a_snapshot_leaves_it(solver, tmp_path):
    solver.param.snapshot_prefix = str(tmp_path / "s")
    moved(solver)
    state = solver.snapshot()
    amount = moved(solver)
    solver.restore(state)
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, amount, rtol=1e-4, atol=1e-7)
