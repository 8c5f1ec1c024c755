"""The rates for each blob of NVCaffe and Intel's Caffe, compared with their equations in float64."""

import numpy as np
import pytest
import torch

from caffe.errors import SolverError
from caffe.proto import caffe_pb2
from caffe.solver import get_solver
from caffe.solver.rules_forks import make_rule
from caffe.solver.update import Update
from tests.solver import small

RATE, DECAY, MU, MULT = 0.3, 0.02, 0.75, 2.0


def norm(x):
    return np.sqrt((x * x).sum())


def larc(rate, w, g, v, state, policy, turbo):
    r = (1 - MU) * 0.125 * norm(w) / norm(g)
    if turbo:
        cosine = (g * v).sum() / (norm(g) * norm(v)) if norm(v) else 0.0
        state["c"] = 0.95 * state.get("c", 0.0) + 0.05 * cosine
        r -= 0.9 * state["c"]
    return min(rate, r) if policy == "clip" else rate * r


def intel(rate, w, g, v, state):
    return rate * 0.125 * norm(w) / (norm(g) + 0.0625 * norm(w))


CASES = {
    "larc: true larc_eta: 0.125": lambda *a: larc(*a, "scale", False),
    'larc: true larc_eta: 0.125 larc_policy: "clip"': lambda *a: larc(*a, "clip", False),
    'larc: true larc_eta: 0.125 larc_turbo: true larc_policy: "clip"': lambda *a: larc(*a, "clip", True),
    "local_lr_auto: true local_gw_ratio: 0.125": intel,
}


@pytest.mark.parametrize("settings", sorted(CASES))
def test_equation(settings):
    param = small.param(settings)
    param.momentum, param.weight_decay = MU, 0.0625
    rule, random = make_rule(param), np.random.default_rng(2)
    w, v, state = random.normal(size=(7, 3)), np.zeros((7, 3)), {}
    mine, history = torch.tensor(w), torch.zeros(7, 3, dtype=torch.float64)
    for t in range(1, 6):
        # the last gradients are so small that "clip" does not change the solver's rate
        g = random.normal(size=w.shape) / 4**t
        rate = CASES[settings](RATE, w, g, v, state)
        v = MU * v + rate * (g + DECAY * w)
        w = w - v
        update = Update(mine, torch.tensor(g * 2), [history], RATE * MULT, DECAY, multiplier=MULT)
        rule.apply([update], t, 0.5)
        np.testing.assert_allclose(mine, w, rtol=1e-12)
        np.testing.assert_allclose(update.diff, v, rtol=1e-12)


@pytest.mark.parametrize("settings", ["larc: true", "local_lr_auto: true"])
def test_a_blob_without_norm_has_the_rate_itself_and_a_fixed_blob_stays(settings):
    rule = make_rule(small.param(settings))
    w, history = torch.zeros(3), torch.zeros(3)
    rule.apply([Update(w, torch.ones(3), [history], 0.5, 0.0)], 1, 1.0)
    assert w.tolist() == [-0.5] * 3
    fixed = torch.ones(3)
    rule.apply([Update(fixed, torch.ones(3), [torch.zeros(3)], 0.0, 0.1, multiplier=0.0)], 1, 1.0)
    assert fixed.tolist() == [1.0] * 3


def test_a_solver_with_larc_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    plain, scaled = get_solver(small.param()), get_solver(small.param('larc: true larc_policy: "clip" larc_eta: 0.05'))
    for solver in (plain, scaled):
        solver.step(3)
    assert not torch.equal(plain.net.learnable[0].tensor, scaled.net.learnable[0].tensor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('larc: true larc_policy: "cut"', 'larc_policy is "cut", expected "scale" or "clip"'),
        ("larc: true larc_eta: 0", "larc_eta is 0, expected a number above 0"),
        ("local_lr_auto: true local_gw_ratio: -1", "local_gw_ratio is -1"),
        ('larc: true type: "Adam"', 'larc is set beside type: "Adam"; expected with type: "SGD"'),
        ("larc: true local_lr_auto: true", "larc is set beside local_lr_auto"),
    ],
)
def test_settings_that_cannot_work(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    with pytest.raises(SolverError, match=message):
        get_solver(small.param(settings))


def test_a_damaged_memory_of_larc_is_refused():
    rule = make_rule(caffe_pb2.SolverParameter(larc=True, larc_turbo=True))
    rule.apply([Update(torch.ones(3), torch.ones(3), [torch.ones(3)], 0.5, 0.0)], 1, 1.0)
    assert rule.memory()["correlation"].tolist() == pytest.approx([0.05])
    for wrong in ([0.1, 0.2], [3.0], [float("nan")]):
        with pytest.raises(SolverError, match=r"correlation of the rule's memory is .*expected 1 values from -1 to 1"):
            rule.check_memory({"correlation": torch.tensor(wrong)})
