"""The classic nets as NetParameters, built of blocks that are functions over NetSpec.

    param = caffe.models.resnet50(batch=8)
    net = caffe.Net(param, caffe.TEST)                    # or caffe.torch.load(param), or print(param) into a file

Every builder takes `batch`, `classes`, `size` (of the square images) and `train`: False gives a deploy net with the
blobs "data" and "prob", True one with "data", "label", "loss" and "accuracy". Layers have the names of the
published Caffe models (but for MobileNet v2's), so that their weight files fit.
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
