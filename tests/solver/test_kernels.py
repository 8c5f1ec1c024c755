"""torch's fused kernels give the same results as `step` of the rules that use them."""

from __future__ import annotations

import copy

import pytest
import torch

from caffe.proto import caffe_pb2
from caffe.solver import rule_types
from caffe.solver.rules import rule_class
from caffe.solver.update import Update

WITH_KERNEL = [name for name in rule_types() if rule_class(name).kernel is not None]


def updates(rule, rate=0.1, decay=0.02):
    generator = torch.Generator().manual_seed(1)
    made = []
    for shape in ((5, 7), (300,), (2, 3, 4, 5)):
        data, diff = (torch.randn(shape, generator=generator) for _ in range(2))
        history = [torch.randn(shape, generator=generator).abs() for _ in range(rule.history)]
        made.append(Update(data, diff, history, rate, decay))
    return made


def param(**fields):
    return caffe_pb2.SolverParameter(momentum=0.9, momentum2=0.99, delta=1e-3, **fields)


def test_these_rules_have_one():
    assert WITH_KERNEL == ["Adam", "AdamW", "Nesterov", "SGD"]


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("name", WITH_KERNEL)
def test_a_kernel_is_its_rule(name, decay, scale, monkeypatch):
    rule = rule_class(name)(param())
    quick = updates(rule, decay=decay)
    plain = copy.deepcopy(quick)
    used = []
    kernel = type(rule.kernel)
    for method in ("take", "run"):
        original = getattr(kernel, method)
        monkeypatch.setattr(kernel, method, lambda *args, original=original: used.append(1) or original(*args))
    rule.apply(quick, 3, scale)
    assert used
    if name == "Adam":
        assert kernel().run(copy.deepcopy(plain[0]), param(), 3), "the kernel refuses what it can compute"
    monkeypatch.setattr(rule_class(name), "kernel", None)
    rule.apply(plain, 3, scale)
    for one, other in zip(quick, plain, strict=True):
        for a, b in zip((one.data, one.diff, *one.history), (other.data, other.diff, *other.history), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["Adam", "Nesterov", "SGD"])
def test_weight_decay_by_signs_has_no_kernel(name):
    rule = rule_class(name)(param(regularization_type="L1"))
    (update, *_) = updates(rule)
    expected = copy.deepcopy(update)
    assert rule.kernel.take([update], rule.param, 1.0) == [update]
    assert not rule.kernel.run(update, rule.param, 3)
    torch.testing.assert_close(update.data, expected.data, rtol=0, atol=0)
