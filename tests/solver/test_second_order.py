"""L-BFGS, BFGS and Newton's method: their minima, the comparison with torch.optim, and errors for invalid options."""

import h5py
import numpy as np
import pytest
import torch

from caffe.errors import SolverError
from caffe.proto import caffe_pb2, text
from caffe.solver import get_solver, rule_types, second_order
from caffe.solver.rules import rule_class
from tests.solver import small

KINDS = ("BFGS", "LBFGS", "Newton")
ALL = pytest.mark.parametrize("kind", KINDS)

VALLEY = """
name: "Rosenbrock's valley"
layer { name: "a" type: "Parameter" top: "a" parameter_param { shape { dim: 1 } } }
layer { name: "b" type: "Parameter" top: "b" parameter_param { shape { dim: 1 } } }
layer { name: "1-a" type: "Power" bottom: "a" top: "1-a" power_param { scale: -1 shift: 1 } }
layer { name: "aa" type: "Power" bottom: "a" top: "aa" power_param { power: 2 } }
layer { name: "b-aa" type: "Eltwise" bottom: "b" bottom: "aa" top: "b-aa" eltwise_param { coeff: 1 coeff: -1 } }
layer { name: "near" type: "Reduction" bottom: "1-a" top: "near" loss_weight: 1 reduction_param { operation: SUMSQ } }
layer { name: "floor" type: "Reduction" bottom: "b-aa" top: "floor" loss_weight: 100
  reduction_param { operation: SUMSQ } }
"""
LINE = """
name: "line"
layer { name: "data" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "line.txt" batch_size: %d } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" %s
  inner_product_param { num_output: 2 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = 'base_lr: 1 lr_policy: "fixed" snapshot_prefix: "s" random_seed: 3 snapshot_after_train: false '
ROWS = 21


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    rng = np.random.default_rng(7)
    with h5py.File("line.h5", "w") as file:
        file["x"] = (rng.standard_normal((ROWS, 5)) * [1, 3, 0.5, 1, 4]).astype(np.float32)
        file["y"] = rng.standard_normal((ROWS, 2)).astype(np.float32)
    (tmp_path / "line.txt").write_text("line.h5\n")
    return tmp_path


def make(kind, net, more=""):
    param = text.parse(f'type: "{kind}" {SOLVER} {more}', caffe_pb2.SolverParameter())
    text.parse(net, param.net_param)
    return get_solver(param)


def valley(kind, more=""):
    """Return a solver for Rosenbrock's function that starts at the usual point (-1.2, 1)."""
    solver = make(kind, VALLEY, more)
    solver.net.params["a"][0].data[...] = -1.2
    solver.net.params["b"][0].data[...] = 1
    return solver


def line(kind, more="", batch=ROWS, spec=""):
    return make(kind, LINE % (batch, spec), more)


def least_squares(decay=0.0):
    """Return the minimum of |X w + b - y|^2 / 2N + decay (|w|^2 + |b|^2) / 2 in closed form: w (2, 5) and b (2)."""
    with h5py.File("line.h5") as file:
        x, y = np.hstack([file["x"][()], np.ones((ROWS, 1))]).astype(np.float64), file["y"][()].astype(np.float64)
    w = np.linalg.solve(x.T @ x / ROWS + decay * np.eye(6), x.T @ y / ROWS).T
    return w[:, :5], w[:, 5]


def assert_at_minimum(solver, decay=0.0):
    for blob, expected in zip(solver.net.params["ip"], least_squares(decay), strict=True):
        np.testing.assert_allclose(blob.data, expected, rtol=1e-3, atol=1e-4)


def test_every_rule_is_tested():
    assert sorted(KINDS) == [kind for kind in rule_types() if rule_class(kind).__module__ == second_order.__name__]


@pytest.mark.parametrize(("kind", "iterations"), [("LBFGS", 45), ("BFGS", 45), ("Newton", 25)])
def test_rosenbrock(kind, iterations):
    """Plain gradient descent needs thousands of steps here."""
    solver = valley(kind)
    solver.step(iterations)
    assert solver.net.params["a"][0].data == pytest.approx(1, abs=1e-3)
    assert solver.net.params["b"][0].data == pytest.approx(1, abs=1e-3)


@ALL
@pytest.mark.parametrize("decay", [0, 0.125])
def test_least_squares(kind, decay):
    solver = line(kind, f"weight_decay: {decay}")
    solver.step(2 if kind == "Newton" else 40)
    assert_at_minimum(solver, decay)


def test_lbfgs_is_the_one_of_torch():
    """The losses of the first steps on Rosenbrock's function are equal; later ones differ by float32 rounding."""
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], max_iter=1, max_eval=99, history_size=10, line_search_fn="strong_wolfe")
    expected = []

    def closure():
        optimizer.zero_grad()
        loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
        expected.append(float(closure().detach()))
    solver, found = valley("LBFGS"), []
    for _ in range(10):
        solver.step(1)
        found.append(solver.net.forward_loss())
    assert found == pytest.approx(expected, rel=2e-3)


@ALL
def test_full_batch_in_parts(kind):
    """iter_size batches that together are the whole data set give the same result as one batch."""
    solver = line(kind, "iter_size: 3 weight_decay: 0.125", batch=7)
    solver.step(3 if kind == "Newton" else 60)
    assert_at_minimum(solver, 0.125)


@ALL
def test_a_frozen_blob_stays(kind, caplog):
    solver = line(kind, spec="param { lr_mult: 1 } param { lr_mult: 0 }")
    solver.net.params["ip"][1].data[...] = 0.25
    solver.step(3)
    assert (solver.net.params["ip"][1].data == 0.25).all()
    assert (solver.net.params["ip"][0].data != 0.5).all()
    assert "lr_mult" not in caplog.text
    line(kind, spec="param { lr_mult: 1 } param { lr_mult: 2 }")
    assert 'lr_mult 2 of layer "ip" counts as 1' in caplog.text


@ALL
def test_diffs_hold_what_was_subtracted(kind):
    solver = line(kind)
    before = [blob.data.copy() for blob in solver.net.params["ip"]]
    solver.step(1)
    for blob, old in zip(solver.net.params["ip"], before, strict=True):
        np.testing.assert_allclose(old - blob.data, blob.diff, rtol=1e-5, atol=1e-6)
        assert np.abs(blob.diff).max() > 0


@ALL
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_resumed_run_equals_unbroken_run(kind, form):
    more = f"lbfgs_memory: 3 snapshot_format: {form}" if kind == "LBFGS" else f"snapshot_format: {form}"
    unbroken = valley(kind, more)
    unbroken.step(6)
    path = unbroken.snapshot()
    unbroken.step(5)
    resumed = valley(kind, more)
    resumed.step(2)
    resumed.restore(path)
    resumed.step(5)
    for mine, theirs in zip(resumed.net.learnable, unbroken.net.learnable, strict=True):
        assert torch.equal(mine.tensor, theirs.tensor)
    assert resumed.rule.memory().keys() == unbroken.rule.memory().keys()


def test_newton_leaves_a_saddle():
    """The loss is a^2 / 2 - b^2 / 2, from (1, 1/8).

    Newton's method without a change would end at the saddle point 0; here b moves away from it.
    """
    net = VALLEY[: VALLEY.index('layer { name: "1-a"')]
    for name, weight in (("a", 0.5), ("b", -0.5)):
        net += f"""layer {{ name: "{name}2" type: "Reduction" bottom: "{name}" top: "{name}2" loss_weight: {weight}
                   reduction_param {{ operation: SUMSQ }} }}"""
    solver = make("Newton", net)
    solver.net.params["a"][0].data[...], solver.net.params["b"][0].data[...] = 1, 0.125
    solver.step(1)
    assert solver.net.params["a"][0].data == pytest.approx(0, abs=1e-3)
    assert solver.net.params["b"][0].data == pytest.approx(0.25, abs=1e-3)


@ALL
def test_at_the_minimum_nothing_moves(kind):
    solver = valley(kind)
    for name in "ab":
        solver.net.params[name][0].data[...] = 1
    solver.step(2)
    assert solver.net.params["a"][0].data == solver.net.params["b"][0].data == 1


@ALL
def test_a_loss_that_is_no_number_is_not_accepted(kind):
    """log(w) decreases towards 0 and is not defined below it. The line search stays above 0."""
    net = """layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 1 } } }
             layer { name: "log" type: "Log" bottom: "w" top: "log" loss_weight: 1 }"""
    solver = make(kind, net)
    solver.net.params["w"][0].data[...] = 3
    solver.step(4)
    assert 0 < solver.net.params["w"][0].data < 3


# -- what is refused -----------------------------------------------------------------------------------------------


def test_dropout_and_shuffling_are_refused():
    solver = get_solver(small.param('type: "LBFGS" momentum: 0'))
    before = [entry.tensor.detach().clone() for entry in solver.net.learnable]
    with pytest.raises(SolverError, match=r'the net is stochastic. .* see "drop" \(Dropout\), "data" \(HDF5Data\)'):
        solver.step(1)
    assert all(map(torch.equal, before, [entry.tensor for entry in solver.net.learnable]))


@ALL
def test_mini_batches_are_refused(kind):
    with pytest.raises(SolverError, match=f'type "{kind}": two passes at the same weights gave gradients that differ'):
        line(kind, batch=5).step(1)


def test_preconditions():
    for more, message in (
        ("momentum: 0.9", r"cannot be used with momentum \(0.9\)"),
        ("clip_gradients: 3", "remove clip_gradients"),
        ('weight_decay: 0.1 regularization_type: "L1"', "needs a smooth loss"),
        ("max_evaluations: 0", "max_evaluations is 0"),
        ("lbfgs_memory: 0", "lbfgs_memory is 0"),
    ):
        with pytest.raises(SolverError, match=f'solver type "LBFGS": .*{message}'):
            line("LBFGS", more)
    with pytest.raises(SolverError, match="lbfgs_memory is set, but not used by this solver"):
        line("BFGS", "lbfgs_memory: 5")
    wide = LINE.partition('layer { name: "loss"')[0].replace("num_output: 2", "num_output: 400") % (ROWS, "")
    wide += 'layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }'
    for kind, limit in (("Newton", "500"), ("BFGS", "2,000")):
        with pytest.raises(SolverError, match=f"works for at most {limit} weights, the net has 2,400; use LBFGS"):
            make(kind, wide)
    with pytest.raises(SolverError, match="the net has no weights to train"):
        line("LBFGS", spec="param { lr_mult: 0 } param { lr_mult: 0 }")
