"""`caffe train`: checks, devices, signals, curves and log files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import types

import pytest

from caffe import mode
from caffe.cli import main, signals


@pytest.fixture
def at_iteration(monkeypatch):
    """Call functions when the training reaches given iterations."""
    from caffe.solver import Solver

    original = Solver.apply_update
    actions = {}

    def update(self):
        rate = original(self)
        if action := actions.pop(self.iter, None):
            action()
        return rate

    monkeypatch.setattr(Solver, "apply_update", update)
    return actions


def send(number):
    return lambda: os.kill(os.getpid(), number)


def states(folder):
    return sorted(int(re.search(r"\d+", path.stem)[0]) for path in folder.glob("noise_iter_*.solverstate"))


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-sigint_effect", "stopp"], 'Invalid signal effect "stopp" was specified for -sigint_effect; did you mean'),
        (["-sighup_effect=x"], 'Invalid signal effect "x" was specified for -sighup_effect (snapshot, stop, none)'),
        (["-snapshot", "solver.prototxt"], "solver.prototxt: is a text file; expected a solver state"),
        (["-snapshot", "no.solverstate"], "no.solverstate"),
        (["-plot", "curves.jpgg"], 'cannot draw into "curves.jpgg": "jpgg" is not a picture format; did you mean'),
        (["-plot", "no/curves.png"], 'cannot draw into "no/curves.png": there is no folder no'),
        (["-gpu", "zero"], '-gpu "zero": expected "all" or device numbers separated by ","'),
    ],
)
def test_a_wrong_setting_is_one_error(noise, capsys, argv, text):
    assert main(["train", "-solver", "solver.prototxt", *argv]) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert text in error
    assert len(error.splitlines()) == 1
    assert states(noise) == []


def test_a_missing_solver_file_is_named(noise, capsys):
    assert main(["train", "-solver", "sovler.prototxt"]) == 1
    assert re.search(r"^caffe: error: .*sovler\.prototxt", capsys.readouterr().err, re.M)


def test_matplotlib_is_missed_before_the_training(noise, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert main(["train", "-solver", "solver.prototxt", "--plot", "curves.png"]) == 1
    assert capsys.readouterr().err == (
        'caffe: error: drawing curves needs the Python package "matplotlib", which is not installed; '
        "install it with: pip install 'cafetiere[plot]'\n"
    )


def test_level_and_stage_reach_the_train_net(noise, capsys):
    assert main(["train", "-solver", "solver.prototxt", "-level", "2", "-stage", "a,b"]) == 0
    assert 'train_state {\n  level: 2\n  stage: "a"\n  stage: "b"\n}' in capsys.readouterr().err


def test_an_interrupt_snapshots_and_stops_and_the_run_resumes(noise, capsys, at_iteration):
    at_iteration[3] = send(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    err = capsys.readouterr().err
    assert "Optimization stopped early." in err
    assert "interrupt again to stop at once" in err
    assert states(noise) == [3]
    assert signal.getsignal(signal.SIGINT) is before
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", "noise_iter_3.solverstate"]) == 0
    err = capsys.readouterr().err
    assert "caffe.cpp:235] Resuming from noise_iter_3.solverstate" in err
    assert "solver.cpp:239] Iteration 4 (" in err
    assert "solver.cpp:239] Iteration 2 (" not in err
    assert states(noise) == [3, 4, 8]


def test_a_second_interrupt_stops_at_once(noise, capsys, at_iteration):
    def twice():
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    at_iteration[3] = twice
    assert main(["train", "-solver", "solver.prototxt"]) == 130
    assert capsys.readouterr().err.endswith("caffe: interrupted\n")
    assert states(noise) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no hang-up signal on this platform")
def test_a_hang_up_snapshots_and_goes_on(noise, capsys, at_iteration):
    at_iteration[3] = send(signal.SIGHUP)
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert states(noise) == [3, 4, 8]
    assert "Optimization stopped early." not in capsys.readouterr().err


def test_signals_can_be_without_effect(noise, capsys, at_iteration):
    at_iteration[3] = send(signal.SIGINT)
    at_iteration[5] = send(signal.SIGHUP)
    assert main(["train", "-solver", "solver.prototxt", "-sigint_effect=none", "-sighup_effect=none"]) == 0
    assert states(noise) == [4, 8]


def test_effects_can_be_exchanged(noise, capsys, at_iteration):
    at_iteration[2] = send(signal.SIGINT)
    at_iteration[3] = send(signal.SIGHUP)
    assert main(["train", "-solver", "solver.prototxt", "-sigint_effect=snapshot", "-sighup_effect=stop"]) == 0
    assert states(noise) == [2, 3]


def test_outside_the_main_thread_signals_are_left_alone(monkeypatch):
    monkeypatch.setattr(threading, "current_thread", lambda: None)
    before = signal.getsignal(signal.SIGINT)
    with signals.acting({"SIGINT": "stop"}, print, print):
        assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.long  # test_streams sends another signal to a process in every run of the tests
def test_a_signal_to_a_real_process(noise):
    text = (noise / "solver.prototxt").read_text()
    (noise / "solver.prototxt").write_text(text.replace("max_iter: 8", "max_iter: 100000000"))
    command_line = [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt"]
    with subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "Iteration 6 (" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 0, rest
    assert "Optimization stopped early." in rest
    assert "caffe.cpp:250] Optimization Done." in rest


def test_curves_are_drawn_at_snapshots_and_at_the_end(noise, capsys, monkeypatch):
    from caffe import plot

    drawn = []
    monkeypatch.setattr(plot, "draw", lambda runs, path: drawn.append((len(runs[0].loss.points), path)))
    assert main(["train", "-solver", "solver.prototxt", "--plot", "curves.png"]) == 0
    assert drawn == [(4, "curves.png"), (8, "curves.png"), (8, "curves.png")]


def test_a_picture_that_fails_does_not_end_the_training(noise, capsys, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **options: (noise / "gone").stat())
    assert main(["train", "-solver", "solver.prototxt", "--plot", "curves.png"]) == 0
    assert len(re.findall(r"^W.* the curves were not drawn: .*curves\.png", capsys.readouterr().err, re.M)) == 3
    assert states(noise) == [4, 8]


def test_the_recorded_curves_are_those_of_the_log(noise, capsys, monkeypatch):
    from caffe import plot

    runs = []
    monkeypatch.setattr(plot, "draw", lambda curves, path: runs.extend(curves))
    assert main(["train", "-solver", "solver.prototxt", "--plot", "curves.png", "--log", "train.log"]) == 0
    recorded, read = runs[-1], plot.read_log("train.log")
    assert recorded.net == read.net == "Noise"
    assert [x for x, _ in recorded.loss.points] == list(range(8))
    assert read.loss.points == [(x, pytest.approx(y, rel=1e-5)) for x, y in recorded.loss.points[::2]] + [(8, ANY)]
    assert read.rate.points == [(x, 0.01) for x in (0, 2, 4, 6)]
    assert recorded.rate.points == [(x, pytest.approx(0.01)) for x in range(8)]
    for kind, name in (("test_loss", "loss"), ("scores", "accuracy")):
        theirs, ours = getattr(read, kind), getattr(recorded, kind)
        assert list(theirs) == list(ours) == [name]
        assert theirs[name].points == [(x, pytest.approx(y, rel=1e-5)) for x, y in ours[name].points]
        assert [x for x, _ in ours[name].points] == [0, 4, 8]


def test_the_log_file_holds_what_standard_error_got(noise, capsys):
    assert main(["train", "-solver", "solver.prototxt", "--log", "train.log"]) == 0
    assert (noise / "train.log").read_text() == capsys.readouterr().err


def gpus(monkeypatch, count):
    """Make PyTorch report `count` GPUs."""
    import torch

    facts = types.SimpleNamespace(name="Test GPU", major=9, minor=1, total_memory=7_000_000, multi_processor_count=13)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: facts)
    monkeypatch.setattr(mode, "_gpu", False)
    monkeypatch.setattr(mode, "_device_id", 0)


@pytest.mark.parametrize("wanted", ["0", "all", "1,2"])
def test_without_a_gpu_one_warning_and_the_cpu(noise, capsys, monkeypatch, wanted):
    gpus(monkeypatch, 0)
    assert main(["train", "-solver", "solver.prototxt", "-gpu", wanted]) == 0
    err = capsys.readouterr().err
    assert re.findall(r"^W.*\] (.*) asks for a GPU", err, re.M) == [f'"-gpu {wanted}"']
    assert "caffe.cpp:197] Use CPU." in err


def test_solver_mode_gpu_without_a_gpu(noise, capsys, monkeypatch):
    gpus(monkeypatch, 0)
    text = (noise / "solver.prototxt").read_text()
    (noise / "solver.prototxt").write_text(text.replace("solver_mode: CPU", "solver_mode: GPU"))
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert len(re.findall(r'^W.*\] solver\.prototxt \("solver_mode: GPU"\) asks', capsys.readouterr().err, re.M)) == 1


def test_the_choice_of_a_gpu(monkeypatch):
    from caffe.cli import _device
    from caffe.errors import CaffeError

    gpus(monkeypatch, 3)
    assert _device.gpus("all") == [0, 1, 2]
    assert _device.use("2,0", "caffe.cpp:204", "test") == [2, 0]
    assert str(mode.device()) == "cuda:2"
    assert _device.use("", "caffe.cpp:204", "test") == []
    assert str(mode.device()) == "cpu"
    with pytest.raises(CaffeError, match="-gpu 3: there is no device 3; this machine has 3, counted from 0"):
        _device.gpus("3")


def test_device_query_describes_the_gpus(capsys, monkeypatch):
    gpus(monkeypatch, 2)
    assert main(["device_query", "-gpu", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("CPU: ")
    assert re.search(r"\] Device id: +1$", err, re.M)
    assert re.search(r"\] Name: +Test GPU$", err, re.M)
    assert re.search(r"\] Total global memory: +7000000$", err, re.M)
    assert len(re.findall(r"Device id:", err)) == 1


class _Anything:
    def __eq__(self, other):
        return True


ANY = _Anything()


@pytest.mark.parametrize(
    ("form", "place", "history"),
    [("HDF5", "sgd_solver.cpp:296] Snapshotting solver state to HDF5 file noise_iter_4.solverstate.h5", 0),
     ("BINARYPROTO", "sgd_solver.cpp:284] Snapshotting solver state to binary proto file noise_iter_4.solverstate", 1)],
)  # fmt: skip
def test_log_lines_of_the_two_kinds_of_snapshots(noise, capsys, form, place, history):
    path = noise / "solver.prototxt"
    path.write_text(f"{path.read_text()} snapshot_format: {form}")
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert f"{place}\n" in capsys.readouterr().err
    state = "noise_iter_4.solverstate" + (".h5" if form == "HDF5" else "")
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", state]) == 0
    assert capsys.readouterr().err.count("sgd_solver.cpp:336] SGDSolver: restoring history\n") == history
