"""The watcher: its findings, no findings in a healthy run, and no effect on the training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe import train_log
from caffe.cli import main
from caffe.solver import get_solver
from caffe.watch import FaultWatcher, Reports
from caffe.watch.course import Course
from caffe.watch.rules import State, examine

NET = """
name: "small"
layer {{ name: "data" type: "ArrayData" top: "data" top: "label" include {{ phase: TRAIN }}
  array_data_param {{ source: "{data}.npz" batch_size: 20 shuffle: true }} }}
layer {{ name: "data" type: "ArrayData" top: "data" top: "label" include {{ phase: TEST }}
  array_data_param {{ source: "good.npz" batch_size: 20 }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param {{ num_output: 16 weight_filler {{ type: "xavier" }} bias_filler {{ value: {bias} }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" dropout_param {{ dropout_ratio: 0.1 }} }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "net.prototxt" test_iter: 5 test_interval: 60 base_lr: {rate} lr_policy: "fixed" momentum: 0.9
max_iter: {steps} display: 20 snapshot_prefix: "run" random_seed: 3 snapshot_after_train: false snapshot: 1000
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=200)
    data = rng.standard_normal((200, 8)) + 2 * np.eye(3, 8)[label]
    np.savez("good.npz", data=data.astype(np.float32), label=label.astype(np.float32))
    data[77, 2] = np.inf
    np.savez("holed.npz", data=data.astype(np.float32), label=label.astype(np.float32))
    return tmp_path


def run(*flags, data="good", rate="0.02", steps=240, bias="0"):
    """Train; return the findings from the file, and the log."""
    with open("net.prototxt", "w") as file:
        file.write(NET.format(data=data, bias=bias))
    with open("solver.prototxt", "w") as file:
        file.write(SOLVER.format(rate=rate, steps=steps))
    Path("log").unlink(missing_ok=True)
    main(["train", "-solver", "solver.prototxt", "-log", "log", *flags])
    try:
        with open("run_findings.jsonl") as file:
            found = [json.loads(line) for line in file]
    except FileNotFoundError:
        found = []
    with open("log") as file:
        return found, file.read()


def test_a_healthy_run_gives_no_finding_and_a_line_for_each_epoch():
    found, log = run()
    assert found == []
    assert "[W" not in log
    lines = [line.partition("watch] ")[2] for line in log.splitlines() if "watch]" in line]
    assert len(lines) == 24
    assert lines[0].startswith("epoch 1/24: loss ")
    assert lines[-1].startswith("epoch 24/24: loss ")
    assert "test accuracy 0." in lines[-1]
    assert lines[-1].endswith("lr 0.02")


FAULTS = {
    "non-finite-data": {"data": "holed"},
    "diverges": {"rate": "1e18"},
    "nothing-learns": {"rate": "1e-9", "steps": 300},
}


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_reported_once(code):
    found, log = run(**FAULTS[code])
    assert [finding["code"] for finding in found] == [code]
    assert log.count(f"watch] {code} at iteration {found[0]['iteration']}: ") == 1


def test_the_first_value_that_is_not_finite_is_found():
    found, _ = run(data="holed", steps=20)
    assert found[0]["message"] == 'the data of layer "data" are not finite: 1 of 160 values of blob "data"'
    found, _ = run(rate="1e30", steps=20)
    assert found[0]["layer"] in ("ip1", "ip2")
    assert found[0]["iteration"] < 5


def test_a_run_that_diverges_continues_as_without_the_watcher():
    """The step that is repeated for the examination does not change data, random numbers or weights."""
    results = []
    for watched in (False, True):
        run("-watch", "off", steps=0, data="holed")
        solver = get_solver("solver.prototxt")
        solver.param.nan_patience = 0
        if watched:
            solver.watchers.append(FaultWatcher())
        solver.step(3)
        solver.net.params["ip1"][0].data[...] = 1
        solver.net.params["ip1"][1].data[...] = 1
        solver.net.params["ip2"][0].data[...] = 1
        solver.net.params["ip2"][1].data[...] = 1
        for entry in solver.history:
            entry.zero_()
        solver.step(12)
        state = torch.get_rng_state()
        results.append((solver.net.layers[0].position(), state, [p.tensor.clone() for p in solver.net.learnable]))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    for a, b in zip(results[0][2], results[1][2], strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_the_weights_are_the_same_with_and_without():
    weights = []
    for watched in (False, True):
        run("-watch", "off", steps=0)
        solver = get_solver("solver.prototxt")
        if watched:
            solver.watchers.append(FaultWatcher())
        solver.step(100)
        weights.append([entry.tensor.detach().clone() for entry in solver.net.learnable])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_log_parsers_see_the_same():
    tables = []
    for mode in ("on", "off"):
        _, log = run("-watch", mode)
        assert ("watch]" in log) == (mode == "on")
        read = train_log.read("log")
        tables.append([{k: v for k, v in row.items() if k != "Seconds"} for row in (*read.train, *read.test)])
    assert tables[0] == tables[1]


def test_a_command_hears_of_a_finding():
    run("-on_finding", 'cat > "heard_$CAFFE_FINDING.json"', data="holed", steps=20)
    with open("heard_non-finite-data.json") as file:
        assert json.load(file)["code"] == "non-finite-data"


def test_a_command_that_fails_is_reported():
    _, log = run("-on_finding", "exit 7", data="holed", steps=20)
    assert "watch] exit code 7 of exit 7" in log


def test_flags_that_do_not_fit(capsys):
    assert main(["train", "-solver", "solver.prototxt", "-watch", "of"]) == 1
    assert '-watch of: expected on or off; did you mean "off"?' in capsys.readouterr().err
    assert main(["train", "-solver", "solver.prototxt", "-watch", "off", "-on_finding", "x"]) == 1
    assert "-watch off disables the watcher" in capsys.readouterr().err


def test_a_new_run_removes_the_findings_of_the_last_one():
    assert run(data="holed", steps=20)[0]
    assert run(steps=20)[0] == []


# -- rules ---------------------------------------------------------------------------------------------------------


class Nothing:
    """Samples of a run without measurements."""

    largest_ratio = None

    def large(self, limit):
        return []

    dead = large


def codes(losses, tests=(), length=1000, **state):
    course = Course()
    for loss in losses:
        course.add(loss)
    course.tests += tests
    return [finding.code for finding in examine(State(course, state.pop("samples", Nothing()), length, **state))]


FALLING = 2.3 * np.exp(-np.arange(1000) / 200) + 0.05 * np.random.default_rng(0).random(1000)


def test_rules_on_curves():
    rng = np.random.default_rng(1)
    assert codes(FALLING) == []
    assert codes(2.3 + 0.02 * rng.standard_normal(500)) == ["nothing-learns"]
    assert codes(2.3 + 0.02 * rng.standard_normal(500), fresh=False) == []
    assert codes(2.3 + 0.02 * rng.standard_normal(250)) == []
    swinging = np.where(np.arange(300) // 25 % 2, 3.5, 0.5) + 0.1 * rng.random(300)
    assert codes([*np.full(20, 2.3), *swinging]) == ["oscillates"]
    noisy = 2.3 * rng.chisquare(1, 1000)  # a batch of one item
    assert codes(noisy * np.exp(-np.arange(1000) / 500)) == []
    assert codes([*np.full(30, 2.3), *np.full(300, 9.0)]) == ["diverges"]
    assert codes([*np.full(30, 2.3), *np.full(300, 87.3365)]) == ["loss-stuck-at-87.3"]


def test_rules_on_tests():
    worse = [
        {"loss": loss, "accuracy": right}
        for loss, right in zip([2.3, 1, 0.8, 1.1, 1.2, 1.4], [0.1, 0.7, 0.8, 0.7, 0.6, 0.6], strict=True)
    ]
    better = [{**test, "accuracy": 0.1 * number} for number, test in enumerate(worse)]
    assert codes(FALLING, worse) == ["overfits"]
    assert codes(FALLING, better) == []
    high = 2.3 - 0.2 * np.arange(1000) / 1000
    tests = [{"loss": loss, "accuracy": 0.2} for loss in (2.3, 2.2, 2.15)]
    assert codes(high, tests) == ["underfits"]
    assert codes(high, tests, length=3000) == []


def test_measured_rules():
    class Measured(Nothing):
        def large(self, limit):
            return [("conv1", 0.7)] if limit < 0.7 else []

        def dead(self, limit):
            return [("conv2", 0.9, 60)] if limit < 0.9 else []

    assert codes(FALLING, samples=Measured()) == ["rate-too-high", "dead-units"]


def test_dying_units_are_found():
    run("-watch", "off", steps=0, bias="-100")
    solver = get_solver("solver.prototxt")
    watch = FaultWatcher(Reports())
    solver.watchers.append(watch)
    solver.step(1)
    watch.state.samples._rest = float("-inf")
    for _ in range(70):
        solver.step(10)
        watch.state.samples._rest = float("-inf")
    assert "dead-units" in watch.reports.told
