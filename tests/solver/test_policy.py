"""Learning rate policies: values, steps, preconditions."""

import math

import pytest
import torch

from caffe.errors import SolverError
from caffe.proto import caffe_pb2
from caffe.solver import get_solver
from caffe.solver.momentum import Momentum, momentum_policy
from caffe.solver.policy import Policy, policy_class, policy_names, weight_decay
from tests.solver import small


def make(name, **fields):
    return policy_class(name)(caffe_pb2.SolverParameter(lr_policy=name, base_lr=0.5, **fields))


def rates(policy, count):
    """Return the rate and step number of each iteration."""
    found, step = [], 0
    for iteration in range(count):
        step = policy.step_at(iteration, step)
        found.append((policy.at(iteration, step), step))
    return found


CASES = {
    "fixed": ({}, lambda i: 0.5),
    "step": ({"gamma": 0.25, "stepsize": 3}, lambda i: 0.5 * 0.25 ** (i // 3)),
    "exp": ({"gamma": 0.875}, lambda i: 0.5 * 0.875**i),
    "inv": ({"gamma": 0.125, "power": 0.75}, lambda i: 0.5 * (1 + 0.125 * i) ** -0.75),
    "multistep": ({"gamma": 0.25, "stepvalue": [2, 5]}, lambda i: 0.5 * 0.25 ** ((i >= 2) + (i >= 5))),
    "poly": ({"power": 1.5, "max_iter": 8}, lambda i: 0.5 * (1 - i / 8) ** 1.5),
    "sigmoid": ({"gamma": 0.5, "stepsize": 4}, lambda i: 0.5 / (1 + math.exp(-0.5 * (i - 4)))),
    "inversetime": ({"gamma": 0.125}, lambda i: 0.5 / (1 + 0.125 * i)),
    "exponential": ({"gamma": 0.125}, lambda i: 0.5 * math.exp(-0.125 * i)),
    "cosineannealing": (
        {"min_lr": 0.125, "max_iter": 8},
        lambda i: 0.125 + 0.375 * (1 + math.cos(math.pi * i / 8)) / 2,
    ),
    "onecycle": (
        {"max_iter": 8, "rise": 0.375, "start_fraction": 0.25, "end_fraction": 0.125},
        lambda i: [0.125, 0.3125, 0.5][i] if i < 3 else 0.0625 + 0.4375 * (1 + math.cos(math.pi * (i - 2) / 5)) / 2,
    ),
    "plateau": ({"patience": 1, "test_iter": [1], "test_interval": 1}, lambda i: 0.5),
    "multifixed": ({"stagelr": [0.5, 0.25], "stageiter": [2, 5]}, lambda i: 0.5 if i <= 2 else 0.25),
}


def test_every_policy_is_tested():
    assert sorted(CASES) == policy_names()


@pytest.mark.parametrize("name", sorted(CASES))
def test_rate(name):
    fields, expected = CASES[name]
    got = rates(make(name, **fields), 8)
    assert [rate for rate, _ in got] == pytest.approx([expected(i) for i in range(8)], rel=1e-12)


def test_steps_are_counted():
    assert [step for _, step in rates(make("step", gamma=0.1, stepsize=3), 7)] == [0, 0, 0, 1, 1, 1, 2]
    assert [step for _, step in rates(make("multistep", gamma=0.1, stepvalue=[2, 4]), 6)] == [0, 0, 1, 1, 2, 2]


def test_multistep_takes_one_step_an_iteration():
    assert [step for _, step in rates(make("multistep", gamma=0.1, stepvalue=[0, 0, 0]), 4)] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("step", {"gamma": 0.1}, "stepsize is 0, expected a number above 0"),
        ("step", {"gamma": -0.5, "stepsize": 2}, "gamma is -0.5, expected 0 or more"),
        ("exp", {"gamma": -0.5}, "gamma"),
        ("inv", {"gamma": -0.5}, "gamma"),
        ("multistep", {"gamma": -0.5}, "gamma"),
        ("sigmoid", {"gamma": -0.5, "stepsize": 2}, "gamma"),
        ("sigmoid", {"gamma": 0.5}, "stepsize"),
        ("poly", {"power": 2}, "max_iter is 0"),
        ("inversetime", {}, "gamma is 0.0, expected a number above 0; set gamma in the solver"),
        ("exponential", {"gamma": -1}, "gamma is -1.0"),
        ("cosineannealing", {}, "max_iter is 0"),
        ("cosineannealing", {"cycle": 0}, "cycle is 0"),
        ("cosineannealing", {"cycle": 5, "cycle_mult": 0.5}, "cycle_mult is 0.5, expected 1 or more"),
        ("cosineannealing", {"max_iter": 5, "cycle_mult": 2}, "cycle_mult is set without cycle"),
        ("cosineannealing", {"max_iter": 5, "min_lr": 1}, "min_lr is 1, expected at least 0 and at most base_lr, 0.5"),
        ("onecycle", {}, "max_iter is 0"),
        ("onecycle", {"max_iter": 5, "rise": 0.125}, "rise is 0.125, expected so that max_iter, 5, has iterations"),
        ("onecycle", {"max_iter": 5, "rise": 1}, "rise is 1"),
        ("plateau", {"patience": 1}, "follows the loss of the first test net; set test_iter and test_interval"),
        ("plateau", {"test_iter": [1], "test_interval": 1}, "patience is not set"),
        ("plateau", {"test_iter": [1], "test_interval": 1, "patience": 1, "gamma": 1}, "gamma is 1, expected above 0"),
    ],
)
def test_preconditions(name, fields, message):
    with pytest.raises(SolverError, match=f'policy "{name}": {message}'):
        make(name, **fields)


def test_rate_that_is_no_number_is_an_error():
    with pytest.raises(SolverError, match=r'"poly": gives a rate of nan at iteration 9 \(max_iter 8\)'):
        make("poly", power=0.5, max_iter=8).at(9, 0)
    with pytest.raises(SolverError, match="inf at iteration 99999"):
        make("exp", gamma=2.0).at(99999, 0)


def test_far_from_a_sigmoid_the_rate_is_zero():
    assert make("sigmoid", gamma=1.0, stepsize=100000).at(0, 0) == 0


def test_unknown_policy():
    with pytest.raises(
        SolverError,
        match=r'"setp"; did you mean "step"\? \(known policies: cosineannealing, exp, exponential, fixed, ',
    ):
        policy_class("setp")
    with pytest.raises(SolverError, match=r'names no lr_policy; write for example lr_policy: "fixed"'):
        policy_class("")


# -- policies that Caffe does not have -----------------------------------------------------------------------------


def test_cosine_restarts():
    """Restarts at 4, at 12 (4 + 8) and at 28 (12 + 16)."""
    policy = make("cosineannealing", cycle=4, cycle_mult=2)
    assert [policy.at(i, 0) for i in (0, 4, 12, 28)] == [0.5] * 4
    assert [policy.at(i, 0) for i in (2, 8, 20)] == pytest.approx([0.25] * 3)
    plain = make("cosineannealing", cycle=4)
    assert [plain.at(i, 0) for i in range(4, 8)] == [plain.at(i, 0) for i in range(4)]


def test_a_single_cosine_does_not_rise_again():
    assert make("cosineannealing", max_iter=8, min_lr=0.125).at(9, 0) == 0.125


@pytest.mark.parametrize("fields", [{}, {"rise": 0.5}, {"start_fraction": 0.5, "end_fraction": 0.25}])
def test_one_cycle_is_the_one_of_torch(fields):
    policy = make("onecycle", max_iter=20, **fields)
    p = policy.param
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.5,
        total_steps=20,
        pct_start=p.rise,
        div_factor=1 / p.start_fraction,
        final_div_factor=p.start_fraction / p.end_fraction,
    )
    momentum = momentum_policy(
        caffe_pb2.SolverParameter(
            max_iter=20, rise=p.rise, momentum_policy="onecycle", momentum_start=0.95, momentum_end=0.85
        )
    )
    for iteration in range(20):
        assert policy.at(iteration, 0) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6)
        assert momentum.value(iteration) == pytest.approx(optimizer.param_groups[0]["momentum"], rel=1e-6)
        optimizer.step()
        if iteration < 19:
            scheduler.step()


@pytest.mark.parametrize("name", sorted(CASES))
def test_warm_up_of_any_policy(name):
    fields, expected = CASES[name]
    warm = rates(make(name, warmup_iter=4, warmup_start=0.25, **fields), 8)
    shares = [0.4375, 0.625, 0.8125, 1, 1, 1, 1, 1]
    assert [rate for rate, _ in warm] == pytest.approx([expected(i) * shares[i] for i in range(8)], rel=1e-12)


class _Net:
    blob_loss_weights = {"loss": 1.0}


def test_plateau_halves_when_the_loss_stops_falling():
    policy = make("plateau", patience=1, threshold=0.125, min_lr=0.2, test_iter=[1], test_interval=1)
    found = []
    for loss in (2.0, 1.5, 1.4, 1.25, 1.25, 1.3, 9.0, 9.0):
        policy.tested(_Net(), loss)
        found.append(policy.at(0, policy.step_at(0, 0)))
    # 1.4 and 1.3 do not count as progress from 1.5 and 1.25, which needs an eighth; two tests without it halve the rate
    assert found == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2])
    other = make("plateau", patience=1, test_iter=[1], test_interval=1)
    other.recall(0, policy.memory())
    assert other.memory() == {"best": 1.25, "waited": 0, "steps": 2}
    other.recall(3, {})
    assert (other.memory(), other.step_at(0, 0)) == ({"best": math.inf, "waited": 0, "steps": 3}, 3)


def test_plateau_needs_a_loss():
    net = _Net()
    net.blob_loss_weights = {"accuracy": 0.0}
    with pytest.raises(SolverError, match="the first test net has no loss to follow"):
        make("plateau", patience=1, test_iter=[1], test_interval=1).tested(net, 1.0)


MOMENTUM = {"momentum_start": 0.5, "momentum_end": 0.875}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0.5, 0.625, 0.75, 0.875, 0.875]),
        ("sutskever", [0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 5 / 6, 5 / 6, 5 / 6, 0.875, 0.875, 0.875, 0.875]),
    ],
)
def test_momentum(name, expected):
    param = caffe_pb2.SolverParameter(momentum_policy=name, momentum_iter=3, **MOMENTUM)
    policy = momentum_policy(param)
    assert param.momentum == 0.5
    assert [policy.value(i) for i in range(len(expected))] == pytest.approx(expected)


def test_momentum_preconditions():
    assert Momentum.names() == ["fixed", "linear", "onecycle", "opt", "poly", "sutskever"]
    assert momentum_policy(caffe_pb2.SolverParameter()) is None
    for fields, message in (
        ({"momentum_end": 0.9, "momentum_iter": 3}, r"momentum_start is 0 \(not set\), expected at least 0"),
        ({"momentum_start": 0.5, "momentum_end": 1, "momentum_iter": 3}, "momentum_end is 1, expected"),
        (MOMENTUM, "momentum_iter is 0, expected a number above 0"),
    ):
        with pytest.raises(SolverError, match=f'momentum policy "linear": {message}'):
            momentum_policy(caffe_pb2.SolverParameter(momentum_policy="linear", **fields))
    with pytest.raises(SolverError, match='unknown momentum policy "liner"; did you mean "linear"'):
        momentum_policy(caffe_pb2.SolverParameter(momentum_policy="liner"))


def test_a_name_defined_twice(monkeypatch):
    monkeypatch.setattr(Policy.registry, "items", dict(Policy.registry.items))
    with pytest.raises(SolverError, match='learning rate policy "fixed" is defined twice'):
        type("Fixed", (Policy,), {})


class TestSolver:
    """Schedules in a solver."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        small.write(tmp_path)

    def test_momentum_reaches_the_rule(self):
        solver = get_solver(
            small.param('momentum_policy: "linear" momentum_start: 0 momentum_end: 0.5 momentum_iter: 2')
        )
        for expected in (0, 0.25, 0.5, 0.5):
            solver.step(1)
            assert solver.rule.param.momentum == expected

    def test_plateau_follows_the_first_test_net(self):
        """At a rate of 0 the loss cannot fall: every second test is a step."""
        settings = 'lr_policy: "plateau" patience: 0 base_lr: 0 test_iter: 2 test_interval: 1'
        solver = get_solver(small.param(settings))
        solver.step(4)
        assert solver.policy.memory()["steps"] >= 1
        assert solver.current_step == solver.policy.steps

    @pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
    def test_plateau_is_kept_in_snapshots(self, form):
        settings = f'lr_policy: "plateau" patience: 0 test_iter: 2 test_interval: 2 snapshot_format: {form} momentum: 0'
        unbroken = get_solver(small.param(settings))
        unbroken.step(5)
        path = unbroken.snapshot()
        unbroken.step(7)
        resumed = get_solver(small.param(settings))
        resumed.restore(path)
        resumed.step(7)
        assert resumed.policy.memory() == unbroken.policy.memory()
        assert resumed.policy.memory()["steps"] > 0
        assert resumed.lr == unbroken.lr

    @pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
    def test_windows_of_a_plateau_count_iterations_since_the_least_loss(self, form):
        settings = f'lr_policy: "plateau" plateau_winsize: [3, 2] gamma: 0.5 snapshot_format: {form}'
        policy = get_solver(small.param(settings)).policy
        losses = [3.0, 4.0, 2.0, 2.0, 2.0, 2.0, 1.9, 5.0, 5.0, 5.0, 5.0]  # a window ends at 5 (2 + 3) and 8 (6 + 2)
        steps = []
        for iteration, loss in enumerate(losses):
            policy.trained(iteration, loss)
            steps.append(policy.step_at(iteration, 0))
        assert steps == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
        unbroken = get_solver(small.param(settings))
        unbroken.step(7)
        path = unbroken.snapshot()
        unbroken.step(9)
        resumed = get_solver(small.param(settings))
        resumed.restore(path)
        resumed.step(9)
        assert resumed.policy.memory() == unbroken.policy.memory()
        assert resumed.policy.steps > 0

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                "trust_coefficient: 1",
                'trust_coefficient is set, but not used by this solver: it belongs to type: "LARS"',
            ),
            ("cycle: 1", 'belongs to lr_policy: "cosineannealing"; remove it'),
            ("min_lr: -1", "min_lr is -1, expected 0 or more"),
            ('weight_decay_policy: "poly"', "needs max_iter and max_weight_decay"),
            ('weight_decay_policy: "pole"', 'did you mean "poly"'),
            ('momentum_policy: "opt" max_momentum: 1', "max_momentum is 1, expected at least 0 and below 1"),
            ('lr_policy: "plateau" plateau_winsize: 3', "gamma is not set"),
            ('lr_policy: "plateau" plateau_winsize: 0 gamma: 0.1', "expected numbers above 0"),
            ('lr_policy: "plateau" plateau_winsize: 3 gamma: 0.1 patience: 2', "keep one of them"),
            ("rise: 0.5", 'belongs to lr_policy: "onecycle" or momentum_policy: "onecycle"'),
            ("momentum_start: 0.5", 'belongs to momentum_policy: "linear" or'),
            ("warmup_start: 0.5", "warmup_start is set without warmup_iter"),
            ("warmup_iter: -1", "warmup_iter is -1"),
            ("warmup_iter: 5 warmup_start: 2", "warmup_start 2, expected"),
            ("ema_decay: 1", "ema_decay is 1, expected above 0 and below 1"),
            (
                'type: "AdaGrad" momentum_policy: "linear" momentum_start: 0.5 momentum_end: 0.9 momentum_iter: 2',
                "cannot be used with momentum",
            ),
        ],
    )
    def test_a_setting_that_nothing_reads(self, settings, message):
        with pytest.raises(SolverError, match=message):
            get_solver(small.param(settings))

    def test_a_setting_of_a_fork_that_its_policy_ignores_warns(self, caplog):
        get_solver(small.param("stagelr: 0.1 stageiter: 3 larc_eta: 0.1"))
        said = caplog.text
        assert 'stagelr is set, but not used by this solver: it belongs to lr_policy: "multifixed"' in said
        assert "larc_eta has no effect, because larc is not true" in said

    def test_schedules_of_nvcaffe(self):
        """The rate never falls below min_lr, the decay rises along a power, and "opt" follows the rate."""
        solver = get_solver(
            small.param(
                'lr_policy: "exp" base_lr: 0.04 gamma: 0.1 min_lr: 0.001 momentum_policy: "opt" max_momentum: 0.9 '
                'weight_decay: 0.1 weight_decay_policy: "poly" max_weight_decay: 0.5 weight_decay_power: 2 max_iter: 8'
            )
        )
        solver.step(1)
        assert solver.param.momentum == pytest.approx(0.81)  # (1 - 0.2 / 2)^2
        assert [solver.policy.at(t, 0) for t in (0, 1, 2, 9)] == pytest.approx([0.04, 0.004, 0.001, 0.001])
        solver.step(2)
        assert solver.param.momentum == pytest.approx(0.9)
        assert [weight_decay(solver.param, t) for t in (0, 4, 8, 9)] == pytest.approx([0.1, 0.2, 0.5, 0.5])
