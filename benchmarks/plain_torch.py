"""The same nets as a PyTorch user would write them, for comparison: `nn` modules and `torch.optim.SGD`.

Such a net does not use Cafetière when it runs; this file only uses it to read prototxts and weight files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caffe.proto import caffe_pb2

Blobs = dict[str, list[np.ndarray]]
NO_MODULE = ("SoftmaxWithLoss", "Concat", "Eltwise")


class PlainNet(nn.Module):
    """A NetParameter as an ordinary module with these weights.

    `forward(data, label)` of a net with losses returns their weighted sum; `forward(data)` of other nets returns the
    outputs.
    """

    def __init__(self, net: Any, blobs: Blobs) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, list[str], str, float]] = []
        layers = [layer for layer in net.layer if layer.type not in ("Input", "Accuracy")]
        merged: set[str] = set()
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if layer.name in merged:
                continue
            name, scale = "", None
            if layer.type == "BatchNorm" and following is not None and following.type == "Scale":
                merged.add(following.name)
                scale = blobs[following.name]
            if layer.type not in NO_MODULE:
                name = layer.name.replace(".", "_").replace("/", "_")
                self.add_module(name, MODULES[layer.type](layer, blobs.get(layer.name), scale))
            weight = layer.loss_weight[0] if layer.loss_weight else 1.0
            self.steps.append((layer.type, name, list(layer.bottom), layer.top[0], weight))
        read = {bottom for _, _, bottoms, top, _ in self.steps for bottom in bottoms if bottom != top}
        self.outputs = [top for *_, top, _ in self.steps if top not in read]

    def forward(self, data: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        values, losses = {"data": data}, []
        for kind, name, bottoms, top, weight in self.steps:
            x = [values[bottom] for bottom in bottoms if bottom != "label"]
            if kind == "SoftmaxWithLoss":
                losses.append(weight * F.cross_entropy(x[0].flatten(1), label))
            elif kind == "Concat":
                values[top] = torch.cat(x, 1)
            elif kind == "Eltwise":
                values[top] = x[0] + x[1]
            else:
                values[top] = getattr(self, name)(x[0])
        if losses:
            return sum(losses[1:], losses[0])
        return tuple(values[name] for name in dict.fromkeys(self.outputs))


def convolution(layer: Any, blobs: Sequence[np.ndarray], _: Any) -> nn.Module:
    """A convolution with square kernels, strides and padding, in groups."""
    opt = layer.convolution_param
    stride, pad = (opt.stride or [1])[0], (opt.pad or [0])[0]
    inputs = blobs[0].shape[1] * opt.group
    made = nn.Conv2d(inputs, opt.num_output, opt.kernel_size[0], stride, pad, groups=opt.group, bias=opt.bias_term)
    return filled(made, blobs)


def inner_product(_: Any, blobs: Sequence[np.ndarray], __: Any) -> nn.Module:
    """Flattens each image and applies a linear map."""
    outputs, inputs = blobs[0].shape
    return nn.Sequential(nn.Flatten(), filled(nn.Linear(inputs, outputs), blobs))


def pooling(layer: Any, _: Any, __: Any) -> nn.Module:
    """Pooling; torch's `ceil_mode` agrees with Caffe's rounding for all nets used here."""
    opt = layer.pooling_param
    if opt.global_pooling:
        return nn.AdaptiveAvgPool2d(1)
    kind = nn.MaxPool2d if opt.pool == caffe_pb2.PoolingParameter.MAX else nn.AvgPool2d
    return kind(opt.kernel_size, opt.stride, opt.pad, ceil_mode=True)


def batch_norm(layer: Any, blobs: Sequence[np.ndarray], scale: Sequence[np.ndarray]) -> nn.Module:
    """BatchNorm and the following Scale."""
    made = nn.BatchNorm2d(len(blobs[0]), eps=layer.batch_norm_param.eps)
    assert made.running_mean is not None
    assert made.running_var is not None
    made.running_mean.copy_(torch.tensor(blobs[0] / blobs[2]))
    made.running_var.copy_(torch.tensor(blobs[1] / blobs[2]))
    return filled(made, scale)


def filled(module: Any, blobs: Sequence[np.ndarray]) -> Any:
    """Return the module with these arrays as weight and bias."""
    for parameter, blob in zip(module.parameters(), blobs, strict=True):
        parameter.data.copy_(torch.tensor(blob))
    return module


def lrn(layer: Any, _: Any, __: Any) -> nn.Module:
    """LRN across channels."""
    opt = layer.lrn_param
    return nn.LocalResponseNorm(opt.local_size, opt.alpha, opt.beta, opt.k)


MODULES = {
    "Convolution": convolution,
    "InnerProduct": inner_product,
    "Pooling": pooling,
    "BatchNorm": batch_norm,
    "LRN": lrn,
    "ReLU": lambda *_: nn.ReLU(inplace=True),
    "PReLU": lambda _, blobs, __: filled(nn.PReLU(len(blobs[0])), blobs),
    "Clip": lambda layer, *_: nn.Hardtanh(layer.clip_param.min, layer.clip_param.max, inplace=True),
    "Flatten": lambda *_: nn.Flatten(),
    "Dropout": lambda layer, *_: nn.Dropout(layer.dropout_param.dropout_ratio),
    "Softmax": lambda *_: nn.Softmax(1),
}
"""Functions that build modules, by layer type, from the layer, its blobs, and the blobs of the Scale after a
BatchNorm.
"""
