"""Typical uses of a solver in pycaffe scripts."""

from __future__ import annotations

import numpy as np
import pytest

import caffe

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 5 dim: 3 } shape { dim: 5 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "l2" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "l2" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 3 momentum: 0.9 max_iter: 8
test_iter: 1 test_interval: 100 test_initialization: false snapshot_prefix: "snap"
"""


@pytest.fixture
def solver(tmp_path, monkeypatch):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    made = caffe.SGDSolver("solver.prototxt")
    rng = np.random.default_rng(3)
    for net in (made.net, *made.test_nets):
        net.blobs["data"].data[...] = rng.normal(size=(5, 3))
        net.blobs["label"].data[...] = rng.normal(size=(5, 2))
    return made


def test_step_callbacks_and_rate(solver):
    calls = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("ready"))
    weights = solver.net.params["ip"][0].data
    before = weights.copy()
    solver.step(1)
    assert (solver.iter, calls) == (1, ["start", "ready"])
    np.testing.assert_allclose(before - weights, solver.net.params["ip"][0].diff, rtol=1e-5, atol=1e-7)
    solver.step(3)
    assert calls == ["start", "ready"] * 4
    assert solver.lr == pytest.approx(0.05)
    assert solver.param.max_iter == 8
    solver.solve()
    assert solver.iter == 8


def test_snapshot_and_restore(solver):
    solver.step(5)
    solver.snapshot()
    saved = solver.net.params["ip"][0].data.copy()
    solver.step(2)
    after = solver.net.params["ip"][0].data.copy()
    solver.restore("snap_iter_5.solverstate")
    assert solver.iter == 5
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, saved)
    solver.step(2)
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, after)


def test_a_step_by_hand(solver):
    twin = caffe.get_solver("solver.prototxt")
    assert type(twin) is caffe.SGDSolver
    for name in ("data", "label"):
        twin.net.blobs[name].data[...] = solver.net.blobs[name].data
    solver.step(2)
    for _ in range(2):
        twin.net.clear_param_diffs()
        twin.net.forward()
        twin.net.backward()
        twin.apply_update()
    assert twin.iter == 2
    np.testing.assert_allclose(twin.net.params["ip"][0].data, solver.net.params["ip"][0].data, rtol=1e-6)
    twin.share_weights(solver.test_nets[0])
    solver.test_nets[0].params["ip"][0].data[...] = 7
    assert (twin.net.params["ip"][0].data == 7).all()


@pytest.mark.parametrize("name", ["Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_solvers_by_class(solver, name):
    cls = getattr(caffe, f"{name}Solver")
    assert issubclass(cls, caffe.SGDSolver)
    if name in ("Nesterov", "Adam"):
        made = cls("solver.prototxt")
        assert made.param.type == name
        made.step(1)
        assert made.iter == 1
