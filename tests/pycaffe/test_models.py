"""The classic nets have the published numbers of parameters and outputs, and train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import caffe
import caffe.filler
import caffe.models
from caffe.errors import NetError
from caffe.proto import upgrade
from tests.conftest import ROOT

PUBLISHED = {
    "lenet": 431_080,
    "cifar_quick": 145_578,
    "alexnet": 60_965_224,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_998_552,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "squeezenet": 1_248_424,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
}
FINAL = {  # the last blob with height and width, as given in the papers
    "lenet": ("pool2", (50, 4, 4)),
    "cifar_quick": ("pool3", (64, 4, 4)),
    "alexnet": ("pool5", (256, 6, 6)),
    "vgg16": ("pool5", (512, 7, 7)),
    "vgg19": ("pool5", (512, 7, 7)),
    "googlenet": ("inception_5b/output", (1024, 7, 7)),
    "resnet18": ("res5b", (512, 7, 7)),
    "resnet34": ("res5c", (512, 7, 7)),
    "resnet50": ("res5c", (2048, 7, 7)),
    "resnet101": ("res4b22", (1024, 14, 14)),
    "resnet152": ("res4b35", (1024, 14, 14)),
    "squeezenet": ("conv10", (1000, 13, 13)),
    "mobilenet_v1": ("conv6/sep", (1024, 7, 7)),
    "mobilenet_v2": ("conv9", (1280, 7, 7)),
}


def trained(net):
    return sum(entry.tensor.numel() for entry in net.learnable if isinstance(entry.tensor, nn.Parameter))


def test_every_builder_is_tested():
    assert set(caffe.models.__all__) == set(PUBLISHED) == set(FINAL)


@pytest.fixture
def quick(monkeypatch):
    """Leave the weights at zero, because the tests check only shapes."""
    monkeypatch.setattr(caffe.filler, "fill", lambda *_: None)


SLOW = ("resnet101", "resnet152")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in SLOW)) for n in PUBLISHED])
@pytest.mark.usefixtures("quick")
def test_size(name):
    net = caffe.Net(getattr(caffe.models, name)(batch=2), caffe.TEST)
    assert trained(net) == PUBLISHED[name]
    classes = 10 if name in ("lenet", "cifar_quick") else 1000
    assert net.blobs["prob"].shape[:2] == (2, classes)
    assert net.blobs["prob"].count == 2 * classes
    blob, shape = FINAL[name]
    assert net.blobs[blob].shape == (2, *shape)
    assert net.inputs == ["data"]


@pytest.mark.usefixtures("quick")
def test_squeezenet_1_1():
    assert trained(caffe.Net(caffe.models.squeezenet(version="1.1"), caffe.TEST)) == 1_235_496
    with pytest.raises(NetError, match=r"1\.2"):
        caffe.models.squeezenet(version="1.2")


@pytest.mark.parametrize("name", ["googlenet", "alexnet"])
def test_layers_of_the_models_of_the_zoo(name):
    built, stored = (
        {layer.name: layer for layer in net.layer}
        for net in (
            getattr(caffe.models, name)(batch=10),
            upgrade.read_net(ROOT / f"models/bvlc_{name}/deploy.prototxt"),
        )
    )
    assert set(built) == set(stored)
    for key, layer in built.items():
        assert (layer.type, list(layer.bottom), list(layer.top)) == (
            stored[key].type,
            list(stored[key].bottom),
            list(stored[key].top),
        )


@pytest.mark.parametrize(
    ("name", "size"), [("lenet", 28), ("cifar_quick", 32), ("resnet18", 33), ("squeezenet", 64), ("mobilenet_v2", 32)]
)
def test_trains(name, size):
    torch.manual_seed(1)
    net = caffe.Net(getattr(caffe.models, name)(batch=3, classes=5, size=size, train=True), caffe.TRAIN)
    net.blobs["data"].tensor.normal_()
    net.blobs["label"].data[...] = [4, 0, 2]
    losses = []
    for _ in range(6):
        net.clear_param_diffs()
        losses.append(net.forward_backward())
        for entry in net.learnable:
            if entry.lr_mult and entry.tensor.grad is not None:
                entry.tensor.data.sub_(entry.tensor.grad, alpha=0.01)
    assert min(losses[1:]) < losses[0]
    assert set(net.outputs) <= {"loss", "accuracy"}
