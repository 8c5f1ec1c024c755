"""A run that is killed at any moment and resumed ends with exactly the weights of an uninterrupted run."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from caffe.cli import main
from caffe.data.databases.lmdb import LmdbWriter
from caffe.proto import caffe_pb2, weights

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 9 mirror: true scale: 0.004 }
  data_param { source: "records" backend: LMDB batch_size: 7 } include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 9 scale: 0.004 }
  data_param { source: "records" backend: LMDB batch_size: 5 } include { phase: TEST } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" type: "Adam" base_lr: 0.001 lr_policy: "step" gamma: 0.5 stepsize: 40 weight_decay: 0.001
momentum: 0.9 display: 1 max_iter: 120 snapshot: 6 snapshot_prefix: "run" solver_mode: CPU random_seed: 11
test_iter: 2 test_interval: 10
"""


def start(folder, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt", *more],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def prepare(folder) -> None:
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    rng = np.random.default_rng(2)
    with LmdbWriter(folder / "records") as writer:
        for index in range(31):
            pixels = rng.integers(0, 256, (2, 12, 11), dtype=np.uint8)
            datum = caffe_pb2.Datum(channels=2, height=12, width=11, data=pixels.tobytes(), label=index % 3)
            writer.put(b"%08d" % index, datum.SerializeToString())


def newest_state(folder) -> list[str]:
    states = sorted(folder.glob("run_iter_*.solverstate"), key=lambda path: int(re.findall(r"\d+", path.name)[-1]))
    return ["-snapshot", states[-1].name] if states else []


def run_with_kills(folder, kills: int) -> int:
    """Train, and kill the process at random moments; return the number of runs that were killed before their end."""
    moments = random.Random(5)
    done = 0
    for _ in range(kills):
        process = start(folder, *newest_state(folder))
        assert process.stderr is not None
        solving = False
        left = moments.randrange(1, 40)
        for line in process.stderr:
            solving = solving or "] Solving" in line
            left -= solving
            if left <= 0:
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.close()
        done += process.wait() == -signal.SIGKILL
    process = start(folder, *newest_state(folder))
    _, text = process.communicate()
    assert process.returncode == 0, text
    return done


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.long)])
def test_killed_and_resumed_equals_unbroken(kills, tmp_path, monkeypatch):
    prepare(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "unbroken")
        assert main(["train", "-solver", "solver.prototxt"]) == 0
    prepare(tmp_path / "killed")
    assert run_with_kills(tmp_path / "killed", kills) > 0, "a run may end before it is killed, but not each"
    expected = weights.read(tmp_path / "unbroken" / "run_iter_120.caffemodel")
    got = weights.read(tmp_path / "killed" / "run_iter_120.caffemodel")
    assert list(got) == list(expected)
    for name, arrays in expected.items():
        for array, other in zip(arrays, got[name], strict=True):
            np.testing.assert_array_equal(other, array, err_msg=name)
    for path in (tmp_path / "killed").glob("run_iter_*.caffemodel"):  # a kill never leaves half a snapshot
        assert set(weights.read(path)) == set(expected)
