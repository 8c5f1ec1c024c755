"""A small classifier for fast searches: eight inputs, three classes, data in a database."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.data.databases import writer
from caffe.proto import caffe_pb2

NET = """
# the net of the test
name: "Small"
layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "train_lmdb" batch_size: 10 backend: LMDB } }
layer { name: "test" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "test_lmdb" batch_size: 10 backend: LMDB } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 8  # the width
    weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt"
base_lr: 0.001  # too low
lr_policy: "fixed"
momentum: 0.9
max_iter: 40
test_iter: 6
test_interval: 1000
snapshot_prefix: "own"
solver_mode: CPU
"""
SPACE = """
solver.base_lr: {log_uniform: [1e-4, 1]}
net.layer["ip1"].inner_product_param.num_output: {integer: [4, 32], log: true}
"""


def write(path: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(3, 8))
    with writer.create_database("lmdb", path) as database:
        for index in range(count):
            label = int(rng.integers(3))
            datum = caffe_pb2.Datum(channels=8, height=1, width=1, label=label)
            datum.float_data.extend(centres[label] + rng.normal(size=8))
            database.put(f"{index:05d}".encode(), datum.SerializeToString())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The working directory of the test: the folder of the small run."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("net.prototxt", NET), ("solver.prototxt", SOLVER), ("space.yaml", SPACE)):
        (tmp_path / name).write_text(content)
    write("train_lmdb", 200, 1)
    write("test_lmdb", 60, 2)
    return tmp_path
