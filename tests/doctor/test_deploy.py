"""The comparison of the deploy net with the test net, and the first loss with regularization."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from caffe.doctor.case import Case
from caffe.doctor.checks.deploy import Deploy
from caffe.doctor.checks.regularisation import Regularisation
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line
from tests.conftest import ROOT
from tests.doctor import faults

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 } } }\n'


@pytest.fixture
def case(tmp_path):
    """Write a solver, its net, and a changed deploy net; return the findings of the check."""
    faults.write_data(tmp_path)

    def examine(*changes, crop=""):
        solver = faults.write(tmp_path, changes=[("array_data_param", f"{crop} array_data_param")] if crop else ())
        text = (tmp_path / "net.prototxt").read_text()
        begin, end = (text.index(f'layer {{\n  name: "{name}"') for name in ("h1", "accuracy"))
        body = INPUT + text[begin:end]
        for old, new in changes:
            assert old in body
            body = body.replace(old, new)
        (tmp_path / "deploy.prototxt").write_text(body)
        return list(Deploy().examine(SimpleNamespace(case=Case(solver))))

    return examine


def test_the_same_layers_give_no_finding(case):
    (found,) = case()
    assert isinstance(found, Line)


def test_what_differs_is_named(case):
    (found,) = case(('name: "h1_relu"', 'name: "other"'), ('type: "ReLU"', 'type: "TanH"'))
    assert found.code == "phase-mismatch"
    assert "(ReLU) is missing in the deploy net" in found.evidence
    (found,) = case(("num_output: 40", "num_output: 41"))
    assert 'layer "h1" has different options' in found.message
    (found,) = case(crop="transform_param { crop_size: 5 }")
    assert found.message.endswith("its input is 6 x 6, but the input of TEST 5 x 5")


@pytest.mark.parametrize(
    "solver",
    [
        *(f"models/{name}/solver" for name in ("bvlc_alexnet", "bvlc_googlenet", "bvlc_reference_caffenet")),
        "examples/recurrent/lstm_solver",
        "examples/ssd_shapes/ssd_solver",
        "examples/mnist/lenet_solver",
        "examples/siamese/mnist_siamese_solver",
        "examples/cifar10/cifar10_quick_solver",
        "examples/cifar10/cifar10_full_solver",
    ],
)
def test_nets_for_use_of_ours_have_no_finding(solver, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = list(Deploy().examine(SimpleNamespace(case=Case(f"{solver}.prototxt"))))
    assert not [each for each in found if isinstance(each, Finding)]


def test_the_term_of_regularisation(tmp_path):
    faults.write_data(tmp_path)
    solver = faults.write(tmp_path)
    exam = Exam(Case(solver), 10)
    (line,) = Regularisation().examine(exam)
    made = exam.case.solver(seed=exam.trials.seed)
    squares = sum(float(each.tensor.detach().square().sum()) * each.decay_mult for each in made.net.learnable)
    assert line.data["term"] == pytest.approx(0.0005 * squares / 2, rel=1e-4)
    assert line.data["first"] == pytest.approx(exam.base.first)
