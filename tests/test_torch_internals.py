"""Private names of torch are used in one module only, and the package works without each of them."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe import torch_internals
from caffe.errors import SolverError
from caffe.layers.support import products
from caffe.net.plan.rewrite import product
from caffe.proto import caffe_pb2
from tests.conftest import ROOT

PRIVATE = re.compile(r"torch(?:\.\w+)*\._[a-z]\w*|from torch(?:\.\w+)*\._?\w+ import .*\b_[a-z]\w*")
NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 9 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "y"
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }
"""


def test_only_one_module_uses_private_names_of_torch():
    package = ROOT / "src" / "caffe"
    found = {
        f"{path.relative_to(package)}: {match}"
        for path in package.rglob("*.py")
        if path.name != "torch_internals.py"
        for match in PRIVATE.findall(path.read_text())
        if "__" not in match
    }
    assert not found


@pytest.mark.parametrize("name", torch_internals.NAMES)
def test_this_torch_has_the_name(name):
    torch_internals.strong_wolfe()
    torch_internals.cpp_compiler()

    assert torch_internals.find(name) is not None


def test_a_name_that_torch_does_not_have_is_none():
    assert torch_internals.find("torch._no_such_name.at_all") is None


@pytest.fixture
def bare(monkeypatch):
    """Make the package behave as with a torch that has none of the private names."""
    names = "fused_sgd", "fused_adam", "fused_adamw", "linear_pointwise", "reorder_linear_weight", "autograd_engine"
    for name in names:
        monkeypatch.setattr(torch_internals, name, None)
    monkeypatch.setattr(torch_internals, "find", lambda name: None)
    monkeypatch.setattr(products, "_ONEDNN", torch_internals.has_onednn())
    assert not torch_internals.has_onednn()


def trained(kind: str, momentum: float = 0.9) -> list[torch.Tensor]:
    net = text_format.Parse(NET, caffe_pb2.NetParameter())
    param = caffe_pb2.SolverParameter(type=kind, base_lr=0.01, lr_policy="fixed", momentum=momentum, momentum2=0.99)
    param.net_param.CopyFrom(net)
    param.random_seed, param.ema_decay, param.weight_decay = 3, 0.5, 0.01
    solver = caffe.get_solver(param)
    solver.net.blobs["x"].data[...] = torch.linspace(-1, 1, 3 * 4 * 9 * 7).reshape(3, 4, 9, 7)
    solver.step(3)
    return [entry.tensor.detach().clone() for entry in solver.net.learnable] + list(solver.average.tensors or [])


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "Adam", "AdamW"])
def test_training_gives_the_same_weights_without_them(kind, request):
    expected = trained(kind)
    request.getfixturevalue("bare")
    for found, wanted in zip(trained(kind), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_inference_gives_the_same_values_without_them(request):
    net = caffe.Net(text_format.Parse(NET, caffe_pb2.NetParameter()), caffe.TEST)
    net.blobs["x"].data[...] = torch.linspace(-1, 1, 3 * 4 * 9 * 7).reshape(3, 4, 9, 7)
    net.optimize(keep=["y"])
    net.forward()
    expected = net.blobs["y"].data.copy()
    request.getfixturevalue("bare")
    assert not product.one_dnn(torch.ones(2), torch.ones(2))
    net.stepwise()
    net.optimize(keep=["y"])
    net.forward()
    torch.testing.assert_close(torch.from_numpy(net.blobs["y"].data), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_backward_layer_by_layer_gives_the_same_gradients_without_them(request):
    def gradients():
        net = caffe.Net(text_format.Parse("force_backward: true " + NET, caffe_pb2.NetParameter()), caffe.TEST)
        for index, blob in enumerate(blob for blobs in net.params.values() for blob in blobs):
            blob.data[...] = np.linspace(-1, 1, blob.count).reshape(blob.shape) + index / 7
        net.blobs["x"].data[...] = torch.linspace(-1, 1, 3 * 4 * 9 * 7).reshape(3, 4, 9, 7)
        net.forward()
        net.backward()
        return [net.blobs["x"].diff.copy(), *(b.diff.copy() for blobs in net.params.values() for b in blobs)]

    expected = gradients()
    request.getfixturevalue("bare")
    for found, wanted in zip(gradients(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert any(np.any(wanted) for wanted in expected)


def test_the_second_order_rules_are_refused_without_the_line_search(monkeypatch):
    monkeypatch.setattr(torch_internals, "strong_wolfe", lambda: None)
    with pytest.raises(SolverError, match="no line search"):
        trained("LBFGS", momentum=0)


def test_copies_are_made_one_by_one(bare):
    target = [torch.zeros(2), torch.zeros(3)]
    torch_internals.foreach_copy(target, [torch.ones(2), torch.ones(3)])
    assert all(x.eq(1).all() for x in target)
    assert torch_internals.sequence_number() == 0
    assert torch_internals.compile_errors() == ()
    assert not torch_internals.is_mutable_operator(torch.ops.aten.add_.Tensor)


FORMATS = torch.contiguous_format, torch.channels_last


@pytest.mark.parametrize(
    "order", list(itertools.product(FORMATS, repeat=3)), ids=lambda order: "-".join(map(str, order))
)
@pytest.mark.parametrize(("kernel", "channels", "size"), [(3, 4, 6), (1, 4, 6), (3, 1, 6), (1, 1, 1)])
def test_small_convolutions_are_right_in_all_memory_orders(order, kernel, channels, size):
    """Values, gradients and second derivatives are correct, also if axes of size 1 make the memory order ambiguous."""
    shapes = (1, channels, size, size), (5, channels, kernel, kernel)
    x, weight = (torch.sin(torch.arange(math.prod(shape)) + 1.0).reshape(shape) for shape in shapes)
    x, weight = (v.contiguous(memory_format=f).requires_grad_() for v, f in zip((x, weight), order[:2], strict=True))
    bias = torch.ones(5, requires_grad=True)

    def derived(run, *inputs):
        y = run(*inputs)
        dy = torch.cos(torch.arange(y.numel()) + 1.0).reshape(y.shape).contiguous(memory_format=order[2]).to(y.dtype)
        grads = torch.autograd.grad(y, inputs, dy, create_graph=True)
        return [y, *grads, *torch.autograd.grad(sum(grad.square().sum() for grad in grads), inputs[:2])]

    pad = (kernel // 2,) * 2
    found = derived(
        lambda *given: torch_internals.small_convolution(*given, (kernel, kernel), (1, 1), pad), x, weight, bias
    )
    wanted = derived(
        lambda *given: torch.conv2d(*given, 1, pad), *(v.detach().double().requires_grad_() for v in (x, weight, bias))
    )
    with torch.no_grad():
        found.append(torch_internals.small_convolution(x, weight, bias, (kernel, kernel), (1, 1), pad))
    for one, other in zip(found, [*wanted, wanted[0]], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)
