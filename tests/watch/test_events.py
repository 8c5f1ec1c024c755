"""TensorBoard's event files."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.cli import main
from caffe.errors import MissingExtra
from caffe.monitor.board import Board
from caffe.monitor.net_of_run import net_of
from tests.monitor.helpers import read_all
from tests.watch.test_watch import SOLVER

NET = """
layer { name: "data" type: "ArrayData" top: "data" top: "label" include { phase: TRAIN }
  array_data_param { source: "train.npz" batch_size: 20 } }
layer { name: "data" type: "ArrayData" top: "data" top: "label" include { phase: TEST }
  array_data_param { source: "train.npz" batch_size: 20 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    data = rng.random((60, 1, 7, 6)).astype(np.float32)
    np.savez("train.npz", data=data, label=rng.integers(3, size=60).astype(np.float32))
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_event_files(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder / "solver.prototxt").write_text(SOLVER.format(rate="1e18", steps=60))
    assert main(["train", "-solver", "solver.prototxt", "-logdir", "runs"]) == 1
    (folder / "solver.prototxt").write_text(SOLVER.format(rate="0.01", steps=60))
    assert main(["train", "-solver", "solver.prototxt", "-logdir", "good"]) == 0
    read = accumulator.EventAccumulator("good").Reload()
    tags = read.Tags()
    assert {"loss", "rate", "test/accuracy", "test/loss", "updates/conv1/0"} <= set(tags["scalars"])
    assert {"weights/conv1/0", "gradients/ip1/1"} <= set(tags["histograms"])
    assert set(tags["images"]) == {"filters/conv1", "data/data"}
    assert [event.step for event in read.Scalars("loss")] == list(range(1, 61))
    assert {node.name for node in read.Graph().node} >= {"data", "conv1", "ip1", "loss"}
    assert not (folder / "good" / "findings.jsonl").exists()
    assert '"diverges"' in (folder / "runs" / "findings.jsonl").read_text()
    broken = accumulator.EventAccumulator("runs").Reload()
    assert "findings/text_summary" in broken.Tags()["tensors"]
    run = read_all(Board(["good"])).runs[0]  # the monitor reads what was written
    assert run.facts.settings["max_iter"] == "60"
    net, shapes = net_of(run)
    assert [layer.type for layer in net.layer][1:] == ["Convolution", "InnerProduct", "SoftmaxWithLoss"]
    assert shapes["conv1"] == (20, 5, 5, 4)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    from caffe.watch.events import Events

    with pytest.raises(MissingExtra, match=r"pip install 'cafetiere\[tensorboard\]'"):
        Events("runs")
