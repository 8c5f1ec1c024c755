"""Costs of layers, compared with numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from caffe.net import Net
from caffe.net.measure import cost
from caffe.proto import caffe_pb2, text

HEAD = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 6 dim: 7 dim: 5 } } }
"""


def costs(prototxt, phase=caffe_pb2.TRAIN):
    """Return (FLOPs forward, FLOPs backward, bytes) of each layer by name, after a run."""
    net = Net(text.parse(prototxt, caffe_pb2.NetParameter()), phase)
    net.forward_loss()
    found = {step.layer.name: cost.cost(step) for step in net.steps}
    return {name: (each.flops, each.backward_flops, each.moved) for name, each in found.items()}


def test_a_small_convolutional_net():
    found = costs(
        HEAD
        + """
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
          convolution_param { num_output: 4 kernel_size: 3 group: 2 } }
        layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }
        layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
          convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }
        layer { name: "pool" type: "Pooling" bottom: "conv2" top: "pool" pooling_param { global_pooling: true } }
        layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 11 } }
        layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }
        """
    )
    conv1 = 2 * 2 * 4 * (5 * 3) * (3 * 9)  # a multiply-add is 2: N, outputs, positions, inputs of a group x cells
    conv2 = 2 * 2 * 3 * (5 * 3) * 4
    ip = 2 * 2 * 11 * 3
    assert found["data"] == (0, 0, 4 * 420)
    assert found["conv1"] == (conv1, conv1, 4 * (420 + 120 + 4 * 27 + 4))  # the gradient of the data is not needed
    assert found["relu"] == (0, 0, 4 * 2 * 120)
    assert found["conv2"] == (conv2, 2 * conv2, 4 * (120 + 90 + 12))
    assert found["pool"] == (0, 0, 4 * (90 + 6))
    assert found["ip"] == (ip, 2 * ip, 4 * (6 + 22 + 33 + 11))


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        ('type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 2 stride: 2 }', 2 * 2 * 3 * 35 * 6 * 4),
        ('type: "InnerProduct" inner_product_param { num_output: 3 axis: 2 }', 2 * 12 * 35 * 3),
        ('type: "InnerProduct" inner_product_param { num_output: 3 transpose: true }', 2 * 2 * 210 * 3),
        ('type: "LRN" lrn_param { local_size: 3 }', 0),
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 }', 0),
        ('type: "BatchNorm"', 0),
    ],
)
def test_products_of_a_layer(layer, flops):
    assert costs(f'{HEAD} layer {{ name: "x" bottom: "data" top: "x" {layer} }}')["x"][0] == flops


@pytest.mark.parametrize(("kind", "flops"), [("LSTM", 2 * 6 * (4 * 5 + 4 * 3) * 3), ("RNN", 2 * 6 * (5 + 3 + 3) * 3)])
def test_products_of_recurrent_layers(kind, flops):
    found = costs(
        'layer { name: "x" type: "DummyData" top: "x" top: "cont" '
        "dummy_data_param { shape { dim: 2 dim: 3 dim: 5 } shape { dim: 2 dim: 3 } } }"
        f'layer {{ name: "y" type: "{kind}" bottom: "x" bottom: "cont" top: "y" recurrent_param {{ num_output: 3 }} }}'
    )
    assert found["y"][0] == flops  # 2 steps x 3 streams = 6 rows


def test_frozen_weights_have_no_gradient():
    layer = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } '
    loss = '} layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }'
    assert costs(HEAD + layer + loss)["ip"][1] == 2 * 2 * 210 * 3
    assert costs(HEAD + layer + "param { lr_mult: 0 } param { lr_mult: 0 } " + loss)["ip"][1] == 0
    assert costs(HEAD + layer + "}")["ip"][1] == 0, "nothing runs backward in a net without a loss"


def test_views_move_nothing():
    found = costs(
        HEAD
        + """
        layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
        layer { name: "a" type: "Power" bottom: "flat" top: "a" power_param { shift: 1 } }
        layer { name: "b" type: "Power" bottom: "flat" top: "b" power_param { shift: 2 } }
        """
    )
    assert found["flat"] == found["flat_flat_0_split"] == (0, 0, 0)
    assert found["a"] == (0, 0, 4 * 2 * 420)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_onednn_linear_is_counted():
    x, weight = torch.empty(2, 3, 5, device="meta"), torch.empty(7, 5, device="meta")
    with cost.FlopCounterMode(display=False, custom_mapping=cost._more_products()) as counter:
        torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    assert counter.get_total_flops() == 2 * 6 * 5 * 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_that_of_the_fastest_way(monkeypatch, dtype):
    seconds = [0.25, 0.5]
    monkeypatch.setattr(cost, "_products", lambda a, b: [lambda: (a.dtype, 0), lambda: (a.dtype, 1)])
    monkeypatch.setattr(cost, "_best_seconds", lambda way: seconds[way()[1]] if way()[0] == dtype else 1e-9)
    assert cost.matrix_peak(dtype=dtype) == 2 * 1024**3 / 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_forms_the_product(dtype):
    a, b = torch.randn(3, 3).to(dtype), torch.randn(3, 3).to(dtype)
    for way in cost._products(a, b):
        assert any(torch.allclose(way(), wanted, rtol=2e-2, atol=2e-2) for wanted in (a @ b, a @ b.t()))


def test_the_shortest_run_counts(monkeypatch):
    clock = iter(
        [0.0, 1.0, 3.0, 3.0, 3.5, 0.1, 4.0, 6.0, 9.0]
    )  # the budget begins; 2 s, 0.5 s, time left; 2 s, none left
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    assert cost._best_seconds(lambda: None, budget=0.15) == pytest.approx(0.5)
