"""Options that several processes do not support are rejected before the training starts."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from caffe.cli import main
from caffe.data.pipeline import shard
from caffe.errors import CaffeError, DataError, ParallelError, SolverError
from caffe.parallel import environment
from caffe.parallel.group import Alone, joined
from caffe.proto import caffe_pb2
from caffe.solver import get_solver
from tests.data.helpers import layer

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


class Two(Alone):
    """A group of two processes in which the other reports the same as this one."""

    size = 2


def solver(options: str = "", layers: str = ""):
    param = text_format.Parse(f'base_lr: 0.1 lr_policy: "fixed" {options}', caffe_pb2.SolverParameter())
    text_format.Parse(NET + layers, param.net_param)
    with joined(Two()):
        return get_solver(param)


@pytest.mark.parametrize(
    ("options", "layers", "fact"),
    [
        ('type: "LBFGS"', "", "needs all data in one process"),
        (
            "",
            'layer { name: "out" type: "HDF5Output" bottom: "ip" bottom: "x" hdf5_output_param { file_name: "o.h5" } }',
            'every process would write "o.h5"',
        ),
        (
            "global_dropout: true",
            'layer { name: "r" type: "Insanity" bottom: "ip" top: "r" }',
            'global_dropout is set, but layer "r"',
        ),
        (
            "global_batch_norm: true",
            'layer { name: "l" type: "BN" bottom: "ip4" top: "l" bn_param { momentum: 0.9 } } '.replace("ip4", "ip"),
            'global_batch_norm is set, but layer "l"',
        ),
    ],
)
def test_of_a_solver(options, layers, fact):
    with pytest.raises(SolverError, match=fact):
        solver(options, layers)


def test_pooling_that_draws_nothing_is_no_hindrance_to_global_dropout():
    picture = (
        'layer { name: "c" type: "DummyData" top: "c" dummy_data_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } } '
    )
    pooling = 'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 } }'
    made = solver("global_dropout: true", picture + pooling)
    made.net.close()


def test_a_batch_that_cannot_be_divided(monkeypatch, tmp_path):
    monkeypatch.setattr(shard, "_assigned", {"RANK": 0, "WORLD_SIZE": 3})
    shard.divide_batches(True)
    try:
        text = 'name: "m" type: "MemoryData" top: "x" top: "y" memory_data_param { batch_size: %d channels: 1 '
        text += "height: 2 width: 2 }"
        with pytest.raises(CaffeError, match="batch_size 4 cannot be divided among 3 processes"):
            layer(text % 4)
        assert layer(text % 6).batch_size == 2
        assert layer(text % 4, caffe_pb2.TEST).batch_size == 4
    finally:
        shard.divide_batches(False)


def test_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solver.prototxt").write_text("")
    for words, fact in (
        (["-procs", "-1"], "-procs -1: expected the number of processes"),
        (["-timeout", "0"], "-timeout 0: expected seconds"),
    ):
        assert main(["train", "-solver", "solver.prototxt", *words]) == 1
        assert fact in capsys.readouterr().err


def test_a_division_of_batches_without_effect_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(shard, "_assigned", {"RANK": 0, "WORLD_SIZE": 2})
    shard.divide_batches(True)
    try:
        solver().net.close()
    finally:
        shard.divide_batches(False)
    assert '-divide_batch has no effect on "x" (DummyData)' in caplog.text


def test_files_are_read_once_before_processes_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("caffe.cli._processes.launch", lambda *_: pytest.fail("started"))
    for words, fact in (
        (["train", "-solver", "none.prototxt"], "none.prototxt: cannot read"),
        (["time", "-model", "none.prototxt"], "none.prototxt: cannot read"),
        (["time", "-model", "none.prototxt", "-phase", "TEST"], "remove -phase TEST"),
    ):
        assert main([*words, "-procs", "2"]) == 1
        assert fact in capsys.readouterr().err


def test_an_environment_that_is_not_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ParallelError, match="RANK, MASTER_ADDR, MASTER_PORT is not set"):
        environment.join()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ParallelError, match='WORLD_SIZE is "two"'):
        environment.launched()
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(DataError, match="RANK"):
        shard.current()


def test_a_rank_beyond_the_number_of_processes(monkeypatch):
    for name, value in {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ParallelError, match="RANK is 2, expected 0 to 1"):
        environment.join()
