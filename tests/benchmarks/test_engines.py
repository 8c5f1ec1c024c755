"""The engines run the same net with the same weights and data, and the process of a peer does not import caffe."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from benchmarks import plain_torch, real, rewrites, rounds, tasks, training
from benchmarks.plain_torch import PlainNet
from benchmarks.rounds import Engine, EngineError, Kind
from benchmarks.workloads import Work, prepare
from caffe.net.plan.rewrite import REWRITES, Call
from caffe.proto import caffe_pb2, text, weights

SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data" %(label)s input_param {
  shape { dim: 2 dim: 3 dim: 11 dim: 13 } %(labels)s } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { eps: 0.01 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 } }
layer { name: "a/grouped" type: "Convolution" bottom: "norm" top: "grouped"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "prelu" type: "PReLU" bottom: "grouped" top: "grouped" }
layer { name: "sum" type: "Eltwise" bottom: "grouped" bottom: "norm" top: "sum" }
layer { name: "concat" type: "Concat" bottom: "sum" bottom: "norm" top: "concat" }
layer { name: "max" type: "Pooling" bottom: "concat" top: "max" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "ave" type: "Pooling" bottom: "max" top: "ave" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "ave" top: "fc" inner_product_param { num_output: 5 } }
"""
END = {
    True: 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 0.3 }',
    False: 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }',
}


def small(batch: int, size: int, train: bool) -> caffe_pb2.NetParameter:
    """A net with every layer type that occurs in the benchmarks' nets. All sizes differ."""
    fields = {"label": 'top: "label"', "labels": "shape { dim: 2 }"} if train else {"label": "", "labels": ""}
    return text.parse(SMALL % fields + END[train], caffe_pb2.NetParameter())


WORK = Work(small, small, (2, 3, 11, 13))


def read(folder: Path) -> tuple[PlainNet, torch.Tensor, torch.Tensor]:
    param = text.read(folder / "net.prototxt", caffe_pb2.NetParameter())
    net = PlainNet(param, weights.read(folder / "net.caffemodel"))
    label = torch.from_numpy(np.load(folder / "label.npy") % 5)
    return net, torch.from_numpy(np.load(folder / "data.npy")), label


def test_plain_torch_runs_the_same_net(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=False)
    plain, data, _ = read(tmp_path)
    with torch.no_grad():
        (theirs,) = plain.eval()(data)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST, weights=tmp_path / "net.caffemodel")
    ours = net.forward(data=data.numpy())["prob"]
    assert ours.std() > 0.05
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


def test_plain_torch_trains_the_same_net(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=True)
    plain, data, label = read(tmp_path)
    loss = plain(data, label)
    loss.backward()
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN, weights=tmp_path / "net.caffemodel")
    net.blobs["data"].data[...], net.blobs["label"].data[...] = data, label
    assert loss.item() == pytest.approx(net.forward_backward(), rel=1e-5)
    first = net.params["conv"][0].diff
    assert np.abs(first).max() > 1e-3
    np.testing.assert_allclose(plain.conv.weight.grad, first, rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_operations_of_the_forward_pass(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=True)
    convolution, grouped, product = 8 * 6 * 7 * 27, 8 * 6 * 7 * 36, 64 * 5
    assert training.forward_flops(tmp_path) == 2 * 2 * (convolution + grouped + product)


TASKS = {
    "ssd": Work(tasks.ssd, "", (2, 3, 96, 96), labels=tasks.boxes),
    "lstm": Work(tasks.lstm, "", (tasks.TIME, 3, 8), batch=3, labels=tasks.steps),
    "fcn": Work(tasks.fcn, "", (1, 3, 16, 16), labels=tasks.maps, sizes=((24, 16), (16, 32))),
}


@pytest.mark.long
@pytest.mark.parametrize("name", TASKS)
def test_plain_torch_makes_the_same_steps(name: str, tmp_path: Path) -> None:
    prepare(TASKS[name], tmp_path, train=True)
    plain, given = plain_torch.read(tmp_path), plain_torch.batches(tmp_path)
    optimizer = torch.optim.SGD([weight for weight in plain.parameters() if weight.requires_grad], 1e-3, momentum=0.9)
    written = text.read(tmp_path / "net.prototxt", caffe_pb2.NetParameter())
    param = caffe_pb2.SolverParameter(base_lr=1e-3, lr_policy="fixed", momentum=0.9, net_param=written)
    solver = caffe.get_solver(param)
    solver.net.copy_from(tmp_path / "net.caffemodel")
    theirs, ours = [], []
    for data, label in given * (3 if len(given) == 1 else 1):
        optimizer.zero_grad()
        loss = plain(data, label)
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
        for blob, array in (("data", data), ("label", label)):
            solver.net.blobs[blob].reshape(*array.shape)
            solver.net.blobs[blob].data[...] = array
        solver.step(1)
        ours.append(float(solver.net.blobs["loss"].data))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert len(set(ours)) == 3


def test_weights_are_such_that_activations_keep_their_size(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=False)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST, weights=tmp_path / "net.caffemodel")
    net.forward(data=np.load(tmp_path / "data.npy"))
    assert 0.1 < net.blobs["fc"].data.std() < 10
    assert net.params["bn"][2].data[0] == 1
    assert np.ptp(net.params["bn"][1].data) > 0.01


@pytest.mark.long
def test_worker_answers_and_peers_import_no_runtime_of_ours(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=True)
    np.save(tmp_path / "label.npy", np.array([3, 1]))
    engine = Engine(Kind("peer", "pytorch", "train", {"tuned": True}), tmp_path, 1)
    engine.turn(0)
    found = engine.ask("memory")
    engine.close()
    assert 0 < engine.least <= engine.times[0]
    assert 0 < found["before"] < found["peak"]
    code = "import sys, benchmarks.engines.pytorch; sys.exit('caffe.net' in sys.modules)"
    root = str(rounds.ROOT)
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_engine_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent: ModuleNotFoundError: No module named 'benchmarks.engines.nothing'"):
        Engine(Kind("absent", "nothing", "train"), tmp_path, 1)


def test_reason_is_the_last_line_that_names_an_exception() -> None:
    assert rounds.reason("OSError: no\n\nNetError: it is so\n\nmore can be had\n") == "NetError: it is so"
    assert rounds.reason("killed\n") == "killed"
    fatal = "F1129 11:00:00.1 7 layer_factory.hpp:81] Check failed: no type: PriorBox (known types: A, B)\n*** Check:\n"
    assert rounds.reason(fatal) == "Check failed: no type: PriorBox"
    assert rounds.reason("") == "it said nothing"


def test_real_caffe_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAFETIERE_REAL_CAFFE", str(tmp_path / "python"))
    with pytest.raises(real.Missing, match="No such file"):
        real.interpreter.__wrapped__()
    monkeypatch.setenv("CAFETIERE_REAL_CAFFE", sys.executable)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(real, "PROBE", "import nothing_of_this_name")
    with pytest.raises(real.Missing, match="No module named"):
        real.interpreter.__wrapped__()


def test_rewrites_that_apply_are_found_and_the_list_is_kept(tmp_path: Path) -> None:
    prepare(WORK, tmp_path, train=True)

    def copied(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
        return [dataclasses.replace(call) for call in calls]

    before = list(REWRITES)
    with rewrites.replaced(REWRITES, [copied, *before]):
        found = rewrites.applied(REWRITES, lambda: rewrites.training_step(tmp_path))
    assert "scale_with_batch_norm" in [change.__name__ for change in found]
    assert "copied" not in [change.__name__ for change in found]
    assert before == REWRITES


def test_results_are_plain_json() -> None:
    from benchmarks.report import rounded

    assert json.loads(json.dumps(rounded({"a": [1.23456789, 2], "b": "c"}))) == {"a": [1.2346, 2], "b": "c"}
