"""The small valid files that are mutated, created when the command starts."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

__all__ = ["IDX", "LOG", "NETS", "SOLVERS", "make"]

_SMALL = """
name: "small"
layer { name: "in" type: "DummyData" top: "data" top: "label"

  dummy_data_param { shape { dim: 2 dim: 1 dim: 6 dim: 6 } shape { dim: 2 }
  data_filler { type: "gaussian" std: 1 } data_filler { value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 3 stride: 1 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "gaussian" std: 0.1 sparse: 2 } bias_filler { type: "constant" value: 0.5 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 1 }
"""
_BRANCHED = """
name: "branched"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 5 dim: 5 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" } convolution_param {
  num_output: 4 kernel_size: 1 bias_term: false group: 2 } }
layer { name: "b" type: "Convolution" bottom: "data" top: "b" param { name: "w" } convolution_param {
  num_output: 4 kernel_size: 1 bias_term: false group: 2 dilation: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" batch_norm_param { eps: 0.001 } }
layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true axis: 1 num_axes: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum"
  eltwise_param { operation: SUM coeff: 1 coeff: -1 } }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "data" top: "cat" concat_param { axis: 1 } }
layer { name: "slice" type: "Slice" bottom: "cat" top: "s1" top: "s2" slice_param { axis: 1 slice_point: 3 } }
layer { name: "drop" type: "Dropout" bottom: "s1" top: "s1" dropout_param { dropout_ratio: 0.4 }
  include { phase: TRAIN } }
layer { name: "up" type: "Deconvolution" bottom: "s2" top: "up"
  convolution_param { num_output: 2 kernel_size: 2 stride: 2 } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "s1" top: "crop" crop_param { axis: 2 offset: 1 } }
layer { name: "flat" type: "Reshape" bottom: "crop" top: "flat" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "lrn" type: "LRN" bottom: "s1" top: "lrn"
  lrn_param { local_size: 3 alpha: 1 norm_region: ACROSS_CHANNELS } }
layer { name: "loss" type: "EuclideanLoss" bottom: "crop" bottom: "crop" top: "loss" loss_weight: 0.5 }
"""
_RECURRENT = """
name: "recurrent"
input: "x" input_shape { dim: 3 dim: 2 dim: 4 }
input: "cont" input_shape { dim: 3 dim: 2 }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 3
  weight_filler { type: "uniform" min: -0.1 max: 0.1 } bias_filler { type: "constant" value: 0 } } }
layer { name: "embed" type: "Embed" bottom: "cont" top: "e" embed_param { num_output: 3 input_dim: 2 } }
layer { name: "rnn" type: "RNN" bottom: "h" bottom: "cont" top: "r"
  recurrent_param { num_output: 3 expose_hidden: false } }
layer { name: "argmax" type: "ArgMax" bottom: "r" top: "m" argmax_param { top_k: 2 axis: 2 out_max_val: true } }
layer { name: "spp" type: "Reduction" bottom: "e" top: "red" reduction_param { operation: SUMSQ axis: 1 coeff: 2 } }
"""
_V1 = """
name: "v1"
input: "data" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 6
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 2 kernel_size: 3 } include { stage: "x" not_stage: "y" } }
layers { name: "pool" type: POOLING bottom: "data" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "pool" top: "ip" param: "w" inner_product_param { num_output: 2 } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" exclude { phase: TRAIN min_level: 1 } }
"""
_V0 = """
name: "v0"
input: "data" input_dim: 2 input_dim: 4 input_dim: 6 input_dim: 6
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "pad" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 group: 2 stride: 1 blobs_lr: 1 blobs_lr: 2
  weight_filler { type: "gaussian" std: 0.01 } weight_decay: 1 } bottom: "pad" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "pool" type: "pool" pool: MAX kernelsize: 2 stride: 2 } bottom: "conv" top: "pool" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 } bottom: "pool" top: "norm" }
layers { layer { name: "ip" type: "innerproduct" num_output: 2 biasterm: true } bottom: "norm" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""
NETS = {"small": _SMALL, "branched": _BRANCHED, "recurrent": _RECURRENT, "v1": _V1, "v0": _V0}

_COMMON = 'net: "SEEDS/small.prototxt" base_lr: 0.1 max_iter: 2 display: 1 random_seed: 1 snapshot_prefix: "snap"\n'
SOLVERS = [
    _COMMON + 'type: "SGD" lr_policy: "step" gamma: 0.5 stepsize: 1 momentum: 0.9 weight_decay: 0.01 iter_size: 2',
    _COMMON + 'type: "Adam" lr_policy: "multistep" stepvalue: 1 stepvalue: 2 momentum2: 0.99 delta: 1e-8 snapshot: 1',
    _COMMON + 'type: "AdaDelta" lr_policy: "inv" power: 0.75 gamma: 0.1 momentum: 0.9 test_iter: 1 test_interval: 1',
    _COMMON
    + 'type: "RMSProp" rms_decay: 0.9 lr_policy: "sigmoid" gamma: 1 stepsize: 2 clip_gradients: 1 debug_info: true',
    _COMMON
    + 'solver_type: NESTEROV lr_policy: "poly" power: 1 momentum: 0.5 regularization_type: "L1" weight_decay: 1',
    _COMMON + 'type: "AdamW" lr_policy: "cosineannealing" ema_decay: 0.9 average_loss: 2 snapshot_format: HDF5',
    'net_param { layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } } '
    'layer { name: "ip" type: "Bias" bottom: "x" top: "y" } '
    'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "l" } }\n'
    'base_lr: 1 lr_policy: "fixed" type: "LBFGS" test_state { stage: "a" } train_state { level: 1 }',
]
LOG = """I0131 13:08:22.531250 12345 solver.cpp:289] Solving LeNet
I0131 13:08:23.531250 12345 solver.cpp:347] Iteration 0, Testing net (#0)
I0131 13:08:24.531250 12345 solver.cpp:414]     Test net output #0: accuracy = 0.1
I0131 13:08:24.631250 12345 solver.cpp:239] Iteration 0 (0 iter/s, 0.1s/100 iters), loss = 2.3
I0131 13:08:24.731250 12345 solver.cpp:258]     Train net output #0: loss = 2.3 (* 1 = 2.3 loss)
I0131 13:08:24.831250 12345 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I0201 00:00:24.731250 12345 solver.cpp:258]     Train net output #0: loss = nan (* 1 = nan loss)
"""
IDX = {
    "images": struct.pack(">4I", 0x803, 3, 4, 4) + bytes(range(48)),
    "labels": struct.pack(">2I", 0x801, 3) + bytes((0, 1, 2)),
}


def make(folder: Path) -> None:
    """Write every seed into the folder."""
    for name, text in NETS.items():
        (folder / f"{name}.prototxt").write_text(text)
    _pictures(folder)
    _databases(folder)
    _weights(folder)
    _states(folder)
    _hdf5(folder)
    np.save(folder / "mean.npy", np.ones((1, 6, 6), np.float32))
    np.savez(folder / "rows.npz", data=np.ones((4, 2), np.float32), label=np.arange(4))
    (folder / "images.idx").write_bytes(IDX["images"])
    (folder / "labels.idx").write_bytes(IDX["labels"])
    (folder / "labels.gz").write_bytes(gzip.compress(IDX["labels"], mtime=0))
    (folder / "train.log").write_text(LOG)


def _pictures(folder: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    names = [f"{index}.{kind}" for index, kind in enumerate(("png", "jpg", "bmp"))]
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(256, size=(8, 9, 3), dtype=np.uint8))
    (folder / "images.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
    windows = "# {0}\n{1}\n3\n8\n9\n2\n1 0.9 0 0 7 6\n0 0.1 2 1 5 5\n"
    (folder / "windows.txt").write_text("".join(windows.format(*pair) for pair in enumerate(names)))


def _databases(folder: Path) -> None:
    from caffe.data import create_database
    from caffe.proto.caffe_pb2 import Datum

    for backend in ("lmdb", "leveldb"):
        with create_database(backend, folder / backend) as writer:
            for index in range(200):
                side = 40 if index % 7 == 0 else 4  # of 1,600 bytes, or on 3 overflow pages
                channels = 3 if side == 40 else 1
                image = bytes(channels * side * side)
                datum = Datum(channels=channels, height=side, width=side, data=image, label=index % 10)
                writer.put(b"%08d" % index, datum.SerializeToString())
    raw = Datum(channels=1, height=2, width=3, data=bytes(range(6)), label=3)
    floats = Datum(channels=2, height=1, width=2, float_data=[0.5, 1, -1, 2], label=1)
    encoded = Datum(data=(folder / "0.png").read_bytes(), encoded=True, label=2)
    for name, datum in (("raw", raw), ("float", floats), ("png", encoded)):
        (folder / f"{name}.datum").write_bytes(datum.SerializeToString())


def _weights(folder: Path) -> None:
    import caffe
    from caffe.proto import weights

    for name in ("small", "branched", "recurrent"):
        net = caffe.Net(str(folder / f"{name}.prototxt"), caffe.TRAIN)
        net.save(str(folder / f"{name}.caffemodel"))
        net.save_hdf5(str(folder / f"{name}.h5"))
        net.close()
    weights.write_mean(folder / "mean.binaryproto", np.ones((1, 6, 6), np.float32))


def _states(folder: Path) -> None:
    import caffe

    for index, suffix in enumerate(("BINARYPROTO", "HDF5")):
        text = SOLVERS[index * 5].replace("SEEDS", str(folder)).replace("snapshot_format: HDF5", "")
        text = text.replace('"snap"', f'"{folder}/state{index}"') + f" snapshot_format: {suffix}"
        (folder / f"state{index}.prototxt").write_text(text)
        solver = caffe.get_solver(str(folder / f"state{index}.prototxt"))
        solver.step(2)
        solver.snapshot()


def _hdf5(folder: Path) -> None:
    import h5py

    for name, version in (("data.h5", "earliest"), ("new.h5", "latest")):
        with h5py.File(folder / name, "w", libver=version) as file:
            file["data"] = np.arange(24, dtype=np.float32).reshape(4, 6)
            file.create_dataset("label", data=np.arange(4), chunks=(2,), compression="gzip", shuffle=True)
            file["data"].attrs["note"] = "a text"
