"""Blocks shared by several nets. Each adds named layers to the NetSpec `n` and returns the last blob."""

from __future__ import annotations

from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L

__all__ = ["begin", "conv", "conv_bn", "conv_relu", "end", "fc"]

_WEIGHT, _BIAS = {"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}
_FIXED = {"lr_mult": 0, "decay_mult": 0}


def begin(batch: int, channels: int, size: int) -> NetSpec:
    """Create a net with its input, `n.data`."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, channels, size, size]})
    return n


def end(n: NetSpec, name: str, scores: Top, train: bool) -> Any:
    """Return the NetParameter, ending with class probabilities, or for training with labels, loss and accuracy."""
    if train:
        n.label = L.Input(shape={"dim": [n.data.fn.params["shape"]["dim"][0]]})
        n.loss = L.SoftmaxWithLoss(scores, n.label)
        n.accuracy = L.Accuracy(scores, n.label, include={"phase": 1})
    else:
        n.prob = L.Softmax(scores)
    param = n.to_proto()
    param.name = name
    return param


def conv(n: NetSpec, name: str, x: Top, outputs: int, kernel: int, bias: bool = True, **options: Any) -> Top:
    """Add a convolution with that name; `options` are fields of ConvolutionParameter."""
    learn = {"param": [_WEIGHT, _BIAS]} if bias else {"param": [_WEIGHT], "bias_term": False}
    given = {"weight_filler": {"type": "msra"}, **learn, **options}
    n[name] = L.Convolution(x, num_output=outputs, kernel_size=kernel, **given)
    return n[name]


def conv_relu(n: NetSpec, name: str, x: Top, outputs: int, kernel: int, relu: str = "", **options: Any) -> Top:
    """Add a convolution and its ReLU, called `relu` (`relu_<name>` by default)."""
    relu = relu or f"relu_{name}"
    n[relu] = L.ReLU(conv(n, name, x, outputs, kernel, **options), in_place=True)
    return n[relu]


def conv_bn(n: NetSpec, names: tuple[str, ...], x: Top, outputs: int, kernel: int, **options: Any) -> Top:
    """Add a convolution without bias, its batch normalization and, if there is a fourth name, a ReLU.

    `names` are those of Convolution, BatchNorm, Scale and ReLU.
    """
    y = conv(n, names[0], x, outputs, kernel, bias=False, **options)
    n[names[1]] = L.BatchNorm(y, in_place=True, param=[_FIXED] * 3)
    n[names[2]] = L.Scale(
        n[names[1]], in_place=True, scale_param={"bias_term": True}, param=[_FIXED | {"lr_mult": 1}] * 2
    )
    if len(names) < 4:
        return n[names[2]]
    n[names[3]] = L.ReLU(n[names[2]], in_place=True)
    return n[names[3]]


def fc(n: NetSpec, name: str, x: Top, outputs: int, std: float = 0.01) -> Top:
    """Add a fully connected layer."""
    filler = {"type": "gaussian", "std": std}
    n[name] = L.InnerProduct(x, num_output=outputs, weight_filler=filler, param=[_WEIGHT, _BIAS])
    return n[name]
