"""Update rules, compared with their equations in numpy, for whole tensors and for pieces."""

import numpy as np
import pytest
import torch

from caffe.errors import SolverError
from caffe.proto import caffe_pb2
from caffe.solver import Rule, rule_types, rules
from caffe.solver.rules import Update, rule_class

SETTINGS = {
    "SGD": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.9},
    "AdaGrad": {"delta": 1e-3},
    "RMSProp": {"rms_decay": 0.95, "delta": 1e-3},
    "AdaDelta": {"momentum": 0.9, "delta": 1e-2},
    "Adam": {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-3},
}
SHAPE = (7, 5, 3, 2)


def expected_step(kind, p, g, rate, t, h):
    """One step in float64, from the papers and Caffe's documentation; h is the list of histories."""
    mu = p.momentum
    if kind == "SGD":
        h[0] = mu * h[0] + rate * g
        return h[0]
    if kind == "Nesterov":
        old, h[0] = h[0], mu * h[0] + rate * g
        return (1 + mu) * h[0] - mu * old
    if kind == "AdaGrad":
        h[0] = h[0] + g**2
        return rate * g / (np.sqrt(h[0]) + p.delta)
    if kind == "RMSProp":
        h[0] = p.rms_decay * h[0] + (1 - p.rms_decay) * g**2
        return rate * g / (np.sqrt(h[0]) + p.delta)
    if kind == "AdaDelta":
        h[0] = mu * h[0] + (1 - mu) * g**2
        u = g * np.sqrt((h[1] + p.delta) / (h[0] + p.delta))
        h[1] = mu * h[1] + (1 - mu) * u**2
        return rate * u
    h[0] = mu * h[0] + (1 - mu) * g
    h[1] = p.momentum2 * h[1] + (1 - p.momentum2) * g**2
    return rate * np.sqrt(1 - p.momentum2**t) / (1 - mu**t) * h[0] / (np.sqrt(h[1]) + p.delta)


def make(kind, **more):
    return rule_class(kind)(caffe_pb2.SolverParameter(type=kind, **{**SETTINGS[kind], **more}))


def tensors(rule, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    w, g = torch.randn((2, *SHAPE), dtype=dtype, generator=generator)
    return w, g, [torch.zeros_like(w) for _ in range(rule.history)]


def run(rule, w, histories, rate=0.07, decay=0.02, scale=0.25, steps=4):
    generator = torch.Generator().manual_seed(5)
    for t in range(1, steps + 1):
        g = torch.empty_like(w).copy_(torch.randn(SHAPE, dtype=w.dtype, generator=generator))
        rule.apply([Update(w, g, histories, rate / t, decay)], t, scale)
    return g


@pytest.mark.parametrize("regularization", ["L2", "L1"])
@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_rule_follows_its_equation(kind, regularization):
    rule = make(kind, regularization_type=regularization)
    w, _, histories = tensors(rule)
    got, p = w.clone(), rule.param
    diff = run(rule, got, histories)
    want, kept = w.numpy().copy(), [np.zeros(SHAPE) for _ in histories]
    generator = torch.Generator().manual_seed(5)
    for t in range(1, 5):
        g = 0.25 * torch.randn(SHAPE, dtype=w.dtype, generator=generator).numpy()
        g = g + 0.02 * (np.sign(want) if regularization == "L1" else want)
        step = expected_step(kind, p, g, 0.07 / t, t, kept)
        want = want - step
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(diff, step, rtol=1e-10, atol=1e-12, err_msg="a diff holds what was subtracted")
    for history, array in zip(histories, kept, strict=True):
        np.testing.assert_allclose(history, array, rtol=1e-10, atol=1e-12)


def test_every_rule_is_tested():
    assert sorted(SETTINGS) == [kind for kind in rule_types() if rule_class(kind).__module__ == rules.__name__]


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_pieces_give_what_the_whole_gives(kind, monkeypatch):
    rule = make(kind)
    w, _, whole = tensors(rule)
    expected, parts, pieces = w.clone(), w.clone(), [h.clone() for h in whole]
    run(rule, expected, whole)
    monkeypatch.setattr("caffe.solver.update._PIECE", 64)
    assert len(list(Update(w, w.clone(), pieces, 1.0, 0.0).pieces())) == 4
    run(rule, parts, pieces)
    torch.testing.assert_close(parts, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kind", sorted(SETTINGS))
@pytest.mark.parametrize("other", ["data", "history"])
def test_tensors_that_lie_differently_in_memory(kind, other, monkeypatch):
    """Updates are correct if the weight is channels_last and the histories are contiguous, or the other way round."""
    monkeypatch.setattr("caffe.solver.update._PIECE", 64)
    rule = make(kind)
    w, _, histories = tensors(rule, torch.float32)
    expected = w.clone()
    run(rule, expected, histories)
    moved, again = w.clone(), [torch.zeros_like(w) for _ in histories]
    if other == "data":
        moved = moved.contiguous(memory_format=torch.channels_last)
    else:
        again = [h.contiguous(memory_format=torch.channels_last) for h in again]
    run(rule, moved, again)
    for got, want in zip([moved, *again], [expected, *histories], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("momentum", "rate", "decay"), [(0.9, 0.07, 0.02), (0.0, 0.07, 0.02), (0.9, 0.0, 0.02)])
@pytest.mark.parametrize("kind", ["SGD", "Nesterov"])
def test_one_pass_is_what_is_stated(kind, momentum, rate, decay, monkeypatch):
    rule = make(kind, momentum=momentum)
    w, g, (v,) = tensors(rule, torch.float32)
    v.normal_(generator=torch.Generator().manual_seed(7))
    one, stated = [Update(w.clone(), g.clone(), [v.clone()], rate, decay) for _ in range(2)]
    rule.apply([one], 1, 0.5)
    stated.diff.mul_(0.5)
    monkeypatch.setattr(type(rule), "kernel", None)
    rule.update(stated, 1)
    for got, want in ((one.data, stated.data), (one.diff, stated.diff), (one.history[0], stated.history[0])):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_sgd_of_many_tensors_with_their_own_rates(monkeypatch):
    """Tensors with the same rate and decay are updated together, with the same results as one by one."""
    rule, generator = make("SGD"), torch.Generator().manual_seed(9)
    constants = [(0.07, 0.02), (0.14, 0.0), (0.07, 0.02), (0.0, 0.02), (0.07, 0.0)]
    together = [
        Update(*torch.randn((2, 5 + i), generator=generator), [torch.ones(5 + i)], rate, decay)
        for i, (rate, decay) in enumerate(constants)
    ]
    alone = [Update(u.data.clone(), u.diff.clone(), [u.history[0].clone()], u.rate, u.decay) for u in together]
    rule.apply(together, 1, 0.5)
    monkeypatch.setattr(type(rule), "kernel", None)
    for update in alone:
        rule.apply([update], 1, 0.5)
    for got, want in zip(together, alone, strict=True):
        torch.testing.assert_close(got.data, want.data, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got.diff, want.diff, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got.history[0], want.history[0], rtol=1e-6, atol=1e-6)


def test_preconditions():
    for kind in ("AdaGrad", "RMSProp"):
        with pytest.raises(SolverError, match=f'"{kind}": cannot be used with momentum \\(0.9\\)'):
            make(kind, momentum=0.9)
    with pytest.raises(SolverError, match="rms_decay is 1, expected at least 0 and below 1"):
        make("RMSProp", rms_decay=1.0)
    with pytest.raises(SolverError, match="momentum2 is 1, expected"):
        make("Adam", momentum2=1.0)
    with pytest.raises(
        SolverError, match=r'unknown solver type "Adamm"; did you mean "Adam"\? \(known types: AdaDelta'
    ):
        rule_class("Adamm")


def test_a_class_statement_registers_a_rule(monkeypatch):
    monkeypatch.setattr(rules.RULES, "items", dict(rules.RULES.items))

    class Rprop(Rule):
        pass

    assert rule_class("Rprop") is Rprop
    with pytest.raises(SolverError, match=r'"Rprop" is defined twice, in .*test_rules.py'):

        class Rprop(Rule):
            pass
