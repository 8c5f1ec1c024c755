"""Closed or full output streams, pipes without a reader, and interrupts at any time: one clean line, or no output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caffe.cli import main, streams

CAFFE = f"{sys.executable} -m caffe"
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this platform")


def shell(line: str) -> tuple[int, list[str]]:
    """Run a line of shell; return its exit code and its standard error."""
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (f"{CAFFE} --version >&-", 0, []),
        (f"{CAFFE} --version 2>&-", 0, []),
        (f"{CAFFE} --version <&- >&- 2>&-", 0, []),
        (f"{CAFFE} nonsense 2>&-", 1, []),
        pytest.param(f"{CAFFE} nonsense 2>/dev/full", 1, [], marks=FULL),
        pytest.param(
            f"{CAFFE} --help >/dev/full",
            1,
            ["caffe: error: cannot write the output: No space left on device"],
            marks=FULL,
        ),
    ],
)
def test_streams_that_cannot_be_written(line, code, expected):
    found, lines = shell(line)
    assert found == code
    assert [text.partition(";")[0] for text in lines] == expected


def test_a_reader_that_went_away_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "caffe", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@FULL
@pytest.mark.parametrize("descriptors", [">&-", "2>&-", ">&- 2>&-"])
def test_a_database_does_not_get_the_number_of_a_closed_stream(descriptors, tmp_path):
    """Otherwise, text that a library prints to standard output or error would be written into the database."""
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:2]\n"
        "from caffe.cli import streams\n"
        "streams.ensure()\n"
        f"file = open({str(tmp_path / 'data')!r}, 'wb')\n"
        "assert file.fileno() > 2\n"
        "print('text'); print('text', file=sys.stderr)\n"
    )
    found, _ = shell(f"{sys.executable} -c {shlex.quote(code)} {Path(streams.__file__).parents[2]} {descriptors}")
    assert found == 0
    assert (tmp_path / "data").read_bytes() == b""


@FULL
def test_a_full_log_file_is_told_once(noise, capfd):
    assert main(["train", "-solver", "solver.prototxt", "--log", "/dev/full"]) == 0
    err = capfd.readouterr().err
    assert err.count("the log file /dev/full is not complete: No space left on device") == 1
    assert "Traceback" not in err
    assert "Optimization Done." in err


@pytest.mark.parametrize("delay", [0.15, 0.4, pytest.param(0.9, marks=pytest.mark.long)])
def test_an_interrupt_while_it_loads(delay, noise):
    command = [sys.executable, "-m", "caffe", "time", "-model", "net.prototxt", "-iterations", "100000000"]
    with subprocess.Popen(
        [*command, "-minloglevel", "2"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
        code = process.wait(timeout=60)
    # before our first line is executed, Python handles the signal
    assert err in ("caffe: interrupted\n", "") or "runpy" in err
    assert code in (130, -signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="no termination signal on this platform")
def test_a_termination_signal_snapshots_stops_and_tells_how_to_resume(noise):
    text = (noise / "solver.prototxt").read_text()
    (noise / "solver.prototxt").write_text(text.replace("max_iter: 8", "max_iter: 100000000"))
    command = [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt", "-level", "2", "-stage", "a b"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "Iteration 6 (" in line:
                break
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 0, rest
    (state,) = re.findall(
        r"resume with: caffe train -solver solver.prototxt -snapshot (\S+) -level 2 -stage 'a b'", rest
    )
    assert (noise / state).is_file()
    assert (noise / state.replace("solverstate", "caffemodel")).is_file()


def test_no_command_is_told_where_there_is_no_snapshot(noise, capfd, monkeypatch):
    from caffe.solver import Solver

    original = Solver.apply_update

    def update(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Solver, "apply_update", update)
    text = (noise / "solver.prototxt").read_text()
    (noise / "solver.prototxt").write_text(text + "\nsnapshot_after_train: false\n")
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert "there is no snapshot of iteration 1. There is no good snapshot" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "code", "message"), [("SIGINT", 130, "caffe: interrupted\n"), ("SIGTERM", 143, "")])
def test_a_signal_while_a_library_is_imported_ends_the_process_at_once(name, code, message):
    """An exception would propagate through the library's import code, which does not handle it."""
    program = f"""
import os, signal, sys, types
from caffe import cli
sys.modules["torch"] = library = types.ModuleType("torch")
library.__spec__ = types.SimpleNamespace(_initializing=True)
with cli._ending_in_order():
    try:
        os.kill(os.getpid(), signal.{name})
    finally:
        print("not reached", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, message)
