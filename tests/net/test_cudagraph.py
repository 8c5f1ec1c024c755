"""Recorded training passes give the same numbers as ordinary passes. The tests simulate the GPU on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.net.engines import cudagraph
from caffe.net.engines.cudagraph import WARM_UP, Record
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 5 dim: 3 } shape { dim: 5 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" } param { lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "act" type: "TanH" bottom: "y" top: "y" }
layer { name: "top" type: "InnerProduct" bottom: "y" top: "z"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "t" top: "loss" }
"""


class Tape:
    """Replaces a CUDA graph: a replay runs the recorded function again and writes into the tensors of the first run."""

    def __init__(self):
        self.records = self.replays = 0

    def __call__(self, work):
        self.records += 1
        made, parameters = work(), self.module.record._parameters
        first = [*(x for x in made[0] if x is not None), made[1], *(p.grad for p in parameters if p.grad is not None)]

        def replay() -> None:
            self.replays += 1
            for parameter in parameters:
                parameter.grad = None
            again = work()
            new = [
                *(x for x in again[0] if x is not None),
                again[1],
                *(p.grad for p in parameters if p.grad is not None),
            ]
            for old, value in zip(first, new, strict=True):
                old.detach().copy_(value.detach())

        return replay, made


def solver_of(iter_size: int = 1, precision: str = "FLOAT") -> caffe.SGDSolver:
    param = text.parse(
        'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 1 snapshot_after_train: false '
        f"iter_size: {iter_size} precision: {precision}",
        caffe_pb2.SolverParameter(),
    )
    param.net_param.CopyFrom(text.parse(NET, caffe_pb2.NetParameter()))
    return caffe.get_solver(param)


def feed(solver: caffe.SGDSolver, step: int) -> None:
    rng = np.random.default_rng(step)
    solver.net.blobs["x"].data[...] = rng.standard_normal(solver.net.blobs["x"].shape)
    solver.net.blobs["t"].data[...] = rng.integers(0, 3, solver.net.blobs["t"].shape)


@pytest.fixture
def tape(monkeypatch):
    monkeypatch.setattr("caffe.net.run.module.recorded", lambda device: True)
    return Tape()


def taped(tape: Tape, iter_size: int = 1, precision: str = "FLOAT") -> caffe.SGDSolver:
    solver = solver_of(iter_size, precision)
    tape.module = solver.net.module
    solver.net.module.record_on(solver.net.device, tape)
    return solver


@pytest.mark.parametrize(("iter_size", "precision"), [(1, "FLOAT"), (3, "FLOAT"), (3, "BFLOAT16")])
def test_a_recorded_run_is_the_run(tape, iter_size, precision):
    mine, plain = taped(tape, iter_size, precision), solver_of(iter_size, precision)
    plain.net.module.record = None
    for step in range(8):
        for solver in (mine, plain):
            feed(solver, step)
            solver.step(1)
        for name, blob in plain.net.blobs.items():
            np.testing.assert_allclose(mine.net.blobs[name].data, blob.data, rtol=1e-6, err_msg=f"{name}, {step}")
        for entry, expected in zip(mine.net.learnable, plain.net.learnable, strict=True):
            np.testing.assert_allclose(entry.tensor.detach(), expected.tensor.detach(), rtol=1e-6)
    assert tape.records == 1
    assert tape.replays == 8 * iter_size - WARM_UP


def test_gradients_add_up_until_they_are_cleared(tape):
    solver = taped(tape)
    feed(solver, 1)
    net = solver.net
    for _ in range(WARM_UP + 1):
        net.clear_param_diffs()
        net.forward_backward()
    once = net.params["ip"][0].diff.copy()
    net.forward_backward()
    net.forward_backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 3 * once, rtol=1e-5)


def test_another_shape_is_recorded_again(tape):
    solver = taped(tape)
    feed(solver, 1)
    solver.step(WARM_UP + 2)
    solver.net.blobs["x"].reshape(2, 3)
    solver.net.blobs["t"].reshape(2)
    solver.net.reshape()
    feed(solver, 2)
    solver.step(WARM_UP + 2)
    assert tape.records == 2
    assert solver.net.blobs["z"].shape == (2, 3)


def test_another_loss_scale_is_recorded_again(tape, monkeypatch):
    monkeypatch.setattr("caffe.net.net.check_precision", lambda *_: None)  # the CPU stands in for the GPU
    solver = taped(tape, precision="FLOAT16")
    feed(solver, 1)
    for _ in range(2):
        solver.step(WARM_UP + 2)
        solver.net.loss_scale.value /= 2
    assert tape.records == 2


def test_what_cannot_be_recorded_runs_as_it_is(tape, caplog):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    solver, plain = taped(tape), solver_of()
    plain.net.module.record = None
    solver.net.module.record = Record(solver.net.module.training_pass, list(solver.net.module.parameters()), refuse)
    for each in (solver, plain):
        feed(each, 1)
        each.step(WARM_UP + 3)
    told = [record.message for record in caplog.records if "CUDA graph" in record.message]
    assert len(told) == 1
    assert "operation not permitted when stream is capturing" in told[0]
    np.testing.assert_allclose(solver.net.params["ip"][0].data, plain.net.params["ip"][0].data)


def test_the_environment_can_switch_it_off(monkeypatch):
    monkeypatch.setenv("CAFFE_CUDA_GRAPHS", "0")
    assert not cudagraph.recorded(torch.device("cuda"))
    monkeypatch.delenv("CAFFE_CUDA_GRAPHS")
    assert cudagraph.recorded(torch.device("cuda"))
    assert not cudagraph.recorded(torch.device("cpu"))
