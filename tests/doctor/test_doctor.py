"""The doctor finds, proves and repairs planted faults, and reports none in healthy nets."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from caffe import CaffeError
from caffe.cli import main
from caffe.doctor import diagnose
from caffe.doctor.check import checks, codes
from tests.conftest import ROOT
from tests.doctor import faults
from tests.doctor.faults import BUDGET

GAUSS = 'type: "gaussian" std: {}'
FAULTS = {
    "rate-too-high": {"solver": [("base_lr: 0.1", "base_lr: 30")]},
    "rate-too-low": {"solver": [("base_lr: 0.1", "base_lr: 1e-7")]},
    "weight-decay-too-high": {"solver": [("weight_decay: 0.0005", "weight_decay: 1")]},
    "weights-all-equal": {"text": faults.net('type: "constant" value: 0.01')},
    "activations-vanish": {"text": faults.net(GAUSS.format(1e-4))},
    "dead-units": {"text": faults.net(bias="value: -30")},
    "narrow-layer": {"text": faults.net(width=1)},
    "no-nonlinearity": {"changes": [(r'layer \{ name: "h1_relu".*\n', "")]},
    "softmax-twice": {
        "changes": [
            (r'(layer \{ name: "loss" .*)"out"', 'layer { name: "p" type: "Softmax" bottom: "out" top: "p" }\n\\1"p"')
        ]
    },
    "rate-not-finite": {"solver": [('"inv"', '"poly"'), ("max_iter: 5000\n", "")]},
    "schedule": {"solver": [('"inv"', '"step" stepsize: 9000')]},
    "test-coverage": {"solver": [("test_iter: 4", "test_iter: 1")]},
    "too-few-epochs": {"solver": [("max_iter: 5000", "max_iter: 5")]},
    "snapshot-never": {"solver": [("snapshot: 1000", "snapshot_after_train: false")]},
    "nothing-learns": {"solver": [("base_lr: 0.1", "base_lr: 0")]},
    "label-range": {"changes": [("num_output: 10", "num_output: 7")]},
    "loss-missing": {"changes": [(r'layer \{ name: "loss".*\n', "")]},
    "gradients-vanish": {"text": faults.deep("Sigmoid"), "solver": [("base_lr: 0.1", "base_lr: 0.03")]},
    "clip-too-strong": {"solver": [("max_iter: 5000", "clip_gradients: 1e-5 max_iter: 5000")]},
    "momentum-too-high": {"solver": [("momentum: 0.9", "momentum: 0.999")]},
    "wrong-loss": {
        "text": faults.net(
            outputs=1, end='layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "label" }\n'
        ),
        "solver": [("base_lr: 0.1", "base_lr: 0.01")],
    },
}


@pytest.fixture(autouse=True)
def data(tmp_path):
    faults.write_data(tmp_path)


SLOW = {
    "rate-too-high",  # another test checks this in every run
    "wrong-loss",
    "softmax-twice",
    *("gradients-vanish", "dead-units", "rate-too-low", "activations-vanish"),
    *("weight-decay-too-high", "weights-all-equal", "momentum-too-high"),
    *("nothing-learns", "narrow-layer", "clip-too-strong", "snapshot-never", "test-coverage", "too-few-epochs"),
}


@pytest.mark.parametrize("code", [pytest.param(code, marks=[pytest.mark.long] * (code in SLOW)) for code in FAULTS])
def test_a_planted_fault_comes_first(code, tmp_path):
    report = diagnose(faults.write(tmp_path, **FAULTS[code]), budget=BUDGET)
    assert report.alarms, report.lines
    assert report.alarms[0].code == code, [finding.as_dict() for finding in report.findings]
    assert report.alarms[0].place.startswith(str(tmp_path))


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("unit", "rate"),
    [("ReLU", 0.2), *(pytest.param(*each, marks=LONG) for each in (("ReLU", 0.03), ("TanH", 0.03), ("TanH", 0.2)))],
)
def test_a_healthy_net_raises_no_alarm(unit, rate, tmp_path):
    path = faults.write(tmp_path, faults.net(unit=unit), solver=[("base_lr: 0.1", f"base_lr: {rate}")])
    assert diagnose(path, budget=BUDGET).alarms == []


@pytest.mark.long
def test_input_of_a_wrong_scale(tmp_path):
    faults.write_data(tmp_path, scale=1e-4)
    report = diagnose(faults.write(tmp_path), budget=BUDGET)
    assert report.alarms[0].code == "input-scale"
    assert report.alarms[0].proof.gain > 0.5


@pytest.mark.long
def test_labels_in_order_are_found(tmp_path):
    faults.write_data(tmp_path, labels=np.sort)
    assert "label-order" in [finding.code for finding in diagnose(faults.write(tmp_path), budget=BUDGET).alarms]


def test_the_proven_change_of_a_rate_too_high(tmp_path):
    """The changed file keeps its comments. Findings that are consequences are listed under their cause."""
    report = diagnose(faults.write(tmp_path, **FAULTS["rate-too-high"]), budget=BUDGET)
    assert report.alarms[0].code == "rate-too-high"
    assert [(f.severity.word, f.follows) for f in report.findings if f.code == "diverges"] == [
        ("note", "rate-too-high")
    ]
    written = report.fix(tmp_path / "fixed")
    assert [path.name for path in written] == ["solver.prototxt", "net.prototxt"]
    text = written[0].read_text()
    assert "# a solver\n" in text
    assert "  # the rate\n" in text
    assert "base_lr: 30" not in text
    assert f'net: "{written[1]}"' in text
    with pytest.raises(CaffeError, match="would replace the present ones"):
        report.fix(tmp_path)


@pytest.mark.long
def test_several_changes_are_written_at_their_layers(tmp_path):
    """If one change adds a layer, the next change still applies to the right layer."""
    narrow = "(?s)num_output: 40(.*?)num_output: 40", r"num_output: 40\1num_output: 2"
    plants = [*FAULTS["no-nonlinearity"]["changes"], narrow]
    report = diagnose(faults.write(tmp_path, changes=plants), budget=BUDGET)
    assert {"no-nonlinearity", "narrow-layer"} <= {finding.code for finding in report.alarms}
    fixed = diagnose(report.fix(tmp_path / "fixed")[0], budget=BUDGET)
    assert fixed.alarms == []


@pytest.mark.long
def test_changes_cannot_be_written_into_an_old_net(tmp_path):
    path = faults.write(tmp_path, **FAULTS["rate-too-high"])
    net = tmp_path / "net.prototxt"
    old = 'input: "unused"\ninput_shape { dim: 1 }\n' + faults.net().format(folder=tmp_path)
    net.write_text(old)
    report = diagnose(path, budget=BUDGET)
    with pytest.raises(CaffeError, match="upgrade_net_proto_text"):
        report.fix(tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["-budget", "0"], "expected seconds above 0"),
        (["-log", "x.log", "-fix", "y"], "-fix applies to a solver"),
        (["-log", "x.log", "-budget", "60"], "-budget applies to a solver"),
        ([], "one of the two"),
    ],
)
def test_wrong_flags(words, fact, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.log").write_text("a log of the user's\n")
    given = words if "-log" in words or not words else [str(faults.write(tmp_path)), *words]
    assert main(["doctor", *given]) == 1
    assert fact in capsys.readouterr().err
    assert (tmp_path / "x.log").read_text() == "a log of the user's\n"


def test_command_and_its_exit_codes(tmp_path, capsys):
    path = faults.write(tmp_path, **FAULTS["rate-not-finite"])
    assert main(["doctor", str(path), "-json", str(tmp_path / "report.json")]) == 3
    shown = capsys.readouterr().out
    assert f"error rate-not-finite: {path}:8: " in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert [finding["code"] for finding in report["findings"]] == ["rate-not-finite"]
    assert report["seconds"] > 0
    assert main(["doctor", str(faults.write(tmp_path)), "-budget", str(BUDGET)]) == 0
    assert main(["doctor", str(tmp_path / "none.prototxt")]) == 1


def test_each_code_belongs_to_one_check():
    assert len(codes()) == len(set(codes()))
    assert all(check.__doc__ for check in checks())


def test_each_code_is_in_the_document():
    page = (ROOT / "docs" / "doctor.md").read_text()
    assert set(re.findall(r"^\| `([\w.-]+)` \|", page, re.M)) == set(codes())
    assert "`overfits`" in page


@pytest.mark.long
def test_pictures(tmp_path, capsys):
    path = faults.write(tmp_path)
    assert main(["doctor", str(path), "-budget", str(BUDGET), "-plot", str(tmp_path / "pictures")]) == 0
    assert "drawn: " in capsys.readouterr().out
    names = {file.stem for file in (tmp_path / "pictures").iterdir()}
    assert names == {"activations", "gradients", "rates", "updates", "classes", "mean", "filters", "trials"}


@pytest.mark.long
def test_pictures_cannot_be_written_over_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["doctor", str(faults.write(tmp_path)), "-budget", str(BUDGET), "-plot", str(tmp_path / "file")]) == 1
    assert "cannot write pictures" in capsys.readouterr().err
