"""Repeat each recorded run of the reference tool: the log lines, numbers and exit code must be the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from caffe.cli import command, flags, main
from tests.conftest import reference, shared

LINE = re.compile(r"^([IWEF])\d{4,8} \d\d:\d\d:\d\d\.\d{6} +\d+ ([\w.]+:\d+)\] ?(.*)$")
TIMING = [
    (re.compile(r"(forward: |backward: |time: |pass: |Backward: |Time: )\S+ ms\."), r"\1# ms."),
    (re.compile(r"\([^)]* iter/s, [^)]*s/(\d+) iters\)"), r"(# iter/s, #s/\1 iters)"),
]
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")


def cases(ended_well):
    path = reference("golden", "logs", "logs.json")
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"reference files not found at {path}"), id="missing")]
    runs = json.loads(path.read_text())
    return [name for name, run in runs.items() if isinstance(run, dict) and (run["rc"] == 0) == ended_well]


def lines(text, once_per_process=False):
    """Return (severity, place, message) of each log line; a line without a header continues the previous message."""
    found = []
    for line in text.splitlines():
        if " watch] epoch " in line or " summary] " in line:  # lines that Caffe does not have
            continue
        if match := LINE.match(line):
            found.append(list(match.groups()))
        elif found:
            found[-1][2] += "\n" + line
    for entry in found:
        for pattern, replacement in TIMING:
            entry[2] = pattern.sub(replacement, entry[2])
    # logged once per process, and here all runs share a process; test_in_a_process_of_its_own checks this line
    return [tuple(entry) for entry in found if once_per_process or entry[1] != "hdf5.cpp:33"]


def difference(got, expected):
    """Describe the first difference between two lists of lines; None if they are equal."""
    for index, wanted in enumerate(expected):
        if index >= len(got):
            return f"line {index} is missing: {wanted}"
        have = got[index]
        same = have[:2] == wanted[:2] and NUMBER.sub("#", have[2]) == NUMBER.sub("#", wanted[2])
        pairs = zip(NUMBER.findall(have[2]), NUMBER.findall(wanted[2]), strict=False)
        if not same or any(not close(float(a), float(b)) for a, b in pairs):
            return f"line {index}:\n  got      {have}\n  expected {wanted}"
    return f"more lines than expected: {got[len(expected) :][:3]}" if len(got) > len(expected) else None


def close(got, expected):
    return abs(got - expected) <= max(1e-3 * abs(expected), 5e-6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of the test: a copy of the folder of the runs."""
    for path in shared("golden", "logs").iterdir():
        if path.suffix not in (".log", ".json", ".md"):
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run the command of a case; return its exit code, standard output and standard error."""

    def repeat(name):
        capsys.readouterr()
        return main(arguments(name)), *capsys.readouterr()

    return repeat


def arguments(name):
    return json.loads(shared("golden", "logs", "logs.json").read_text())[name]["command"][1:]


def recorded(name, **options):
    return lines(shared("golden", "logs", f"{name}.log").read_text(), **options)


@pytest.mark.parametrize("name", cases(ended_well=True))
def test_a_run_that_ends_well(name, run, folder):
    code, out, err = run(name)
    assert code == 0, err[-2000:]
    problem = difference(lines(err), recorded(name))
    assert problem is None, problem
    if name == "version":
        assert out.splitlines()[0] == "caffe version 1.0.0"  # the versions of Cafetière and of PyTorch follow
    if name == "no_command":
        assert all(re.search(rf"^  {word} ", out, re.M) for word in ("train", "test", "device_query", "time"))
        assert all(f"-{flag.name} (" in out for flag in flags.CAFFE)
    if name in ("train", "resume"):
        assert {path.name for path in folder.glob("lenet_iter_*")} == {
            f"lenet_iter_{n}.{kind}" for n in (20, 40) for kind in ("caffemodel", "solverstate")
        }


@pytest.mark.long
def test_in_a_process_of_its_own(folder):
    command_line = [sys.executable, "-m", "caffe", *arguments("train")]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
    problem = difference(lines(done.stderr, once_per_process=True), recorded("train", once_per_process=True))
    assert problem is None, problem


CAUSES = {
    "device_query_gpu0": "Cannot use GPU 0",
    "train_no_solver": "Need a solver definition to train",
    "train_snapshot_and_weights": "Give a snapshot to resume training or weights to finetune but not both.",
    "train_missing_weights": "no.caffemodel",
    "test_no_weights": "Need model weights to score",
    "unknown_command": 'Unknown action: trian; did you mean "train"?',
    "unknown_flag": "ERROR: unknown command line flag 'slover'\n",
}


@pytest.mark.parametrize("name", cases(ended_well=False))
def test_a_run_that_fails(name, run):
    if name == "train_gpu0":
        return  # differs on purpose: see test_a_missing_gpu_is_a_warning
    code, out, err = run(name)
    assert (code, out) == (1, "")
    if name == "unknown_command":
        assert all(word in err for word in command.offered())
    else:
        before = [line for line in recorded(name) if line[0] in "IW"]
        problem = difference(lines(err.partition("caffe: error:")[0]), strip(before))
        assert problem is None, problem
    message = re.search(r"^(?:caffe: error: |ERROR: ).*", err, re.M | re.S)
    assert message, err[-2000:]
    assert CAUSES[name] in message[0]
    assert len(message[0].splitlines()) <= 2


def strip(expected):
    """Return the reference's last message without the text that other libraries print after it."""
    return [(severity, place, message.partition("\nHDF5-DIAG")[0]) for severity, place, message in expected]


def test_a_missing_gpu_is_a_warning(run):
    code, out, err = run("train_gpu0")
    assert (code, out) == (0, "")
    got = lines(err)
    warnings = [message for severity, _, message in got if severity == "W"]
    assert len(warnings) == 1
    assert '"-gpu 0" asks for a GPU' in warnings[0]
    assert ("I", "caffe.cpp:197", "Use CPU.") in got
    assert got[-1] == ("I", "caffe.cpp:250", "Optimization Done.")
