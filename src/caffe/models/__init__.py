"""The classic nets as NetParameters, built from blocks that are functions on a NetSpec.

    param = caffe.models.resnet50(batch=8)
    net = caffe.Net(param, caffe.TEST)                    # or caffe.torch.load(param), or print(param) into a file

Every builder takes `batch`, `classes`, `size` (of the square images) and `train`. With train=False it returns a deploy
net with the blobs "data" and "prob", with train=True a net with "data", "label", "loss" and "accuracy". Layers have the
names of the published Caffe models (except MobileNet v2), so that their weight files can be loaded.
"""

from __future__ import annotations

from caffe.models.classic import alexnet, cifar_quick, lenet, vgg16, vgg19
from caffe.models.googlenet import googlenet
from caffe.models.mobile import mobilenet_v1, mobilenet_v2, squeezenet
from caffe.models.resnet import resnet18, resnet34, resnet50, resnet101, resnet152

__all__ = [
    "alexnet",
    "cifar_quick",
    "googlenet",
    "lenet",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "squeezenet",
    "vgg16",
    "vgg19",
]
