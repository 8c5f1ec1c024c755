"""Rules that Caffe does not have, compared with torch.optim or with their equations in float64."""

import math

import numpy as np
import pytest
import torch

from caffe.errors import SolverError
from caffe.proto import caffe_pb2
from caffe.solver import rule_types, rules_modern
from caffe.solver.rules import Update, rule_class

SHAPE = (7, 2, 5, 3)
RATE, DECAY, STEPS = 0.07, 0.03, 5
SETTINGS = {
    "AdamW": {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-3},
    "NAdam": {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-3, "momentum_decay": 0.5},
    "Lion": {"momentum": 0.9, "momentum2": 0.75},
    "Muon": {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-3},
    "LARS": {"momentum": 0.9, "trust_coefficient": 0.25},
    "LAMB": {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-3},
}


def make(kind, **more):
    return rule_class(kind)(caffe_pb2.SolverParameter(type=kind, **{**SETTINGS[kind], **more}))


def start(shape=SHAPE):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def gradients(shape=SHAPE):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(STEPS)]


def run(rule, w, scale=1.0, decay=DECAY, make_history=torch.zeros_like):
    """Train a copy of `w`; return the copy, the last diff and the histories."""
    w, histories = w.clone(), [make_history(w) for _ in range(rule.history)]
    for t, g in enumerate(gradients(tuple(w.shape)), 1):
        update = Update(w, torch.empty_like(w).copy_(g / scale), histories, RATE / t, decay)
        before = w.clone()
        rule.apply([update], t, scale)
        torch.testing.assert_close(update.diff, before - w, rtol=1e-6, atol=1e-6)
    return w, histories


def by_torch(optimizer, w):
    """Return `w` after updates by an optimizer of torch.optim with the same gradients and rates."""
    w = torch.nn.Parameter(w.clone())
    runner = optimizer(w)
    for t, g in enumerate(gradients(tuple(w.shape)), 1):
        runner.param_groups[0]["lr"] = RATE / t
        w.grad = g.clone()
        runner.step()
    return w.detach()


def test_every_rule_is_tested():
    assert sorted(SETTINGS) == [k for k in rule_types() if rule_class(k).__module__ == rules_modern.__name__]


def test_adamw():
    p = SETTINGS["AdamW"]
    want = by_torch(
        lambda w: torch.optim.AdamW(
            [w], betas=(0.9, 0.99), eps=p["delta"], weight_decay=DECAY, foreach=False, fused=False
        ),
        start(),
    )
    torch.testing.assert_close(run(make("AdamW"), start(), scale=0.25)[0], want, rtol=1e-7, atol=1e-9)


def test_adamw_by_its_equation():
    """torch's kernels follow the equation of the docstring."""
    rule, w, m, v = make("AdamW"), start().numpy().copy(), 0, 0
    b1, b2, delta = rule.param.momentum, rule.param.momentum2, rule.param.delta
    for t, g in enumerate(gradients(), 1):
        m, v = b1 * m + (1 - b1) * g.numpy(), b2 * v + (1 - b2) * g.numpy() ** 2
        w = w - RATE / t * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + delta) + DECAY * w)
    np.testing.assert_allclose(run(rule, start())[0], w, rtol=1e-10)


def test_nadam_by_its_equation():
    rule, w, m, v = make("NAdam"), start().numpy().copy(), 0, 0
    b1, b2, delta, psi = rule.param.momentum, rule.param.momentum2, rule.param.delta, rule.param.momentum_decay

    def mu(t):
        return b1 * (1 - 0.96 ** (t * psi) / 2)

    for t, g in enumerate(gradients(), 1):
        g = g.numpy() + DECAY * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        product = math.prod(mu(i) for i in range(1, t + 1))
        n = (1 - mu(t)) * g / (1 - product) + mu(t + 1) * m / (1 - product * mu(t + 1))
        w = w - RATE / t * n / (np.sqrt(v / (1 - b2**t)) + delta)
    np.testing.assert_allclose(run(rule, start())[0], w, rtol=1e-6)


def test_nadam():
    p = SETTINGS["NAdam"]
    want = by_torch(
        lambda w: torch.optim.NAdam(
            [w], betas=(0.9, 0.99), eps=p["delta"], weight_decay=DECAY, momentum_decay=0.5, foreach=False
        ),
        start(),
    )
    torch.testing.assert_close(run(make("NAdam"), start(), scale=0.25)[0], want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("penalty", ["L2", "L1"])
def test_lion(penalty):
    rule, w, m = make("Lion", regularization_type=penalty), start().numpy().copy(), 0
    b1, b2 = rule.param.momentum, rule.param.momentum2
    for t, g in enumerate(gradients(), 1):
        u = np.sign(b1 * m + (1 - b1) * g.numpy())
        m = b2 * m + (1 - b2) * g.numpy()
        w = w - RATE / t * (u + DECAY * (np.sign(w) if penalty == "L1" else w))
    np.testing.assert_allclose(run(rule, start(), scale=0.25)[0], w, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), SHAPE])
def test_muon_makes_the_momentum_orthogonal(shape):
    """The iteration of Newton and Schulz is replaced by the exact polar factor, to test the rest of the rule."""
    rule, w, m = make("Muon"), start(shape), 0
    exact, want = [], w.clone()
    for t, g in enumerate(gradients(shape), 1):
        m = rule.param.momentum * m + (1 - rule.param.momentum) * g
        ahead = ((1 - rule.param.momentum) * g + rule.param.momentum * m).flatten(1)
        u, s, vt = torch.linalg.svd(ahead / ahead.norm(), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        exact.append(s)
        step = 0.2 * math.sqrt(max(ahead.shape)) * (u * s @ vt).reshape(shape)
        want = want - RATE / t * (step + DECAY * want)
    torch.testing.assert_close(run(rule, w)[0], want, rtol=1e-5, atol=1e-6)
    assert torch.cat(exact).min() > 0.5
    assert torch.cat(exact).max() < 1.3


@pytest.mark.skipif("Muon" not in dir(torch.optim), reason="this torch has no Muon")
@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_muon_agrees_with_torch(shape):
    """torch iterates in bfloat16, so the results agree to three digits."""
    want = by_torch(
        lambda w: torch.optim.Muon([w], momentum=0.9, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"), start(shape)
    )
    torch.testing.assert_close(run(make("Muon"), start(shape))[0], want, rtol=0.02, atol=0.01)


def test_muon_leaves_vectors_to_adamw():
    torch.testing.assert_close(run(make("Muon"), start((7,)))[0], run(make("AdamW"), start((7,)))[0], rtol=0, atol=0)


def test_lars():
    rule, w, v = make("LARS"), start().numpy().copy(), 0
    for t, g in enumerate(gradients(), 1):
        g = g.numpy()
        norm = np.linalg.norm(w.ravel())
        ratio = 0.25 * norm / (np.linalg.norm(g.ravel()) + DECAY * norm)
        v = rule.param.momentum * v + RATE / t * ratio * (g + DECAY * w)
        w = w - v
    np.testing.assert_allclose(run(rule, start(), scale=0.25)[0], w, rtol=1e-7)


def test_lamb():
    rule, w, m, v = make("LAMB"), start().numpy().copy(), 0, 0
    b1, b2, delta = rule.param.momentum, rule.param.momentum2, rule.param.delta
    for t, g in enumerate(gradients(), 1):
        g = g.numpy()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + delta) + DECAY * w
        w = w - RATE / t * np.linalg.norm(w.ravel()) / np.linalg.norm(u.ravel()) * u
    np.testing.assert_allclose(run(rule, start(), scale=0.25)[0], w, rtol=1e-7)


@pytest.mark.parametrize("kind", ["LARS", "LAMB"])
def test_weights_of_zero_take_the_plain_rate(kind):
    """Biases start at 0. A rate in proportion to their norm would never change them."""
    rule, w, g = make(kind), torch.zeros(7), torch.linspace(1, 2, 7)
    rule.apply([Update(w, g.clone(), [torch.zeros(7) for _ in range(rule.history)], 0.5, 0.0)], 1, 1.0)
    want = 0.5 * g if kind == "LARS" else 0.5 * g / (g + rule.param.delta)
    torch.testing.assert_close(-w, want)


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_pieces_and_layouts(kind, monkeypatch):
    """In float32, whole tensors, small pieces, and tensors of other memory formats give the same results."""
    w = start().float()
    whole, _ = run(make(kind), w)
    monkeypatch.setattr("caffe.solver.update._PIECE", 64)
    for other in (torch.zeros_like, lambda x: torch.zeros_like(x).contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(run(make(kind), w, make_history=other)[0], whole, rtol=1e-5, atol=1e-5)


def test_preconditions():
    for kind in ("AdamW", "NAdam", "Lion", "Muon", "LAMB"):
        with pytest.raises(SolverError, match=f'type "{kind}": momentum2 is 1, expected at least 0 and below 1'):
            make(kind, momentum2=1.0)
    with pytest.raises(SolverError, match='"AdamW": its weight decay is that of regularization_type "L2"'):
        make("AdamW", weight_decay=0.1, regularization_type="L1")
    with pytest.raises(SolverError, match="momentum_decay is -1"):
        make("NAdam", momentum_decay=-1)
    with pytest.raises(SolverError, match="newton_schulz_steps is 0"):
        make("Muon", newton_schulz_steps=0)
    with pytest.raises(SolverError, match="trust_coefficient is 0"):
        make("LARS", trust_coefficient=0)
