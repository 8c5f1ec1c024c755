"""A net as a PyTorch module: the same results as Net; training, devices, export, hooks, saving."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import caffe
import caffe.torch
from caffe.errors import NetError
from caffe.proto import caffe_pb2, text
from tests.conftest import ROOT

LENET = ROOT / "examples/mnist/lenet_train_test.prototxt"
SHAPES = {"data": (7, 1, 28, 28), "label": (7,)}

TWO = """
layer { name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } param { lr_mult: 0 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "b/t.w" type: "InnerProduct" bottom: "y" top: "b" param { name: "w" } propagate_down: false
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "difference" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "l2" loss_weight: 3 }
layer { name: "blobs" type: "Reduction" bottom: "a" top: "sum" loss_weight: 0.5 }
"""


def two(**options):
    return caffe.torch.load(text.parse(TWO, caffe_pb2.NetParameter()), **options)


def test_agrees_with_the_net():
    net = caffe.Net(text.parse(TWO, caffe_pb2.NetParameter()), caffe.TEST)
    rng = np.random.default_rng(5)
    module = two()
    for name, layer in zip(["a", "b/t_w"], ["a", "b/t.w"], strict=True):
        for mine, theirs in zip(module.get_submodule(name).tensors, net.params[layer], strict=True):
            theirs.data[...] = rng.normal(size=theirs.shape)
            mine.data.copy_(theirs.tensor)
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    out = net.forward(x=x.numpy(), y=y.numpy())
    mine = module(x, y=y)
    assert list(mine) == net.outputs
    for name, value in out.items():
        torch.testing.assert_close(mine[name].detach(), torch.from_numpy(value))
    torch.testing.assert_close(module.total_loss(mine).item(), 3 * float(out["l2"]) + 0.5 * float(out["sum"]))
    assert set(module.blobs(x, y)) >= {"x", "y", "a", "b", "l2", "sum"}


def test_parameters_follow_the_prototxt():
    module = two()
    assert module.a.weight is module.get_submodule("b/t_w").weight
    assert not module.a.bias.requires_grad
    assert module.blobs_2.name == "blobs"  # a layer must not hide the method
    x, y = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    module.total_loss(module(x, y)).backward()
    assert x.grad is not None
    assert y.grad is None  # propagate_down: false


def test_trains_and_comes_back_as_a_caffemodel(tmp_path):
    torch.manual_seed(1)
    module = caffe.torch.load(LENET, phase=caffe.TRAIN, shapes=SHAPES)
    assert module.training
    assert module.inputs == ["data", "label"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    data, label = torch.rand(7, 1, 28, 28), torch.arange(7.0)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = module.total_loss(module(data=data, label=label))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    caffe.torch.save(module, tmp_path / "lenet.caffemodel")
    again = caffe.torch.load(LENET, tmp_path / "lenet.caffemodel", caffe.TRAIN, SHAPES)
    torch.testing.assert_close(again(data, label).item(), module(data, label).item())
    names = dict(again.named_parameters())
    assert list(names) == [
        f"{layer}.{blob}" for layer in ("conv1", "conv2", "ip1", "ip2") for blob in ("weight", "bias")
    ]
    fresh = caffe.torch.load(LENET, phase=caffe.TRAIN, shapes=SHAPES)
    fresh.load_state_dict(module.state_dict())
    torch.testing.assert_close(fresh(data, label).item(), module(data, label).item())


def test_phase_follows_train_and_eval():
    spec = caffe.to_proto(caffe.net_spec.layers.Dropout(caffe.net_spec.layers.Input(shape={"dim": [100, 3]})))
    module = caffe.torch.load(spec)
    x = torch.ones(100, 3)
    assert (module(x) == 1).all()
    assert (module.train()(x) == 0).any()


def test_moves_copies_hooks_and_exports():
    module = caffe.torch.load(ROOT / "examples/mnist/lenet.prototxt")
    x = torch.rand(64, 1, 28, 28)
    expected = module(x)
    seen = []
    handle = module.conv2.register_forward_hook(lambda layer, args, out: seen.append(out[0].shape))
    module(x)
    handle.remove()
    assert seen == [(64, 50, 8, 8)]
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), expected)
    twin = copy.deepcopy(module).double()
    torch.testing.assert_close(twin(x.double()).float(), expected, rtol=1e-4, atol=1e-6)
    assert module(x).dtype == torch.float32
    assert twin.to(torch.float32)(x).dtype == torch.float32
    assert next(module.to("meta").parameters()).is_meta


def test_mistakes_are_told():
    module = two()
    x = torch.zeros(2, 3)
    for args, kwargs in (((x,), {}), ((x, x, x), {}), ((x,), {"x": x}), ((x,), {"z": x})):
        with pytest.raises(NetError, match=r"takes the inputs \['x', 'y'\]"):
            module(*args, **kwargs)
    with pytest.raises(NetError, match='shapes has no "label"'):
        caffe.torch.load(LENET, shapes={"data": (7, 1, 28, 28)})
    with pytest.raises(NetError, match='"dat"; did you mean "data"'):
        caffe.torch.load(LENET, shapes={**SHAPES, "dat": (7,)})
    deploy = caffe.torch.load(ROOT / "examples/mnist/lenet.prototxt")
    with pytest.raises(NetError, match="has no loss"):
        deploy.total_loss(deploy(torch.rand(64, 1, 28, 28)))
