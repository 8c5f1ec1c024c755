"""The output at a terminal, which replaces the log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from caffe import log
from caffe.cli import display, logs, main


@pytest.fixture
def screen(monkeypatch):
    """Make commands write to a terminal of 100 columns; the fixture returns the text without colours."""
    file = io.StringIO()
    terminal = display.Terminal()
    terminal.console = Console(file=file, force_terminal=True, width=100, highlight=False, color_system=None)
    monkeypatch.setattr(display, "choose", lambda verbose: display.Display() if verbose else terminal)
    return lambda: re.sub(r"\x1b\[[?\d;]*[a-zA-Z]|\r", "", file.getvalue())


def test_training_shows_progress_and_results(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    drawn = screen()
    assert capsys.readouterr() == ("", "")
    sizes = r"\d layers, 355 parameters \(1\.42 kB\), .* of data per batch$"
    assert re.findall(rf"^Noise \((.*)\): {sizes}", drawn, re.M) == ["TRAIN", "TEST"]
    assert re.findall(r"iteration (\d): test: accuracy [\d.]+, loss [\d.e-]+ *$", drawn, re.M) == ["0", "4", "8"]
    files = r"weights noise_iter_\d\.caffemodel, state noise_iter_\d\.solverstate"
    assert re.findall(rf"iteration (\d): snapshot: {files} *$", drawn, re.M) == ["4", "8"]
    assert re.search(r"train Noise .* 8/8 +in 0:\d\d", drawn)
    assert re.search(r"^train: loss [\d.e-]+, learning rate 0\.01   test: accuracy", drawn, re.M)
    assert "Creating layer" not in drawn


def test_the_log_file_is_full_all_the_same(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt", "--log", "full.log"]) == 0
    text = (noise / "full.log").read_text()
    assert "net.cpp:86] Creating Layer conv" in text
    assert text.endswith("caffe.cpp:250] Optimization Done.\n")
    assert "Creating Layer" not in screen()


def test_verbose_gives_the_full_log(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt", "-v"]) == 0
    assert "net.cpp:86] Creating Layer conv" in capsys.readouterr().err
    assert screen() == ""


def test_warnings_are_short(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt", "-model", "x"]) == 0
    assert screen().startswith("caffe: warning: flag -model has no meaning for 'train' and is not used\n")


def test_test_shows_the_means(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt", "-v"]) == 0
    capsys.readouterr()
    assert main(["test", "-model", "net.prototxt", "-weights", "noise_iter_8.caffemodel", "-iterations", "3"]) == 0
    drawn = screen()
    assert re.search(r"test Noise .* 3/3", drawn)
    assert re.search(r"^total loss: [\d.e-]+\naccuracy: [\d.]+\nloss: [\d.e-]+\n\Z", drawn, re.M)
    assert "mean of 3 batches:\ntotal loss" in drawn


def test_several_test_nets_are_numbered(noise, screen, capsys):
    solver = (noise / "solver.prototxt").read_text().replace('net: "net', 'train_net: "net').replace("test_iter: 2", "")
    more = 'test_net: "net.prototxt" test_net: "net.prototxt" test_iter: 2 test_iter: 3 snapshot_format: HDF5'
    (noise / "solver.prototxt").write_text(f"{solver} {more}")
    assert main(["train", "-solver", "solver.prototxt", "-plot", "curves.png"]) == 0
    drawn = screen()
    assert re.findall(r"^Noise \((.*)\):", drawn, re.M) == ["TRAIN", "TEST net 0", "TEST net 1"]
    assert "snapshot: weights noise_iter_8.caffemodel.h5, state noise_iter_8.solverstate.h5" in drawn
    assert "the curves are in curves.png" in drawn


def test_a_run_without_iterations_left_tells_its_test(noise, screen, capsys):
    assert main(["train", "-solver", "solver.prototxt", "-v"]) == 0
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", "noise_iter_8.solverstate"]) == 0
    assert re.search(r"^test: accuracy [\d.]+, loss [\d.e-]+ *$", screen(), re.M)


def test_a_total_that_is_not_known_yet_is_not_shown(screen):
    terminal = display.choose(False)
    with terminal.bar("making", 0) as bar:
        assert not re.search(r"making .*\d", screen())
        bar.update(2500, total=5000)
        bar.update(5000)
    assert re.search(r"making .* 5,000/5,000 +in 0:00", screen())


@pytest.mark.parametrize(("seconds", "shown"), [(None, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7384, "2:03:04")])
def test_times_are_minutes_and_seconds(seconds, shown):
    assert display._clock(seconds) == shown


def test_time_shows_a_bar_and_prints_a_table(noise, screen, capsys):
    assert main(["time", "-model", "net.prototxt", "-iterations", "2"]) == 0
    drawn, (out, err) = screen(), capsys.readouterr()
    assert re.search(r"time Noise .* 2/2", drawn)
    assert re.search(r"^conv +Convolution ", out, re.M)
    assert "Convolution" not in drawn
    assert err == ""


def test_choice_of_a_display(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for terminal, verbose, drawn in ((True, False, True), (True, True, False), (False, False, False)):
        monkeypatch.setattr(display.sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        assert display.choose(verbose).terminal is drawn
    monkeypatch.setattr(display.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not display.choose(False).terminal


def test_the_logger_is_as_before_after_a_command(noise, capsys):
    before = log.logger.handlers[:], log.logger.level, log.logger.propagate
    assert main(["layers", "--log", "a.log"]) == 0
    assert (log.logger.handlers, log.logger.level, log.logger.propagate) == before
    assert logs.session.__doc__
