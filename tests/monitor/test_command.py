"""`caffe monitor` and `caffe train -monitor`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from caffe.cli import _monitor, main
from tests.monitor.helpers import fetch, log

pytest.importorskip("starlette", reason="needs the package starlette")
pytest.importorskip("uvicorn", reason="needs the package uvicorn")

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 3 dim: 5 } shape { dim: 3 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 display: 1 snapshot_prefix: "tiny"'


def test_the_command_tells_its_address_serves_and_ends_with_ctrl_c(tmp_path):
    log(tmp_path / "a.log", 5)
    words = [sys.executable, "-m", "caffe", "monitor", str(tmp_path), "-port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        assert fetch(f"{url}api/runs")["all"] == 1
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert (out, errors, process.returncode) == ("The monitor has ended.\n", "", 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.log"], "nothing.log: there is no such file or folder"),
        ([".", "-port", "70000"], "-port 70000: expected 0 (any free one) to 65535"),
        ([".", "-host", "203.0.113.7"], "cannot listen at 203.0.113.7:8050"),
    ],
)
def test_what_cannot_be_shown_is_told(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["monitor", *words]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.long
def test_training_with_the_monitor_writes_a_log_that_it_reads(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    words = [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt", "-monitor"]
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "The monitor is at http://127.0.0.1:" in done.stdout + done.stderr
    assert "to start it again: caffe monitor tiny_train.log" in done.stdout + done.stderr
    text = (tmp_path / "tiny_train.log").read_text()
    assert "Initializing solver from parameters" in text
    assert "Optimization Done" in text


def test_the_address_is_the_first_word_of_the_first_line():
    reader, writer = os.pipe()
    os.write(writer, b"http://127.0.0.1:8000/ (Ctrl-C ends it)\nmore\n")
    os.close(writer)
    with open(reader, "rb") as stdout:
        assert _monitor._first_line(SimpleNamespace(stdout=stdout)) == "http://127.0.0.1:8000/"
