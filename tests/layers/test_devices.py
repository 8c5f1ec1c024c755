"""All tensors that layers create or store are on the net's device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.layers.base import Layer, as_tuple
from caffe.net import Net
from caffe.proto import caffe_pb2, text
from tests.devices import OneDevice, fake_cuda
from tests.layers.alone import alone

GAUSSIAN = "data_filler { type: 'gaussian' }"
CONSTANT = "data_filler { value: 3 }"
SHAPE = "shape { dim: 2 dim: 3 }"
MEMORY = "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 }"
RECURRENT = 'recurrent_param { num_output: 7 weight_filler { type: "xavier" } }'


@pytest.fixture
def matrix(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=3, width=3, data=np.eye(3).ravel())
    (tmp_path / "H.binaryproto").write_bytes(blob.SerializeToString())


def arrays() -> Layer:
    layer = alone("MemoryData", [], MEMORY, tops=2)
    layer.set_arrays(np.zeros((6, 1, 1, 1), np.float32), np.zeros(6))
    return layer


ALONE = {
    "DummyData, random": lambda: alone("DummyData", [], f"dummy_data_param {{ {SHAPE} {GAUSSIAN} }}"),
    "DummyData, constant": lambda: alone("DummyData", [], f"dummy_data_param {{ {SHAPE} {CONSTANT} }}"),
    "MemoryData": arrays,
    "Parameter": lambda: alone("Parameter", [], f"parameter_param {{ {SHAPE} }}"),
}
SOURCE = 'infogain_loss_param { source: "H.binaryproto" }'
HOLDING = {
    "InfogainLoss": lambda: alone("InfogainLoss", [(2, 3), (2,)], SOURCE),
    "LSTM": lambda: alone("LSTM", [(4, 2, 3), (4, 2)], RECURRENT),
    "RNN": lambda: alone("RNN", [(4, 2, 3), (4, 2)], RECURRENT),
    "BatchNorm": lambda: alone("BatchNorm", [(2, 3)]),
}


@pytest.mark.parametrize("make", ALONE.values(), ids=ALONE)
def test_layers_without_bottoms_deliver_on_the_device(make):
    with fake_cuda():
        layer = make()
        for name, parameter in layer._parameters.items():
            layer._parameters[name] = torch.nn.Parameter(torch.empty(parameter.shape, device="cuda"))
        layer.allocate("cuda:0")
        for _ in range(2):
            tops = [top for top in as_tuple(layer.forward()) if top is not None]
            assert {top.device.type for top in tops} <= {"cuda"}


@pytest.mark.parametrize("make", HOLDING.values(), ids=HOLDING)
def test_buffers_of_every_kind_are_on_the_device(make, matrix):
    layer = make()
    layer.allocate("meta")
    assert {x.device.type for name, x in layer.named_buffers() if name not in layer._blob_names} <= {"meta"}


NET = f"""
layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{ {SHAPE} {GAUSSIAN} }} }}
layer {{ name: "p" type: "Parameter" top: "p" parameter_param {{ {SHAPE} }} }}
layer {{ name: "l" type: "DummyData" top: "l" top: "seq" top: "cont"
  dummy_data_param {{ {CONSTANT} {CONSTANT} {GAUSSIAN}
    shape {{ dim: 2 }} shape {{ dim: 2 dim: 2 dim: 3 }} shape {{ dim: 2 dim: 2 }} }} }}
layer {{ name: "s" type: "Eltwise" bottom: "x" bottom: "p" top: "s" }}
layer {{ name: "b" type: "BatchReindex" bottom: "s" bottom: "l" top: "b" propagate_down: true propagate_down: false }}
layer {{ name: "m" type: "InfogainLoss" bottom: "b" bottom: "l" top: "m" {SOURCE} }}
layer {{ name: "r" type: "Reduction" bottom: "b" top: "r" loss_weight: 1 }}
layer {{ name: "lstm" type: "LSTM" bottom: "seq" bottom: "cont" top: "h" {RECURRENT} }}
layer {{ name: "e" type: "EuclideanLoss" bottom: "h" bottom: "h" top: "e" }}
"""


def test_a_net_of_such_layers_mixes_no_devices(matrix):
    with OneDevice():
        net = Net(text.parse(NET, caffe_pb2.NetParameter()), caffe_pb2.TRAIN, device="meta")
        loss, values = net.module()
        loss.backward()
    assert {value.device.type for value in [loss, *values.values()]} == {"meta"}
    assert {x.device.type for x in net.module.buffers()} == {"meta"}


def test_the_loss_of_a_net_without_one_is_on_the_device():
    net = Net(text.parse(f'layer {{ name: "i" type: "Input" top: "x" input_param {{ {SHAPE} }} }}',
              caffe_pb2.NetParameter()), caffe_pb2.TRAIN, device="meta")  # fmt: skip
    assert net.module()[0].device.type == "meta"
