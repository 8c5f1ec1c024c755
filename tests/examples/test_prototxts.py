"""Every net and solver of examples/ and models/ parses, builds and trains, with the sizes of the published nets."""

from __future__ import annotations

import math
import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from caffe.net import Net
from caffe.proto import caffe_pb2, upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT, shared
from tests.examples import tiny

FILES = sorted(
    str(path.relative_to(ROOT)) for folder in ("examples", "models") for path in ROOT.glob(f"{folder}/*/*.prototxt")
)
OWN = ("examples/mnist", "examples/cifar10", "examples/siamese", "examples/hdf5_classification", "models/")
SOLVERS = [path for path in FILES if path.startswith(OWN) and "solver" in path]
HEAVY = pytest.mark.long

PARAMETERS = {
    "examples/mnist/lenet.prototxt": 431_080,
    "examples/mnist/lenet_train_test.prototxt": 431_080,
    "examples/mnist/mnist_autoencoder.prototxt": 2_837_314,
    "examples/siamese/mnist_siamese.prototxt": 431_102,
    "examples/siamese/mnist_siamese_train_test.prototxt": 431_102,  # both sides share their weights
    "examples/cifar10/cifar10_quick.prototxt": 145_578,
    "examples/cifar10/cifar10_quick_train_test.prototxt": 145_578,
    "examples/cifar10/cifar10_full.prototxt": 89_578,
    "examples/cifar10/cifar10_full_train_test.prototxt": 89_578,
    "examples/hdf5_classification/train_val.prototxt": 10,
    "examples/hdf5_classification/nonlinear_train_val.prototxt": 282,
    "models/bvlc_alexnet/deploy.prototxt": 60_965_224,
    "models/bvlc_alexnet/train_val.prototxt": 60_965_224,
    "models/bvlc_reference_caffenet/deploy.prototxt": 60_965_224,
    "models/bvlc_reference_caffenet/train_val.prototxt": 60_965_224,
    "models/bvlc_googlenet/deploy.prototxt": 6_998_552,
    "models/bvlc_googlenet/train_val.prototxt": 13_378_280,  # with the auxiliary classifiers
}
SHAPES = {
    "examples/mnist/lenet.prototxt": {"conv1": (64, 20, 24, 24), "pool2": (64, 50, 4, 4), "prob": (64, 10)},
    "examples/siamese/mnist_siamese.prototxt": {"pool2": (10000, 50, 4, 4), "feat": (10000, 2)},
    "examples/cifar10/cifar10_quick.prototxt": {"pool1": (1, 32, 16, 16), "pool3": (1, 64, 4, 4), "ip1": (1, 64)},
    "examples/cifar10/cifar10_full.prototxt": {"norm2": (1, 32, 8, 8), "pool3": (1, 64, 4, 4), "prob": (1, 10)},
    "models/bvlc_alexnet/deploy.prototxt": {"norm1": (10, 96, 55, 55), "pool5": (10, 256, 6, 6), "prob": (10, 1000)},
    "models/bvlc_reference_caffenet/deploy.prototxt": {"norm1": (10, 96, 27, 27), "pool5": (10, 256, 6, 6)},
    "models/bvlc_googlenet/deploy.prototxt": {
        "inception_3a/output": (10, 256, 28, 28),
        "inception_4e/output": (10, 832, 14, 14),
        "inception_5b/output": (10, 1024, 7, 7),
        "pool5/7x7_s1": (10, 1024, 1, 1),
        "prob": (10, 1000),
    },
}
FIRST_LOSS = {
    "examples/mnist/lenet": math.log(10),
    "examples/cifar10/": math.log(10),
    "models/bvlc_alexnet": math.log(1000),
    "models/bvlc_reference_caffenet": math.log(1000),
    "models/bvlc_googlenet": 1.6 * math.log(1000),  # auxiliary losses count 0.3 each
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run each test in an empty folder, because the examples name their data relative to the root of the project."""
    monkeypatch.chdir(tmp_path)


def read_net(path: str) -> caffe_pb2.NetParameter:
    """Return the net of a prototxt, with a few generated records as its data."""
    param = upgrade.read_net(ROOT / path)
    tiny.provide(param)
    return param


def small_solver(path: str) -> caffe_pb2.SolverParameter:
    """Return the solver of a file, changed to test with one batch before its first iteration."""
    param = upgrade.read_solver(ROOT / path)
    param.net_param.CopyFrom(read_net(param.net))
    param.ClearField("net")
    param.test_iter[:] = [1] * len(param.test_iter)
    param.test_initialization, param.solver_mode, param.random_seed = True, param.CPU, 3
    Path(param.snapshot_prefix).parent.mkdir(parents=True, exist_ok=True)
    return param


def heavy(paths: list[str]) -> list:
    """Mark the nets of models/ as long tests, because each takes seconds."""
    return [pytest.param(path, marks=HEAVY) if path.startswith("models/") else path for path in paths]


@pytest.mark.parametrize("path", FILES)
def test_parses(path):
    if "solver" not in path:
        net = upgrade.read_net(ROOT / path)
        assert net.name
        assert len(net.layer) > 2
        return
    solver = upgrade.read_solver(ROOT / path)
    for net in filter(None, [solver.net, solver.train_net, *solver.test_net]):
        assert (ROOT / net).is_file(), f"{path} names {net}, which is not there"


def test_no_two_solvers_overwrite_each_others_snapshots():
    """The solvers of CIFAR-10 share a prefix, because each resumes from the previous one's snapshot.

    Their snapshots differ by the iteration.
    """
    params = [upgrade.read_solver(ROOT / path) for path in SOLVERS]
    for path, param in zip(SOLVERS, params, strict=True):
        assert param.snapshot_prefix.startswith("demo/" if "demo" in path else f"{Path(path).parent}/")
    ends = [(param.snapshot_prefix, param.max_iter) for param in params]
    assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("path", heavy(SOLVERS))
def test_trains(path):
    solver = get_solver(small_solver(path))
    before = [entry.tensor.detach().clone() for entry in solver.net.learnable]
    expected = next((loss for start, loss in FIRST_LOSS.items() if path.startswith(start)), None)
    if expected is not None:
        assert solver.net.evaluate() == pytest.approx(expected, rel=0.12)
    solver.step(1)
    for net in (solver.net, *solver.test_nets):
        for name in net.outputs:
            assert np.isfinite(net.blobs[name].data).all(), name
    for entry, old in zip(solver.net.learnable, before, strict=True):
        if entry.index == 0:  # the gradients of the last biases of the siamese net cancel between its two sides
            assert not entry.tensor.equal(old), f"the weights of {entry.layer} have not moved"
    for net in (solver.net, *solver.test_nets):
        net.close()


@pytest.mark.parametrize("path", heavy(list(PARAMETERS)))
def test_parameter_count(path):
    stages = ["test-on-test"] if "autoencoder" in path else None
    for phase in (caffe_pb2.TRAIN, caffe_pb2.TEST):
        net = Net(read_net(path), phase, stages=stages)
        assert sum(entry.tensor.numel() for entry in net.learnable) == PARAMETERS[path]
        net.close()


@pytest.mark.parametrize("path", heavy(list(SHAPES)))
def test_shapes(path):
    net = Net(ROOT / path, caffe_pb2.TEST)
    assert {name: net.blobs[name].shape for name in SHAPES[path]} == SHAPES[path]


DEPLOYED = {
    "examples/mnist/lenet": "lenet_train_test",
    "examples/siamese/mnist_siamese": "mnist_siamese_train_test",
    "examples/cifar10/cifar10_quick": "cifar10_quick_train_test",
    "examples/cifar10/cifar10_full": "cifar10_full_train_test",
    "models/bvlc_alexnet/deploy": "train_val",
    "models/bvlc_reference_caffenet/deploy": "train_val",
    "models/bvlc_googlenet/deploy": "train_val",
}


@pytest.mark.parametrize("deployed", DEPLOYED)
def test_deploy_net_is_the_trained_one(deployed):
    """The deploy net has the same layers in the same order with the same options, except data, losses, fillers and
    names of shared parameters.
    """
    trained = upgrade.read_net(ROOT / Path(deployed).with_name(DEPLOYED[deployed] + ".prototxt"))
    known = {layer.name: _essence(layer) for layer in trained.layer}
    layers = [layer for layer in upgrade.read_net(ROOT / f"{deployed}.prototxt").layer if layer.name in known]
    order = [layer.name for layer in trained.layer if layer.name in {own.name for own in layers}]
    assert [layer.name for layer in layers if layer.type != "Input"] == [name for name in order if name != "data"]
    for layer in layers:
        if layer.type != "Input":
            assert _essence(layer) == known[layer.name], layer.name
    assert sum(layer.type in ("Convolution", "InnerProduct") for layer in layers) >= 4


def test_both_sides_of_the_siamese_net_are_one_net():
    layers = {
        layer.name: layer
        for layer in upgrade.read_net(ROOT / "examples/siamese/mnist_siamese_train_test.prototxt").layer
    }
    sides = [name for name in layers if name.endswith("_p")]
    assert len(sides) == 8
    for name in sides:
        first, second = layers[name.removesuffix("_p")], layers[name]
        assert [param.name for param in first.param] == [param.name for param in second.param]
        assert all(bottom.endswith("_p") for bottom in second.bottom)
        assert str(_essence(first)) == str(_essence(second)).replace('_p"', '"')


def _essence(layer: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    layer = caffe_pb2.LayerParameter.FromString(layer.SerializeToString())
    for options in (layer.convolution_param, layer.inner_product_param):
        options.ClearField("weight_filler")
        options.ClearField("bias_filler")
    for param in layer.param:
        param.ClearField("name")
    return layer


REFERENCES = {
    "lenet_mnist_2014_v1/reference_iter_10000": ("examples/mnist/lenet", "lenet_iter_10000"),
    "cifar10_2014_v1/reference_quick_iter_5000": ("examples/cifar10/cifar10_quick", "cifar10_quick_iter_5000"),
    "cifar10_2014_v1/reference_full_iter_70000": ("examples/cifar10/cifar10_full", "cifar10_full_iter_70000"),
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_published_weights_give_the_published_answers(reference):
    """Weights trained by real Caffe in 2014, under our prototxt, against what real Caffe computes from them."""
    network, weights = REFERENCES[reference]
    folder = os.path.dirname(reference)
    case = np.load(shared("models", f"{reference}.npz"))
    net = Net(ROOT / f"{network}.prototxt", caffe_pb2.TEST, weights=shared("models", folder, f"{weights}.caffemodel"))
    image = case["rand|in|data"]
    net.blobs["data"].reshape(*image.shape)
    net.reshape()
    np.testing.assert_allclose(net.forward(data=image)["prob"], case["rand|out|prob"], rtol=1e-4, atol=1e-5)


def test_googlenet_files_are_what_the_generator_writes():
    folder = ROOT / "models/bvlc_googlenet"
    network = runpy.run_path(str(folder / "generate.py"))["network"]
    assert (folder / "train_val.prototxt").read_text() == network(training=True)
    assert (folder / "deploy.prototxt").read_text() == network(training=False)
