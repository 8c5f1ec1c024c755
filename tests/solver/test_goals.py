"""The best weights, early stopping, lengths in epochs, the number of kept snapshots, and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.cli import main
from caffe.errors import SolverError
from caffe.proto import upgrade
from caffe.solver import get_solver
from caffe.solver.goals import Best, Last

NET = """
name: "goals"
layer { name: "data" type: "ArrayData" top: "data" top: "label" array_data_param { source: "d.npz" batch_size: 20 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" random_seed: 1 snapshot_prefix: "run" test_iter: 5 '


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    label = rng.integers(3, size=110)
    data = rng.standard_normal((110, 6)) + 2 * np.eye(3, 6)[label]
    np.savez("d.npz", data=data.astype(np.float32), label=label.astype(np.float32))
    Path("net.prototxt").write_text(NET)


def solver(text):
    Path("solver.prototxt").write_text(SOLVER + text)
    return get_solver("solver.prototxt")


class Scripted(Best):
    """Gets given accuracies in place of those of the tests."""

    def __init__(self, param, values):
        super().__init__(param)
        self.values = list(values)

    def tested(self, solver, iteration, net_index, outputs):
        super().tested(solver, iteration, net_index, {"accuracy": [self.values.pop(0)], "loss": [1.0]})


def scripted(text, values):
    made = solver(text)
    best = Scripted(made.param, values)
    made.watchers = [best]
    made.solve()
    return made, best


def test_early_stop_counts_tests_without_progress():
    run, best = scripted(
        "max_iter: 99 test_interval: 2 early_stop { patience: 2 }", [0.1, 0.5, 0.4, 0.6, 0.6, 0.3, 0.9]
    )
    assert run.stopped
    assert best.stopped
    assert (best.value, best.iteration) == (0.6, 6)
    assert run.iter == 11  # the stop that the test at 10 requests takes effect one iteration later


def test_a_gain_that_is_too_small_does_not_count():
    text = "max_iter: 99 test_interval: 2 early_stop { patience: 2 min_gain: 0.05 }"
    run, best = scripted(text, [0.5, 0.52, 0.54, 0.9])
    assert run.stopped
    assert best.iteration == 0


def test_the_smallest_loss_is_best():
    made = solver('max_iter: 40 test_interval: 4 keep_best: true early_stop { output: "loss" patience: 50 }')
    made.solve()
    best = next(each for each in made.watchers if isinstance(each, Best))
    assert best.sign == -1
    assert best.value == pytest.approx(made.test()["loss"][0], abs=0.1)


def test_the_best_weights_are_those_of_the_best_test():
    made = solver("max_iter: 12 test_interval: 4 keep_best: true")
    best = Scripted(made.param, [0.2, 0.9, 0.3, 0.3])
    made.watchers = [best]
    kept = {}

    class Look(caffe.solver.Watcher):
        def tested(self, solver, iteration, net_index, outputs):
            kept[iteration] = solver.net.params["ip"][0].data.copy()

    made.watchers.append(Look())
    made.solve()
    assert best.iteration == 4
    net = caffe.Net("net.prototxt", caffe.TEST, weights="run_best.caffemodel")
    np.testing.assert_array_equal(net.params["ip"][0].data, kept[4])


def test_a_resumed_run_knows_the_best():
    solver("max_iter: 8 test_interval: 4 keep_best: true snapshot: 8").solve()
    value = next(Path().glob("run_best.json")).read_text()
    made = solver("max_iter: 12 test_interval: 4 keep_best: true")
    made.restore("run_iter_8.solverstate")
    made.solve()
    best = next(each for each in made.watchers if isinstance(each, Best))
    assert best.iteration >= 0
    assert f'"value": {best.value}' in value or best.iteration > 8


def test_only_the_last_snapshots_stay():
    Path("run_iter_1.solverstate").write_text("of another run")
    made = solver("max_iter: 10 snapshot: 2 keep_last: 2 test_interval: 99")
    assert any(isinstance(each, Last) for each in made.watchers)
    made.solve()
    names = sorted(path.name for path in Path().glob("run_iter_*"))
    assert names == [
        *("run_iter_1.solverstate", "run_iter_10.caffemodel", "run_iter_10.solverstate"),
        *("run_iter_8.caffemodel", "run_iter_8.solverstate"),
    ]


def test_lengths_in_epochs():
    made = solver("max_epochs: 3 test_every_epoch: true iter_size: 2")
    assert made.param.max_iter == 9  # 3 x 110 / 40 = 8.25
    assert made.param.test_interval == 3
    made = solver('max_epochs: 2 test_interval: 50 lr_policy: "poly" power: 1'.replace('lr_policy: "poly"', ""))
    assert made.param.max_iter == 11


def test_a_schedule_sees_the_length_in_epochs():
    Path("solver.prototxt").write_text(SOLVER.replace("fixed", "poly") + "max_epochs: 2 power: 1 test_interval: 50")
    made = get_solver("solver.prototxt")
    made.step(11)
    assert made.lr == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epochs: 2 max_iter: 5 test_interval: 5", "max_epochs and max_iter are both set"),
        ("max_epochs: 2 test_every_epoch: true test_interval: 5", "test_every_epoch and test_interval are both set"),
        ("max_epochs: -1 test_interval: 5", "max_epochs is -1, expected above 0"),
        ("max_iter: 2 test_interval: 5 early_stop { patience: 0 }", "patience is 0 in early_stop"),
        ("max_iter: 2 test_interval: 5 keep_last: -1", "keep_last is -1, expected 0 or more"),
    ],
)
def test_settings_that_cannot_be_met(text, message):
    with pytest.raises(SolverError, match=message):
        solver(text)


def test_goals_without_tests_or_records():
    Path("solver.prototxt").write_text(SOLVER.replace("test_iter: 5", "") + "max_iter: 2 early_stop { patience: 1 }")
    with pytest.raises(SolverError, match="early_stop is set, but the run has no tests"):
        get_solver("solver.prototxt")
    Path("net.prototxt").write_text(
        NET.replace("ArrayData", "DummyData").replace(
            'array_data_param { source: "d.npz" batch_size: 20 }',
            "dummy_data_param { shape { dim: 5 dim: 6 } shape { dim: 5 } }",
        )
    )
    with pytest.raises(SolverError, match="the data layers of the train net do not report a number"):
        solver("max_epochs: 3 test_interval: 5")


def test_an_output_that_is_not_there():
    made = solver('max_iter: 8 test_interval: 4 early_stop { output: "acuracy" }')
    with pytest.raises(SolverError, match='has no output "acuracy"; did you mean "accuracy"'):
        made.solve()


def test_the_command(capsys):
    Path("solver.prototxt").write_text(SOLVER + "max_epochs: 4 test_every_epoch: true snapshot: 7")
    assert main(["train", "-solver", "solver.prototxt", "-keep", "best", "--keep-last", "1"]) == 0
    log = capsys.readouterr().err
    assert "best accuracy so far" in log
    assert "22 iterations in " in log
    assert "images/s, loss " in log
    assert "next: caffe test -model net.prototxt -weights run_best.caffemodel -iterations 5" in log
    assert sorted(path.name for path in Path().glob("run_*.caffemodel")) == [
        "run_best.caffemodel",
        "run_iter_22.caffemodel",
    ]
    assert main(["train", "-solver", "solver.prototxt", "-keep", "bets"]) == 1
    assert '-keep bets: expected best; did you mean "best"?' in capsys.readouterr().err


def test_resume_takes_the_newest_whole_snapshot(capsys):
    Path("solver.prototxt").write_text(SOLVER + "max_iter: 9 test_interval: 50 snapshot: 3")
    assert main(["train", "-solver", "solver.prototxt", "-resume"]) == 0  # begins
    whole = Path("run_iter_9.solverstate").read_bytes()
    Path("run_iter_12.solverstate").write_bytes(whole[: len(whole) // 2])
    Path("run_iter_15.solverstate").write_bytes(whole.replace(b"run_iter_9.", b"run_iter_8."))  # without weights
    Path("solver.prototxt").write_text(SOLVER + "max_iter: 11 test_interval: 50 snapshot: 3")
    capsys.readouterr()
    assert main(["train", "-solver", "solver.prototxt", "-resume"]) == 0
    log = capsys.readouterr().err
    assert "Resuming from run_iter_9.solverstate" in log
    assert log.count("continuing from the previous snapshot") == 2
    assert upgrade.read_solver("solver.prototxt").max_iter == 11
    assert Path("run_iter_11.solverstate").exists()
    assert main(["train", "-solver", "solver.prototxt", "-resume", "-snapshot", "run_iter_9.solverstate"]) == 1


def test_an_early_stop_is_the_end_of_a_run_and_not_of_its_members(capsys):
    Path("solver.prototxt").write_text(
        SOLVER + 'max_iter: 40 test_interval: 1 early_stop { patience: 1 min_gain: 9 output: "loss" }'
    )
    assert main(["train", "-solver", "solver.prototxt", "-members", "2"]) == 0
    log = capsys.readouterr().err
    assert log.count("Optimization stopped early") == 2
    assert "resume with" not in log
    assert len(list(Path().glob("run_member*_iter_*.caffemodel"))) == 2


def test_of_equally_good_tests_the_one_with_the_smallest_loss_is_kept():
    made = solver("max_iter: 8 test_interval: 4 keep_best: true early_stop { patience: 3 }")
    (best,) = (each for each in made.watchers if isinstance(each, Best))
    for iteration, accuracy, loss in ((1, 0.5, 0.9), (2, 0.75, 0.8), (3, 0.75, 0.5), (4, 0.75, 0.6), (5, 0.5, 0.1)):
        best.tested(made, iteration, 0, {"accuracy": [accuracy], "loss": [loss]})
    assert (best.iteration, best.value, best.stopped) == (3, 0.75, True)
