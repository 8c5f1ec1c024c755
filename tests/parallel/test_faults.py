"""The processes of `caffe train -procs` after one of them is lost, is stopped, or raises an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caffe.solver import get_solver
from tests.conftest import ROOT

NET = """
layer { name: "rows" type: "ArrayData" top: "x" top: "y" array_data_param { source: "rows.npz" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" solver_mode: CPU snapshot_prefix: "snap" random_seed: 1
display: 5 max_iter: %d snapshot: %d """
LIMIT = 60


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a net and its data."""
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "rows.npz", x=rng.random((30, 5), np.float32), y=np.arange(30) % 3)
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
    return tmp_path


@pytest.fixture
def start():
    """Return a function that starts Python with arguments. Processes that still run after the test are ended."""
    running = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


TRAIN = ("-m", "caffe", "train", "-solver", "solver.prototxt", "-timeout", "30")


def children(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def until_training(process: subprocess.Popen[str]) -> str:
    """Read the log until iterations are shown."""
    assert process.stderr is not None
    text, shown = "", 0
    for line in process.stderr:
        text += line
        shown += "iter/s" in line
        if shown == 10:
            return text
    raise AssertionError(text)


def gone(pids: list[int]) -> bool:
    """Whether the processes end within some seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.long
def test_signals_a_lost_process_and_a_killed_launcher(place, start):
    (place / "solver.prototxt").write_text(SOLVER % (10**8, 0))
    stopped, lost, orphans = (start(*TRAIN, "-procs", "2") for _ in range(3))
    for process in (stopped, lost, orphans):
        until_training(process)
    pids = [pid for process in (stopped, lost, orphans) for pid in children(process)]
    assert len(pids) == 6
    stopped.send_signal(signal.SIGTERM)
    os.kill(children(lost)[1], signal.SIGKILL)
    orphans.kill()

    text = stopped.communicate(timeout=LIMIT)[1]
    assert stopped.returncode == 0
    assert "Optimization stopped early" in text
    assert "resume with: caffe train" in text
    assert list(place.glob("snap_iter_*.solverstate"))

    text = lost.communicate(timeout=LIMIT)[1]
    assert lost.returncode == 128 + signal.SIGKILL
    assert "rank 1 (process" in text
    assert "was ended by SIGKILL" in text
    assert "rank 0 of 2 on" in text
    assert "another process ended without a reason" in text

    orphans.communicate(timeout=LIMIT)
    assert gone(pids)


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_others_of_a_divided_net(place, start, victim):
    modes = ("shard: FULL", "tensor_parallel: 2", "pipeline { stages: 2 micro_batches: 4 cost: OPERATIONS }")
    (place / "net.prototxt").write_text(NET.replace("num_output: 3", "num_output: 2000"))
    running = []
    for index, mode in enumerate(modes):
        (place / f"{index}.prototxt").write_text(SOLVER % (10**8, 0) + mode)
        words = [word.replace("solver.prototxt", f"{index}.prototxt") for word in TRAIN]
        running.append(start(*words, "-procs", "2"))
    pids = []
    for process in running:
        until_training(process)
        pids += children(process)
        os.kill(children(process)[victim], signal.SIGKILL)
    for process in running:
        text = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == 128 + signal.SIGKILL
        assert f"rank {1 - victim} of 2 on" in text
        assert "another process ended without a reason" in text
    assert gone(pids)
    assert not list(place.glob("snap*"))


@pytest.mark.long
def test_a_process_with_an_error_ends_all_with_its_text(place, start):
    (place / "solver.prototxt").write_text(SOLVER % (10**8, 0))
    (place / "guest.py").write_text(
        "import caffe, os\n"
        "class Fails(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1)\n"
        "    def forward(self, bottom, top):\n"
        "        self.count = getattr(self, 'count', 0) + 1\n"
        "        if caffe.solver_rank() == 1 and self.count == 7: raise ValueError('bad luck')\n"
        "    def backward(self, top, propagate_down, bottom): pass\n"
    )
    layer = (
        'layer { name: "guest" type: "Python" bottom: "ip" top: "g" python_param { module: "guest" layer: "Fails" } }'
    )
    (place / "net.prototxt").write_text(NET + layer)
    process = start(*TRAIN, "-procs", "2")
    text = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 1
    assert "caffe: error: rank 1 of 2" in text
    assert 'layer "guest"' in text
    assert "bad luck" in text
    assert "rank 0 of 2" in text
    assert "rank 1 ended: " in text


@pytest.mark.long
def test_a_run_that_torchrun_starts_again_ends_with_the_weights_of_one_without_faults(place, start):
    (place / "solver.prototxt").write_text(SOLVER % (400, 20) + "test_interval: 0")
    whole = start(*TRAIN, "-procs", "2")
    whole.communicate(timeout=LIMIT)
    assert whole.returncode == 0
    expected = (place / "snap_iter_400.caffemodel").read_bytes()
    for path in place.glob("snap*"):
        path.unlink()
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=5", "--monitor-interval=0.1")
    process = start(*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", *TRAIN, "-snapshot", "auto")
    killed = 0
    while killed < 2:
        until_training(process)
        os.kill(children(process)[killed % 2], signal.SIGKILL)
        killed += 1
    process.communicate(timeout=2 * LIMIT)
    assert (process.returncode, killed) == (0, 2)
    assert (place / "snap_iter_400.caffemodel").read_bytes() == expected


def test_a_snapshot_that_is_damaged_is_passed_over(place, caplog):
    (place / "solver.prototxt").write_text(SOLVER % (4, 2))
    first, second = (get_solver("solver.prototxt") for _ in range(2))
    assert first.restore_newest() == ""
    first.solve()
    path = place / "snap_iter_4.solverstate"
    path.write_bytes(path.read_bytes()[:100])
    (place / "snap_iter_30.solverstate.tmp").touch()
    (place / "more_snap_iter_30.solverstate").touch()
    assert second.restore_newest() == "snap_iter_2.solverstate"
    assert second.iter == 2
    assert "continuing from the previous snapshot" in caplog.text
    for solver in (first, second):
        solver.net.close()
