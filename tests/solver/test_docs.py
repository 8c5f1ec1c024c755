"""The page about solvers lists all rules, schedules and options, and its example works."""

import re

import pytest

from caffe.proto import caffe_pb2
from caffe.solver import policy_names, rule_types, rules
from caffe.solver.momentum import Momentum
from caffe.solver.rules import rule_class
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "solvers.md").read_text()


@pytest.mark.parametrize("name", [*rule_types(), *policy_names(), *Momentum.names()])
def test_page_names(name):
    assert re.search(rf"\b{name}\b", PAGE)


def test_settings_on_the_page_exist():
    fields = caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name
    blocks = re.findall(r"^```prototxt[^\n]*\n(.*?)^```", PAGE, re.S | re.M)
    assert len(blocks) >= 3
    for block in blocks:
        for name in re.findall(r"(\w+): ", block):
            assert name in fields


def test_example_is_a_rule(monkeypatch):
    monkeypatch.setattr(rules.RULES, "items", dict(rules.RULES.items))
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)
    exec(code.group(1), {})
    assert rule_class("SignSGD").history == 0
