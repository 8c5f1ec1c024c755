"""`caffe search`: trials, leases, selection, and the files that are written."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caffe.cli import _search, main
from caffe.doctor.case import Case
from caffe.proto import upgrade
from caffe.search import finals, runs, split
from caffe.search.lease import Lease
from caffe.search.space import read_space
from caffe.search.study import Plan, Search

optuna = pytest.importorskip("optuna", reason="needs the extra search")
ARGV = ["search", "solver.prototxt", "space.yaml", "-trials", "3", "-finalists", "2", "-repeats", "2", "-share", "20"]


def study(small, **plan):
    case = Case("solver.prototxt")
    parts = split.parts(case, small / "found" / "data", 0.2, plan.pop("folds", 1), 1, "")
    plan = Plan(**{"trials": 4, "steps": 20, **plan})
    plan.check()
    return Search(case, read_space("space.yaml"), plan, small / "found", runs.Goal("accuracy", 1), parts, "search")


def test_a_search_ends_with_files_ready_to_train(small, capsys):
    assert main([*ARGV, "-out", "found"]) == 0
    out = capsys.readouterr().out
    report = json.loads((small / "found/report.json").read_text())
    assert len(report["chosen"]["test"]) == len(report["baseline"]["test"]) == 2
    assert report["chosen"]["name"] in [each["name"] for each in report["finalists"]]
    for text in ("gain in the search", "gain on the test data", "<- chosen", "shipped"):
        assert text in out
    solver, net = (small / "found/best" / name for name in ("solver.prototxt", "net.prototxt"))
    assert "# too low" in solver.read_text()
    assert "# the width" in net.read_text()
    param = upgrade.read_solver(solver)
    assert param.base_lr == pytest.approx(report["chosen"]["params"]["solver.base_lr"], rel=1e-6)
    width = next(layer for layer in upgrade.read_net(param.net).layer if layer.name == "ip1").inner_product_param
    assert width.num_output == next(v for name, v in report["chosen"]["params"].items() if "num_output" in name)
    assert upgrade.read_net(param.net).layer[0].data_param.source == "train_lmdb"  # the whole training data
    assert sorted(path.name for path in (small / "found/pictures").iterdir())
    assert not list((small / "found").rglob("*.solverstate"))
    stamp = (small / "found/report.json").stat().st_mtime_ns
    assert main([*ARGV, "-out", "found"]) == 0  # the same search again has nothing to do
    assert (small / "found/report.json").stat().st_mtime_ns == stamp
    assert main([*ARGV, "-out", "found", "-method", "tpe"]) == 1
    assert "another space or other settings" in capsys.readouterr().err


def test_what_the_search_saw_beyond_its_repeats_is_luck():
    goal = runs.Goal("accuracy", 1)
    finalists = [
        finals.Repeats("trial 1", {}, 0.95, [0.90, 0.92], [0.90, 0.91]),
        finals.Repeats("trial 2", {}, 0.94, [0.93, 0.93], []),
    ]
    baseline = finals.Repeats("shipped", {}, math.nan, [0.80, 0.82], [0.80, 0.83])
    report = finals.Report(goal, finalists[0], baseline, finalists, [])
    assert report.gain == pytest.approx(0.95 - 0.81)
    assert report.luck == pytest.approx(0.95 - 0.91)
    gain, half = report.test_gain
    assert gain == pytest.approx(0.09)
    assert half == pytest.approx(0.1271)
    assert "part that disappeared with other seeds (luck): +0.0400 (29 %)" in "\n".join(_search.lines(report))
    only_luck = finals.Repeats("trial 1", {}, 0.95, [0.80, 0.82], [0.80, 0.83])
    report = finals.Report(goal, only_luck, baseline, [only_luck], [])
    assert "(luck): +0.1400 (100 %)" in "\n".join(_search.lines(report))


def killed(small, argv, when):
    """Start a search in a separate process, and kill it as soon as `when()` is true."""
    process = subprocess.Popen(
        [sys.executable, "-m", "caffe", *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not when() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, "the process ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.long
def test_a_killed_trial_is_resumed_with_the_same_result(small):
    whole = study(small, steps=2000, trials=1)
    folder = small / "killed"
    argv = [*ARGV[:3], "-trials", "1", "-steps", "2000", "-share", "20", "-out", "killed"]
    killed(small, argv, lambda: list(folder.glob("search/0000/fold0/run_iter_*.solverstate")))
    left = sorted(path.name for path in (folder / "search/0000/fold0").glob("*.solverstate"))
    assert left
    held = Lease.take(folder / "search/0000/lease")
    assert held is not None  # the kernel has released the locks of the process
    held.release()
    resumed = Search(
        whole.case, whole.space, whole.plan, folder, whole.goal,
        split.parts(whole.case, folder / "data", 0.2, 1, 1, ""), "search",
    )  # fmt: skip
    assert [trial.state.name for trial in resumed.trials] == ["RUNNING"]
    begun = []
    original = runs.snapshot.newest

    def newest(prefix):
        begun.append(original(prefix))
        return begun[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.snapshot, "newest", newest)
        resumed.run(lambda *_: None)
    assert Path(begun[0][0]).name == left[-1]  # from its snapshot, not from the start
    whole.run(lambda *_: None)
    for mine, other in zip(resumed.trials, whole.trials, strict=True):
        assert mine.state.name == "COMPLETE"
        assert (mine.params, mine.value, mine.intermediate_values) == (
            other.params,
            other.value,
            other.intermediate_values,
        )


def test_a_trial_is_never_taken_from_a_living_process(small):
    first, second = study(small), study(small)
    mine = first._new()
    assert second._left_behind() is None
    assert second._new().number == mine.number + 1
    first.close()
    assert second._left_behind().number == mine.number
    second.close()


def test_random_trials_do_not_depend_on_who_runs_them(small):
    alone = study(small)
    values = [alone._new().params for _ in range(4)]
    assert alone._new() is None
    assert len({each["solver.base_lr"] for each in values}) == 4
    (small / "found/journal.log").unlink()
    first, second = study(small), study(small)
    assert [each._new().params for each in (first, second, second, first)] == values
    for each in (alone, first, second):
        each.close()


def test_a_journal_with_half_a_line_is_read(small):
    search = study(small)
    mine = search._new()
    search.close()
    with open(small / "found/journal.log", "ab") as file:
        file.write(b'{"op_code": 5, "worker')  # the file that a process leaves if it is killed while it writes
    other = study(small)
    assert other._left_behind().params == mine.params
    assert other._new().number == mine.number + 1
    other.close()


def test_grid_tries_every_point_once(small):
    (small / "space.yaml").write_text(
        "solver.base_lr: {log_uniform: [1e-2, 1e-1], points: 2}\nsolver.momentum: {choice: [0.0, 0.9]}\n"
    )
    search = study(small, method="grid", steps=5)
    assert search.wanted == 4
    search.run(lambda *_: None)
    assert len({(t.params["solver.base_lr"], t.params["solver.momentum"]) for t in search.trials}) == 4
    assert all(trial.state.name == "COMPLETE" for trial in search.trials)


def test_tpe_and_hyperband_run_to_their_end(small):
    search = study(small, method="tpe", pruner="hyperband", steps=20, trials=6)
    search.run(lambda *_: None)
    assert len(search.trials) == 6
    assert search.ranked
    again = study(small, method="tpe", pruner="hyperband", steps=20, trials=6)
    again.run(lambda *_: None)  # no trial is left
    assert [t.value for t in again.trials] == [t.value for t in search.trials]


def test_folds_diverged_and_failed_trials(small):
    (small / "space.yaml").write_text("solver.base_lr: {choice: [1e-2, 1e30]}\nsolver.momentum: {choice: [0.5, 2.0]}\n")
    search = study(small, method="grid", folds=2, steps=10)
    search.run(lambda *_: None)
    states = {(t.params["solver.base_lr"], t.params["solver.momentum"]): t for t in search.trials}
    good = states[0.01 if (0.01, 0.5) in states else "1e-2", 0.5]
    assert good.state.name == "COMPLETE"
    assert good.value == pytest.approx(np.mean(good.user_attrs["folds"]))
    assert len(good.user_attrs["folds"]) == 2
    bad = next(t for key, t in states.items() if float(key[0]) > 1 and key[1] == 0.5)
    assert (bad.state.name, bad.user_attrs["stopped"]) == ("PRUNED", "diverged")
    assert all(trial.state.is_finished() for trial in search.trials)


@pytest.mark.long
def test_hopeless_trials_are_stopped_early(small):
    (small / "space.yaml").write_text("solver.base_lr: {choice: [0.1, 0.11, 0.12, 0.13, 0.14, 1e-7, 2e-7, 3e-7]}\n")
    search = study(small, method="grid", pruner="median", steps=40)
    search.run(lambda *_: None)
    stopped = [t for t in search.trials if t.state.name == "PRUNED"]
    assert stopped
    assert all(float(t.params["solver.base_lr"]) < 1e-3 for t in stopped)
    assert all(max(t.intermediate_values) < 40 for t in stopped)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-method", "gird"], 'did you mean "grid"'),
        (["-trials", "0"], "-trials 0: expected at least 1"),
        (["-prune", "x"], "-prune x: expected none, median, hyperband"),
        (["-validation", "test_lmdb"], "test_lmdb is the test data"),
        (["-metric", "acuracy"], 'did you mean "accuracy"'),
        (["-metric", "loss", "-direction", "up"], "expected maximize or minimize"),
        (["-storage", "sqlite:///x.db"], "SQLite"),
        (["-folds", "0"], "-folds 0"),
        (["-share", "95"], "-share 95"),
    ],
)
def test_a_wrong_setting_is_one_error(small, capsys, argv, text):
    assert main([*ARGV, *argv]) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert text in error
    assert len(error.splitlines()) == 1


def test_without_optuna_the_error_names_the_extra(small, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(ARGV) == 1
    assert "pip install 'cafetiere[search]'" in capsys.readouterr().err
