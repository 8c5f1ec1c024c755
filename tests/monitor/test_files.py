"""Logs that grow, are truncated, rewritten, rotated or deleted, or are not logs; event files; the index."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from caffe.errors import FileError
from caffe.monitor import index
from caffe.monitor.alerts import Alerts
from caffe.monitor.board import Board
from caffe.monitor.log_source import LogSource
from caffe.monitor.net_of_run import net_of
from tests.conftest import shared
from tests.monitor.helpers import DONE, head, lines, log, read_all


def test_a_log_of_real_caffe():
    board = read_all(Board([shared("golden/logs/train.log")]))
    (run,) = board.runs
    curves = run.curves
    np.testing.assert_array_equal(curves["loss"].x, range(0, 41, 5))
    np.testing.assert_allclose(curves["test/accuracy"].y, [0.233333, 0.266667, 0.466667, 0.366667, 0.366667], rtol=1e-6)
    np.testing.assert_allclose(curves["rate"].y[:2], [0.004, 0.00385628], rtol=1e-6)
    assert run.state() == "finished"
    assert run.facts.settings["lr_policy"] == "inv"
    assert run.facts.settings["weights"] == "init.caffemodel"
    net, shapes = net_of(run)
    assert [layer.name for layer in net.layer] == ["mnist", "conv1", "pool1", "ip1", "relu1", "ip2", "loss"]
    assert shapes["conv1"] == (8, 4, 10, 10)
    assert shapes["loss"] == ()


def test_two_test_nets_and_a_resumed_run():
    two, resumed = read_all(Board([shared("golden/logs/train_two_tests.log"), shared("golden/logs/resume.log")])).runs
    assert {"test/accuracy", "test1/accuracy"} <= set(two.curves)
    assert resumed.curves["loss"].x[0] == 20


def test_a_log_that_grows_by_halves_of_lines(tmp_path):
    path = tmp_path / "a.log"
    text = head() + "".join(lines(i, 1.5 + i) for i in range(50)) + DONE
    board = Board([tmp_path])
    for at in range(0, len(text), 997):
        with open(path, "a") as file:
            file.write(text[at : at + 997])
        read_all(board)
    (run,) = board.runs
    np.testing.assert_array_equal(run.curves["loss"].y, 1.5 + np.arange(50))
    np.testing.assert_array_equal(run.curves["train/loss"].x, np.arange(50))
    np.testing.assert_allclose(run.curves["loss"].seconds[-1], 4.9)
    assert run.facts.settings["test_iter"] == "2, 3"
    assert run.state() == "finished"


@pytest.mark.parametrize("how", ["cut", "rewritten", "replaced"])
def test_another_run_in_the_same_file_replaces_the_first(tmp_path, how):
    path = log(tmp_path / "a.log", 300)
    board = read_all(Board([path]))
    text = head(0.5) + lines(0, 7) + lines(10, 8)
    if how == "cut":
        os.truncate(path, 0)
        read_all(board)
        path.write_text(text)
    elif how == "rewritten":
        path.write_text(text + "I1129 10:00:00.000000 1 x.cpp:1] and so on\n" * 3000)
    else:
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", path)
    read_all(board)
    (run,) = board.runs
    np.testing.assert_array_equal(run.curves["loss"].y, [7, 8])
    assert run.facts.settings["base_lr"] == "0.5"
    assert "from its start" in run.messages[0]


def test_a_log_that_is_rotated_goes_on(tmp_path):
    path = log(tmp_path / "a.log", 30)
    board = read_all(Board([path]))
    os.replace(path, tmp_path / "a.log.1")
    read_all(board)
    assert "deleted, moved" in board.runs[0].messages[0]
    path.write_text(lines(300, 1) + lines(310, 2))
    read_all(board)
    np.testing.assert_array_equal(board.runs[0].curves["loss"].x, range(0, 320, 10))
    assert board.runs[0].facts.settings["base_lr"] == "0.1"


def test_a_log_that_is_deleted_stays_shown_with_a_message(tmp_path):
    path = log(tmp_path / "a.log", 30)
    board = read_all(Board([path]))
    path.unlink()
    assert read_all(board).read() == (set(), False)
    (run,) = board.runs
    assert run.messages == [
        "cannot read a.log: the file does not exist (deleted, moved, or not yet written); what was read is kept"
    ]
    assert len(run.curves["loss"].x) == 30


def test_files_that_are_no_logs_get_a_message(tmp_path):
    (tmp_path / "binary.log").write_bytes(bytes(range(256)) * 20000)
    (tmp_path / "one_line.log").write_bytes(b"x" * 3_000_000)
    (tmp_path / "prose.log").write_text("Once upon a time\n")
    (tmp_path / "empty.log").write_text("")
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "events.out.tfevents.1.x").write_bytes(os.urandom(5000))
    board = Board([tmp_path, tmp_path / "pipe.log"])
    read_all(board)
    told = {run.name: " ".join(run.messages) for run in board.runs}
    assert "is binary" in told["binary.log"]
    assert "no line of a training run" in told["one_line.log"]
    assert "no line of a training run" in told["prose.log"]
    assert "it is a pipe" in told["pipe.log"]
    assert board.runs[1].state() == "no data"
    assert all(not run.curves for run in board.runs)


def test_damaged_logs_are_read_as_far_as_they_make_sense(tmp_path):
    rng = np.random.default_rng(0)
    text = shared("golden/logs/train.log").read_bytes()
    pieces = [
        b"nan",
        b"-inf",
        b"1e999",
        b"9" * 30,
        b"1.2.3",
        b"\xff\0",
        b"\n",
        b"W1399 99:99:99.9",
        b"= ",
        b"lr",
        b"Iteration ",
    ]
    for number in range(80):
        damaged = bytearray(text)
        for at in rng.integers(0, len(text), 40):
            damaged[at : at + rng.integers(0, 5)] = pieces[rng.integers(len(pieces))]
        path = tmp_path / f"{number}.log"
        path.write_bytes(damaged)
        run = read_all(Board([path])).runs[0]
        assert not run.message, run.message
        assert all((np.diff(arrays.x) > 0).all() for arrays in run.curves.values())


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.log: there is no such file or folder"):
        Board([tmp_path / "nothing.log"])


def test_the_index_lets_a_second_start_go_on(tmp_path, monkeypatch):
    path = log(tmp_path / "a.log", 2000)
    first = read_all(Board([path]))
    first.close()
    assert index.paths(path)[0].exists()
    with open(path, "a") as file:
        file.write(lines(20000, 0.5) + DONE)
    read: list[int] = []
    use = LogSource.use
    monkeypatch.setattr(LogSource, "use", lambda self, data: read.append(len(data)) or use(self, data))
    second = read_all(Board([path]))
    assert sum(read) < 1000
    whole, part = first.runs[0], second.runs[0]
    assert isinstance(whole.sources[path].curves["loss"].arrays.x.base, np.memmap)  # as soon as it was written
    for tag in ("loss", "rate", "train/loss"):
        for one, other in zip(whole.curves[tag], part.curves[tag], strict=True):
            np.testing.assert_array_equal(one, other[: len(one)])
    assert part.curves["loss"].x[-1] == 20000
    assert part.facts.settings == whole.facts.settings
    assert part.state() == "finished"


@pytest.mark.parametrize("damage", ["cut", "other", "old log"])
def test_an_index_that_does_not_fit_is_not_used(tmp_path, damage):
    path = log(tmp_path / "a.log", 2000)
    read_all(Board([path])).close()
    held = index.paths(path)[0]
    if damage == "cut":
        held.write_bytes(held.read_bytes()[:-7])
    elif damage == "other":
        held.write_bytes(b"CAFEIDX1" + os.urandom(100))
    else:
        log(path, 2500, rate=0.7)
    (run,) = read_all(Board([path])).runs
    assert len(run.curves["loss"].x) == (2500 if damage == "old log" else 2000)


def test_the_index_of_a_folder_that_cannot_be_written_lies_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = log(tmp_path / "a.log", 2000)
    beside, cached = index.paths(path)
    beside.mkdir()  # so that no file can have this name, not even for root
    read_all(Board([path])).close()
    assert cached.is_file()
    read_all(Board([path]))


def test_findings_warnings_and_a_failure(tmp_path):
    path = tmp_path / "a.log"
    found = "W1129 10:00:01.000000 1 watch] rate-too-high at iteration 30: updates are large. Lower base_lr\n"
    path.write_text(head() + lines(0, 1) + found + "W1129 10:00:02.000000 1 x.cpp:1] careful\n")
    (tmp_path / "a_findings.jsonl").write_text('{"code": "dead-units", "iteration": 5, "message": "m"}\n{"code": "ha')
    (tmp_path / "report.json").write_text(json.dumps({"findings": [{"code": "c"}], "seconds": 1}))
    (run,) = read_all(Board([tmp_path])).runs
    assert [finding["code"] for finding in run.facts.findings] == ["rate-too-high", "dead-units"]
    assert run.facts.lines == ["warning: careful"]
    assert run.report["findings"] == [{"code": "c"}]
    with open(path, "a") as file:
        file.write("F1129 10:00:03.000000 1 caffe] Iteration 43: the loss is nan: training stops\n")
    board = Board([path])
    assert read_all(board).runs[0].state() == "failed"


def test_alerts_tell_what_is_new(tmp_path):
    path = log(tmp_path / "a.log", 3)
    out = tmp_path / "told"
    alerts = Alerts(f'cat >> {out}; echo "$CAFFE_RUN $CAFFE_FINDING $CAFFE_ITERATION" >> {out}')
    board = Board([path], alerts)
    read_all(board)
    with open(path, "a") as file:
        file.write("W1129 10:00:01.000000 1 watch] diverges at iteration 4: the loss is NaN\n")
    read_all(board)
    alerts.commands.finish(30)
    first, second = out.read_text().splitlines()
    assert json.loads(first) == {
        "run": "a.log", "code": "diverges", "iteration": 4, "message": "the loss is NaN", "severity": "warning"
    }  # fmt: skip
    assert second == "a.log diverges 4"


def test_runs_that_appear_later_are_found_and_names_differ(tmp_path):
    board = Board([tmp_path])
    for name in ("x/a.log", "y/a.log"):
        (tmp_path / name).parent.mkdir()
        log(tmp_path / name, 3)
    read_all(board)
    assert sorted(run.name for run in board.runs) == ["x/a.log", "y/a.log"]
    both = Board([tmp_path / "x/a.log", tmp_path / "y/a.log", tmp_path / "x"])
    assert sorted(run.name for run in both.runs) == ["a.log", "y/a.log"]


def test_event_files(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the package tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    from caffe.monitor import views

    for begin in (0, 20):
        with SummaryWriter(str(tmp_path / "run"), filename_suffix=f".{begin}") as writer:
            for step in range(begin, begin + 30):
                writer.add_scalar("loss", step + begin, step)
            writer.add_histogram("weights/ip", np.linspace(-1, 2, 300), begin)
            writer.add_image("data", np.zeros((3, 4, 5), np.uint8), begin)
            writer.add_text("solver", f"base_lr: 0.{begin + 5}", begin)
            writer.add_text("findings", "diverges: the loss is NaN", begin)
    first = read_all(Board([tmp_path]))
    for source in first.runs[0].sources.values():
        assert index.save(source)
    board = read_all(Board([tmp_path]))  # an index is no event file
    (run,) = board.runs
    assert run.messages == []
    np.testing.assert_array_equal(run.curves["loss"].y, [*range(20), *range(40, 70)])
    assert run.facts.findings[0]["code"] == "diverges"
    assert run.facts.settings["base_lr"] == "0.25"
    found = views.histograms(run, "weights/ip")
    assert (found["steps"], found["edges"][0], found["edges"][-1]) == ([0, 20], -1, 2)
    np.testing.assert_allclose([sum(row) for row in found["counts"]], 300)
    assert views.image(run, "data", 1)[:4] == b"\x89PNG"
    shutil.rmtree(tmp_path / "run")
    read_all(board)
    with pytest.raises(FileError, match="cannot read the event"):
        views.image(run, "data", 1)
