"""The fuzz command reports nothing for a fixed range of inputs, and reports planted faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT


def fuzz(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "tools/fuzz", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_fixed_range_of_inputs_of_each_kind():
    done = fuzz("--count", 12, "--seed", 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d{2,3} inputs in .*\n0 findings: none", done.stdout)


@pytest.mark.long
def test_many_inputs_of_each_kind():
    done = fuzz("--count", 3000, "--seed", 1000)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_kind_is_refused(monkeypatch, capsys):
    from tools.fuzz import __main__

    monkeypatch.setattr(sys, "argv", ["fuzz", "--kind", "lmbd"])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
    assert "unknown kind lmbd" in capsys.readouterr().err


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """The findings of kinds with planted faults, run in worker processes."""
    import caffe.mode  # noqa: F401 - what the workers import counts in their time
    from tools.fuzz import kinds, pool

    def death(case):
        if case.rng.random() < 0.5:
            os.abort()

    def hang(case):
        time.sleep(5)

    def leave(case):
        raise kinds.LeftOut("conv/0")

    def code(case):
        raise kinds.ExitCode70('  File "x/caffe/a.py", line 3\nKeyError: 1')

    def bare(case):
        raise KeyError("x")

    for run in (death, hang, leave, code, bare):
        monkeypatch.setitem(kinds.KINDS, run.__name__, run)
    monkeypatch.setattr(pool, "TIME_LIMIT", 0.3)
    (tmp_path / "seeds").mkdir()

    def run(name: str, count: int) -> list[str]:
        found: list[pool.Finding] = []
        workers = pool.Pool(tmp_path / "seeds", 1, found.append)
        workers.run([name], 0, count)
        assert workers.done == {name: count}
        return [finding.what for finding in found]

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of a fork where there are threads
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("death", "death by SIGABRT"),
        ("hang", "hang"),
        ("leave", "left out"),
        ("code", "exit code 70"),
        ("bare", "exception"),
    ],
)
def test_findings_are_told_and_the_pool_goes_on(pool, name, what):
    found = pool(name, 1 if name == "hang" else 8)
    assert set(found) == {what}
    assert len(found) == {"hang": 1, "death": 4}.get(name, 8)
