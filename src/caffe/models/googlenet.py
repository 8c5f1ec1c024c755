"""GoogLeNet: inception modules with four branches each."""

from __future__ import annotations

from typing import Any

from caffe.models.blocks import begin, conv_relu, end, fc
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["MODULES", "googlenet", "inception"]

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Outputs of 1x1, 3x3 reduction, 3x3, 5x5 reduction, 5x5 and the pooling projection, by module."""


def googlenet(batch: int = 10, classes: int = 1000, size: int = 224, train: bool = False) -> Any:
    """GoogLeNet with the layers of BVLC's deploy net, without the two auxiliary classifiers; 6,998,552 parameters.

    Source: Szegedy et al., arXiv:1409.4842.
    """
    n = begin(batch, 3, size)
    x = _conv(n, "conv1/", "7x7_s2", n.data, 64, 7, relu="7x7", pad=3, stride=2)
    n["pool1/3x3_s2"] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n["pool1/norm1"] = L.LRN(n["pool1/3x3_s2"], local_size=5, alpha=1e-4, beta=0.75)
    x = _conv(n, "conv2/", "3x3_reduce", n["pool1/norm1"], 64, 1)
    x = _conv(n, "conv2/", "3x3", x, 192, 3, pad=1)
    n["conv2/norm2"] = L.LRN(x, local_size=5, alpha=1e-4, beta=0.75)
    x = n["pool2/3x3_s2"] = L.Pooling(n["conv2/norm2"], pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for name, outputs in MODULES.items():
        x = inception(n, f"inception_{name}/", x, *outputs)
        if name in ("3b", "4e"):
            pool = f"pool{int(name[0])}/3x3_s2"
            x = n[pool] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n["pool5/7x7_s1"] = L.Pooling(x, pool=P.Pooling.AVE, kernel_size=size // 32, stride=1)
    n["pool5/drop_7x7_s1"] = L.Dropout(n["pool5/7x7_s1"], dropout_ratio=0.4, in_place=True)
    return end(n, "GoogleNet", fc(n, "loss3/classifier", n["pool5/drop_7x7_s1"], classes), train)


def inception(
    n: NetSpec, at: str, x: Top, one: int, three_in: int, three: int, five_in: int, five: int, pool: int
) -> Top:
    """Add an inception module. The numbers are the outputs of the branches and of their 1x1 reductions."""
    branches = [_conv(n, at, "1x1", x, one, 1)]
    branches.append(_conv(n, at, "3x3", _conv(n, at, "3x3_reduce", x, three_in, 1), three, 3, pad=1))
    branches.append(_conv(n, at, "5x5", _conv(n, at, "5x5_reduce", x, five_in, 1), five, 5, pad=2))
    n[f"{at}pool"] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=1, pad=1)
    branches.append(_conv(n, at, "pool_proj", n[f"{at}pool"], pool, 1))
    n[f"{at}output"] = L.Concat(*branches)
    return n[f"{at}output"]


def _conv(n: NetSpec, at: str, name: str, x: Top, outputs: int, kernel: int, relu: str = "", **options: Any) -> Top:
    filler = {"weight_filler": {"type": "xavier"}, "bias_filler": {"type": "constant", "value": 0.2}}
    return conv_relu(n, at + name, x, outputs, kernel, f"{at}relu_{relu or name}", **filler, **options)
