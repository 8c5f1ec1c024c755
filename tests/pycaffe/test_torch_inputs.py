"""The PyTorch module: errors for invalid inputs name the layer or input; traced and exported programs give equal
results.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import caffe
import caffe.torch
from caffe.errors import CaffeError, NetError
from caffe.proto import caffe_pb2, text
from tests.conftest import ROOT
from tests.layers.cases import CASES


@pytest.fixture(scope="module")
def lenet():
    return caffe.torch.load(ROOT / "examples/mnist/lenet.prototxt")


X = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (
            X.expand(3, 2, 28, 28),
            r'layer "conv1" \(Convolution\).*"data" 3 2 28 28.*built for the inputs "data" 64 1 28 28',
        ),
        ((255 * X).byte(), r'layer "conv1".*uint8.*give "data" as torch.float32'),
        (X.double(), r'layer "conv1".*float64.*give "data" as torch.float32'),
        (X.long(), r'layer "conv1".*int64'),
        (X[0], r'layer "conv1".*"data" 1 28 28'),
        (X[0, 0], r'layer "conv1".*"data" 28 28'),
        (X[..., :14, :14], r'layer "ip1" \(InnerProduct\): bottom "pool2"'),
        (X.numpy(), r'input "data" is a numpy.ndarray, expected a torch.Tensor; torch.from_numpy'),
        ([1, 2], 'input "data" is a list'),
        (None, 'input "data" is a NoneType'),
    ],
)
def test_bad_inputs(lenet, given, part):
    with pytest.raises(CaffeError, match=part):
        lenet(given)


def test_errors_of_torch_stay_the_cause(lenet):
    with pytest.raises(ValueError, match="conv1") as caught:
        lenet(X.double())
    assert type(caught.value.__cause__) is RuntimeError


def test_export_keeps_the_batch_free(lenet):
    batch = torch.export.Dim("batch", min=2, max=99)
    program = torch.export.export(lenet, (X,), dynamic_shapes={"args": ({0: batch},)})
    wide = torch.rand(7, 1, 28, 28)
    torch.testing.assert_close(program.module()(wide), lenet(wide))


def load(name):
    """Return the net of a case of tests/layers, and its inputs."""
    case = next(case for case in CASES if str(case) == name)
    rng = np.random.default_rng(5)
    inputs = tuple(torch.tensor(bottom.values(rng), dtype=torch.float32) for bottom in case.inputs)
    module = caffe.torch.load(text.parse(case.net(), caffe_pb2.NetParameter()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=parameter.shape)))
    return module, inputs


def assert_same(mine, theirs):
    one, other = (list(value.values()) if isinstance(value, dict) else [value] for value in (mine, theirs))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TRACED = [
    "Pooling-max_overlapping",
    "Pooling-ave_pad",
    "Pooling-max_pad_over_half",
    "Pooling-mask",
    "Pooling-max_global",
]
TRACED += ["SPP-max", "LSTM-resets", "LSTM-expose", "RNN-resets", "MVN-default", "InnerProduct-axis_zero"]


@pytest.mark.parametrize("name", TRACED)
def test_trace(name):
    module, inputs = load(name)
    expected = module(*inputs)
    traced = torch.jit.trace(copy.deepcopy(module), inputs, check_trace=False, strict=False)
    assert_same(traced(*inputs), expected)


def test_a_trace_takes_another_batch(lenet):
    traced = torch.jit.trace(lenet, (X,))
    wide = torch.rand(7, 1, 28, 28)
    torch.testing.assert_close(traced(wide), lenet(wide))


def test_a_traced_lstm_has_the_gradient():
    module, inputs = load("LSTM-resets")
    traced = torch.jit.trace(copy.deepcopy(module), inputs, check_trace=False)
    for run in (module, traced):
        run(*inputs).square().sum().backward()
    for (name, mine), (_, theirs) in zip(traced.named_parameters(), module.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["LSTM-whole", "RNN-resets"])
def test_export_of_recurrent_layers(name):
    module, inputs = load(name)
    expected = copy.deepcopy(module)(*inputs)
    assert_same(torch.export.export(module, inputs).module()(*inputs), expected)


def test_export_of_mvn_keeps_the_batch_free():
    module, (x,) = load("MVN-default")
    program = torch.export.export(module, (x,), dynamic_shapes={"args": ({0: torch.export.Dim("batch", min=2)},)})
    wide = torch.cat([x, 2 * x])
    torch.testing.assert_close(program.module()(wide), module(wide))


def test_a_layer_that_must_be_called_is_not_traced():
    module, inputs = load("Filter-some")
    with pytest.raises(NetError, match="cannot be exported"):
        torch.jit.trace(module, inputs)


USER = """
import numpy as np
import torch
import caffe
import caffe.torch
from caffe import layers as L, params as P

n = caffe.NetSpec()
n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
n.conv1 = L.Convolution(n.data, num_output=2, kernel_size=3)
n.a, n.b = L.Split(n.conv1, ntop=2)
n["pool/x"] = L.Pooling(n.conv1, pool=P.Pooling.MAX)
net = caffe.Net(n.to_proto(), caffe.TEST, weights="net.caffemodel")
result: np.ndarray = net.forward(data=np.zeros((1, 3, 8, 8), np.float32))["pool/x"]
net.blobs["data"].reshape(2, 3, 8, 8)
net.blobs["data"].data[...] = 1
net.params["conv1"][0].data[...] *= 2
solver = caffe.SGDSolver("solver.prototxt")
solver.net.copy_from("net.caffemodel")
module = caffe.torch.load("net.prototxt")
weight: torch.Tensor = module.conv1.weight
module.conv1.weight.requires_grad_(False)
loss: torch.Tensor = module.total_loss(module(torch.zeros(1, 3, 8, 8)))
"""


@pytest.mark.long
def test_a_users_file_has_the_right_types(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user.py").write_text(USER + "wrong: int = net.forward()\nnet.forwrad()\n")
    said = [line for line in api.run(["--ignore-missing-imports", "user.py"])[0].splitlines() if "user.py" in line]
    assert len(said) == 2, said
    assert 'variable has type "int"' in said[0]
    assert '"Net" has no attribute "forwrad"' in said[1]
