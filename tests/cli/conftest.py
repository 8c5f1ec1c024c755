"""A small training run that needs no data files."""

from __future__ import annotations

import pytest

NET = """
name: "Noise"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 5 dim: 3 dim: 7 dim: 6 } shape { dim: 5 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { phase: TEST stage: "vector" } }
"""

SOLVER = """
net: "net.prototxt"  base_lr: 0.01  lr_policy: "fixed"  momentum: 0.9  solver_mode: CPU  random_seed: 7
display: 2  max_iter: 8  test_iter: 2  test_interval: 4  snapshot: 4  snapshot_prefix: "noise"
"""


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """The working directory of the test: a small training run with net.prototxt and solver.prototxt."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path
