"""A small net with data, dropout and a test phase, for tests of the solver."""

from pathlib import Path

import h5py
import numpy as np

from caffe.proto import caffe_pb2, text

NET = """
name: "small"
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "list.txt" batch_size: 5 shuffle: true } }
layer { name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
  hdf5_data_param { source: "list.txt" batch_size: 3 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 11 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.1 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" max_iter: 6
snapshot_prefix: "snap" random_seed: 7 solver_mode: CPU snapshot_after_train: false
"""


def write(folder: Path) -> None:
    """Write the net and its data to `folder`."""
    rng = np.random.default_rng(11)
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"] = rng.standard_normal((17, 2, 7)).astype(np.float32)
        file["label"] = rng.integers(0, 3, 17).astype(np.float32)
    (folder / "list.txt").write_text("data.h5\n")
    (folder / "net.prototxt").write_text(NET)


def param(more: str = "") -> caffe_pb2.SolverParameter:
    """Return the SolverParameter with the additional text `more`, which takes precedence."""
    own = caffe_pb2.SolverParameter()
    own.MergeFrom(text.parse(SOLVER, caffe_pb2.SolverParameter()))
    own.MergeFrom(text.parse(more, caffe_pb2.SolverParameter()))
    return own
