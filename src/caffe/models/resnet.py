"""Residual nets of 18 to 152 layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from caffe.models.blocks import begin, conv_bn, end, fc
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def _resnet(
    depths: tuple[int, ...], deep: bool, batch: int = 1, classes: int = 1000, size: int = 224, train: bool = False
) -> Any:
    """Build a ResNet with `depths` blocks per stage, in the original form (stride in the first convolution of a block).

    Source: He et al., arXiv:1512.03385; layer names of its authors' models.
    """
    n = begin(batch, 3, size)
    x = conv_bn(n, ("conv1", "bn_conv1", "scale_conv1", "conv1_relu"), n.data, 64, 7, stride=2, pad=3)
    x = n.pool1 = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for stage, depth in enumerate(depths, 2):
        for block in range(depth):
            letter = chr(ord("a") + block) if depth < 7 else f"b{block}" if block else "a"
            outputs = 2 ** (stage + 4)
            x = _block(
                n, f"{stage}{letter}", x, outputs, deep, stride=2 if stage > 2 and not block else 1, first=not block
            )
    n.pool5 = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    return end(n, f"ResNet-{2 + (3 if deep else 2) * sum(depths)}", fc(n, f"fc{classes}", n.pool5, classes), train)


def _block(n: NetSpec, at: str, x: Top, outputs: int, deep: bool, stride: int, first: bool) -> Top:
    """Add x + two 3x3 convolutions of x or, if `deep`, a bottleneck of 1x1, 3x3, and a 1x1 that is four times as
    wide.
    """

    def conv(branch: str, x: Top, wide: int, kernel: int, stride: int = 1, relu: bool = True) -> Top:
        names = (f"res{at}_{branch}", f"bn{at}_{branch}", f"scale{at}_{branch}", f"res{at}_{branch}_relu")
        return conv_bn(n, names if relu else names[:3], x, wide, kernel, stride=stride, pad=kernel // 2)

    wide = 4 * outputs if deep else outputs
    short = conv("branch1", x, wide, 1, stride, relu=False) if first and (deep or stride > 1) else x
    y = conv("branch2a", x, outputs, 1 if deep else 3, stride)
    y = conv("branch2b", y, outputs, 3, relu=deep)
    if deep:
        y = conv("branch2c", y, wide, 1, relu=False)
    n[f"res{at}"] = L.Eltwise(short, y)
    n[f"res{at}_relu"] = L.ReLU(n[f"res{at}"], in_place=True)
    return n[f"res{at}_relu"]


resnet18 = partial(_resnet, (2, 2, 2, 2), False)
resnet34 = partial(_resnet, (3, 4, 6, 3), False)
resnet50 = partial(_resnet, (3, 4, 6, 3), True)
resnet101 = partial(_resnet, (3, 4, 23, 3), True)
resnet152 = partial(_resnet, (3, 8, 36, 3), True)
