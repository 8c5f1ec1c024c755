"""The memory of nets behaves as in the model, for random sequences of operations."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.ownership import layers
from tests.ownership.__main__ import real_command
from tests.ownership.runner import mirrored, run, shrunk
from tests.ownership.sequences import Drawer

BLOCK, BLOCKS, MIRROR_BLOCKS = 25, 12, 8
LONG_BLOCK, LONG_BLOCKS = 500, 40


def check(seeds, mode="own", length=15):
    """Run the sequences; the error message is the first failing one, as a script."""
    for seed in seeds:
        result = run(Drawer(seed, length, mode))
        if result.failure is not None:
            pytest.fail(f"sequence {seed}:\n{shrunk(result).script()}", pytrace=False)


def blocks(number: int, quick: int) -> pytest.MarkDecorator:
    """Parametrize a test over blocks of sequences. Only the first few blocks are part of every run of the tests."""
    marks = [[], [pytest.mark.long]]
    return pytest.mark.parametrize("block", [pytest.param(i, marks=marks[i >= quick]) for i in range(number)])


@blocks(BLOCKS, quick=1)
def test_sequences(block):
    check(range(block * BLOCK, (block + 1) * BLOCK))


@blocks(MIRROR_BLOCKS, quick=1)
def test_sequences_where_arrays_are_copies(block, monkeypatch):
    """On a GPU, arrays are copies of the tensors."""
    mirrored(monkeypatch.setattr)
    check(range(block * BLOCK, (block + 1) * BLOCK), "mirror", length=9)


@pytest.mark.long
@pytest.mark.parametrize("block", range(LONG_BLOCKS))
def test_many_sequences(block):
    check(range(1000 + block * LONG_BLOCK, 1000 + (block + 1) * LONG_BLOCK))


@pytest.mark.long
def test_sequences_with_openvino():
    pytest.importorskip("openvino")
    check(range(300), "openvino")


@pytest.mark.long
@pytest.mark.skipif(not os.environ.get("CAFETIERE_REAL_CAFFE"), reason="CAFETIERE_REAL_CAFFE names no Python")
def test_the_model_is_what_the_original_does():
    command, environment = real_command(["--mode", "real", "--sequences", "3000"])
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_a_failing_sequence_becomes_short_and_plain():
    """With a wrong Sigmoid in the model, the shortest script contains only a net with a Sigmoid and a run."""
    wrong = next(filter(None, map(failing_with_half_a_sigmoid, range(40))))
    assert len(wrong.ops) <= 2
    code = wrong.script()
    assert "caffe.Net(net_file" in code or "caffe.SGDSolver(solver_file)" in code
    compile(code, "script", "exec")


def failing_with_half_a_sigmoid(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers.Sigmoid, "forward", lambda self, x, p: [x[0] / 2])
        result = run(Drawer(seed, without=("MemoryData", "Share", "SolverTest")))
        return shrunk(result) if result.failure and "Sigmoid" in result.start.graph.text() else None


def test_rounding_alone_fails_no_sequence():
    check([3061])  # a loss of logits around 100
