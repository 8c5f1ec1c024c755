"""Learning rate policies: values, steps, preconditions."""

import math

import pytest

from caffe.errors import SolverError
from caffe.proto import caffe_pb2
from caffe.solver.policy import policy_class, policy_names


def make(name, **fields):
    return policy_class(name)(caffe_pb2.SolverParameter(lr_policy=name, base_lr=0.5, **fields))


def rates(policy, count):
    """The rate and step number of each iteration."""
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
        SolverError, match=r'"setp"; did you mean "step"\? \(known policies: exp, fixed, inv, multistep'
    ):
        policy_class("setp")
    with pytest.raises(SolverError, match=r'names no lr_policy; write for example lr_policy: "fixed"'):
        policy_class("")
