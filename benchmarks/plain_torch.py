"""The same nets as a PyTorch user would write them, for comparison: `nn` modules and `torch.optim.SGD`.

Such a net does not use Cafetière when it runs; this file only uses it to read prototxts and weight files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_multibox import MultiBox
from caffe.proto import caffe_pb2, text, weights

Blobs = dict[str, list[np.ndarray]]
NO_MODULE = ("SoftmaxWithLoss", "Concat", "Eltwise", "Crop")
CONSTANT = ("Accuracy", "DummyData", "PriorBox")
"""Layers that are left out, together with those that read nothing but the tops of these."""


def read(folder: Path) -> PlainNet:
    """The net of a folder of `benchmarks.workloads` with its weights, in training."""
    blobs = weights.read(folder / "net.caffemodel")
    net = text.read(folder / "net.prototxt", caffe_pb2.NetParameter())
    if (folder / "priors.npy").exists():
        blobs[net.layer[-1].name] = [np.load(folder / "priors.npy")]
    return PlainNet(net, blobs)


def batches(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Data and labels of a folder, of each size of the images."""
    pairs = ((at, at.with_name(at.name.replace("data", "label"))) for at in sorted(folder.glob("data*.npy")))
    return [(torch.from_numpy(np.load(data)), torch.from_numpy(np.load(label))) for data, label in pairs]


class PlainNet(nn.Module):
    """A NetParameter as an ordinary module with these weights.

    `forward(data, label)` of a net with losses returns their weighted sum; `forward(data)` of other nets returns the
    outputs.
    """

    def __init__(self, net: Any, blobs: Blobs) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, list[str], str, float]] = []
        layers, self.fixed = computed(net)
        self.options: dict[str, int] = {}  # for a top, the axis of its Concat or loss, the offset of its Crop
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
            axis = layer.concat_param.axis if layer.type == "Concat" else layer.softmax_param.axis
            self.options[layer.top[0]] = layer.crop_param.offset[0] if layer.type == "Crop" else axis
        read = {bottom for _, _, bottoms, top, _ in self.steps for bottom in bottoms if bottom != top}
        self.outputs = [top for *_, top, _ in self.steps if top not in read]

    def forward(self, data: Tensor, label: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        values, losses = {"data": data}, []
        for kind, name, bottoms, top, weight in self.steps:
            x = [values[bottom] for bottom in bottoms if bottom != "label" and bottom not in self.fixed]
            if kind == "SoftmaxWithLoss":
                losses.append(weight * cross_entropy(x[0], label, self.options[top]))
            elif kind == "MultiBoxLoss":
                losses.append(weight * getattr(self, name)(x[0], x[1], label))
            elif kind == "Concat":
                values[top] = torch.cat(x, self.options[top])
            elif kind == "Crop":
                at, (height, width) = self.options[top], x[1].shape[2:]
                values[top] = x[0][:, :, at : at + height, at : at + width]
            elif kind == "Eltwise":
                values[top] = x[0] + x[1]
            else:
                values[top] = getattr(self, name)(x[0])
        if losses:
            return sum(losses[1:], losses[0])
        return tuple(values[name] for name in dict.fromkeys(self.outputs))


def computed(net: Any) -> tuple[list[Any], set[str]]:
    """The layers that a net of PyTorch computes, and the constant blobs, which it does not."""
    layers, fixed = [], set()
    for layer in net.layer:
        if layer.type in CONSTANT or (layer.bottom and fixed.issuperset(layer.bottom)):
            fixed.update(layer.top)
        elif layer.type != "Input":
            layers.append(layer)
    return layers, fixed


def cross_entropy(scores: Tensor, label: Tensor | None, axis: int) -> Tensor:
    """The mean over all labels; classes are along the axis."""
    assert label is not None
    scores = scores.flatten(0, axis - 1)
    if scores.dim() > 2 and scores.shape[2:].numel() == 1:
        scores = scores.flatten(1)
    return F.cross_entropy(scores, label.view(scores.shape[0], *scores.shape[2:]))


def convolution(layer: Any, blobs: Sequence[np.ndarray], _: Any) -> nn.Module:
    """A convolution with square kernels, strides and padding, in groups."""
    opt = layer.convolution_param
    stride, pad = (opt.stride or [1])[0], (opt.pad or [0])[0]
    inputs = blobs[0].shape[1] * opt.group
    made = nn.Conv2d(inputs, opt.num_output, opt.kernel_size[0], stride, pad, groups=opt.group, bias=opt.bias_term)
    return filled(made, blobs)


def deconvolution(layer: Any, blobs: Sequence[np.ndarray], _: Any) -> nn.Module:
    """A transposed convolution without bias."""
    opt, (inputs, outputs) = layer.convolution_param, blobs[0].shape[:2]
    return filled(nn.ConvTranspose2d(inputs, outputs, opt.kernel_size[0], opt.stride[0], bias=False), blobs)


def inner_product(layer: Any, blobs: Sequence[np.ndarray], _: Any) -> nn.Module:
    """Flattens each image, if the axis is 1, and applies a linear map."""
    outputs, inputs = blobs[0].shape
    made = filled(nn.Linear(inputs, outputs), blobs)
    return made if layer.inner_product_param.axis > 1 else nn.Sequential(nn.Flatten(), made)


class Recurrent(nn.Module):
    """`nn.LSTM` with Caffe's weights, whose gates are in another order."""

    def __init__(self, blobs: Sequence[np.ndarray]) -> None:
        super().__init__()
        inner, bias, outer = (blob.reshape(4, -1, *blob.shape[1:])[[0, 1, 3, 2]].reshape(blob.shape) for blob in blobs)
        self.lstm = filled(nn.LSTM(inner.shape[1], outer.shape[1]), [inner, outer, bias, np.zeros_like(bias)])
        self.lstm.bias_hh_l0.requires_grad_(False)  # Caffe's layer has one bias

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Permute(nn.Module):
    """Other order of the axes."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = list(order)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


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
    "Deconvolution": deconvolution,
    "LSTM": lambda _, blobs, __: Recurrent(blobs),
    "MultiBoxLoss": lambda layer, blobs, _: MultiBox(blobs[0], layer.multibox_loss_param.num_classes),
    "Permute": lambda layer, *_: Permute(layer.permute_param.order),
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
