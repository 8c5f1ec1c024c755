"""LeNet, CIFAR quick, AlexNet and VGG: chains of convolutions and fully connected layers."""

from __future__ import annotations

from typing import Any

from caffe.models.blocks import begin, conv, conv_relu, end, fc
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["alexnet", "cifar_quick", "lenet", "vgg16", "vgg19"]


def lenet(batch: int = 64, classes: int = 10, size: int = 28, train: bool = False, channels: int = 1) -> Any:
    """LeNet as Caffe trains it on MNIST; 431,080 parameters. Source: LeCun et al. 1998; BVLC examples/mnist."""
    n = begin(batch, channels, size)
    conv(n, "conv1", n.data, 20, 5, weight_filler={"type": "xavier"})
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    conv(n, "conv2", n.pool1, 50, 5, weight_filler={"type": "xavier"})
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.relu1 = L.ReLU(fc(n, "ip1", n.pool2, 500), in_place=True)
    return end(n, "LeNet", fc(n, "ip2", n.relu1, classes), train)


def cifar_quick(batch: int = 100, classes: int = 10, size: int = 32, train: bool = False, channels: int = 3) -> Any:
    """The small net of BVLC's example cifar10_quick, with fillers for any input; 145,578 parameters.

    Source: Krizhevsky's cuda-convnet; BVLC examples/cifar10.
    """
    n = begin(batch, channels, size)
    conv(n, "conv1", n.data, 32, 5, pad=2)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    for number, outputs in ((2, 32), (3, 64)):
        x = conv_relu(n, f"conv{number}", n[f"pool{number - 1}"], outputs, 5, f"relu{number}", pad=2)
        n[f"pool{number}"] = L.Pooling(x, pool=P.Pooling.AVE, kernel_size=3, stride=2)
    hidden = fc(n, "ip1", n.pool3, 64, 0.05)
    return end(n, "CIFAR10_quick", fc(n, "ip2", hidden, classes, 0.1), train)


def alexnet(batch: int = 10, classes: int = 1000, size: int = 227, train: bool = False) -> Any:
    """AlexNet with the layers of BVLC's model; 60,965,224 parameters. Source: Krizhevsky et al. 2012."""
    n = begin(batch, 3, size)
    x = conv_relu(n, "conv1", n.data, 96, 11, "relu1", stride=4)
    n.norm1 = L.LRN(x, local_size=5, alpha=1e-4, beta=0.75)
    n.pool1 = L.Pooling(n.norm1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    x = conv_relu(n, "conv2", n.pool1, 256, 5, "relu2", pad=2, group=2)
    n.norm2 = L.LRN(x, local_size=5, alpha=1e-4, beta=0.75)
    n.pool2 = L.Pooling(n.norm2, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    x = conv_relu(n, "conv3", n.pool2, 384, 3, "relu3", pad=1)
    x = conv_relu(n, "conv4", x, 384, 3, "relu4", pad=1, group=2)
    x = conv_relu(n, "conv5", x, 256, 3, "relu5", pad=1, group=2)
    n.pool5 = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    return end(n, "AlexNet", _classifier(n, n.pool5, classes), train)


def vgg16(batch: int = 10, classes: int = 1000, size: int = 224, train: bool = False) -> Any:
    """VGG with 16 layers; 138,357,544 parameters. Source: Simonyan & Zisserman, arXiv:1409.1556, net D."""
    return _vgg("VGG_ILSVRC_16_layers", (2, 2, 3, 3, 3), batch, classes, size, train)


def vgg19(batch: int = 10, classes: int = 1000, size: int = 224, train: bool = False) -> Any:
    """VGG with 19 layers; 143,667,240 parameters. Source: Simonyan & Zisserman, arXiv:1409.1556, net E."""
    return _vgg("VGG_ILSVRC_19_layers", (2, 2, 4, 4, 4), batch, classes, size, train)


def _vgg(name: str, depths: tuple[int, ...], batch: int, classes: int, size: int, train: bool) -> Any:
    n = begin(batch, 3, size)
    x = n.data
    for stage, (depth, outputs) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True), 1):
        for index in range(1, depth + 1):
            x = conv_relu(n, f"conv{stage}_{index}", x, outputs, 3, f"relu{stage}_{index}", pad=1)
        x = n[f"pool{stage}"] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    return end(n, name, _classifier(n, x, classes), train)


def _classifier(n: NetSpec, x: Top, classes: int) -> Top:
    """Add three fully connected layers, the first two with dropout."""
    for number in (6, 7):
        relu = n[f"relu{number}"] = L.ReLU(fc(n, f"fc{number}", x, 4096, 0.005), in_place=True)
        x = n[f"drop{number}"] = L.Dropout(relu, dropout_ratio=0.5, in_place=True)
    return fc(n, "fc8", x, classes)
