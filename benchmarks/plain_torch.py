"""The same nets as a PyTorch user writes them: `nn` modules, NCHW, `torch.optim.SGD`. A peer to measure against."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caffe.proto import caffe_pb2


class PlainNet(nn.Module):
    """A NetParameter with Input layers as an ordinary module; `forward(data, label)` returns the loss."""

    def __init__(self, net: Any, channels: dict[str, int]) -> None:
        """`channels` gives each blob's channels, for the sizes of the modules."""
        super().__init__()
        self.steps: list[tuple[str, str, list[str], str, float]] = []
        merged: set[str] = set()
        layers = list(net.layer)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if layer.type in ("Input", "Accuracy", "Scale") and (layer.type != "Scale" or layer.name in merged):
                continue
            name = layer.name.replace(".", "_").replace("/", "_")
            if layer.type == "BatchNorm" and following is not None and following.type == "Scale":
                merged.add(following.name)
            module = self.module(layer, channels)
            if module is not None:
                self.add_module(name, module)
            weight = layer.loss_weight[0] if layer.loss_weight else 1.0
            self.steps.append(
                (layer.type, name if module is not None else "", list(layer.bottom), layer.top[0], weight)
            )

    @staticmethod
    def module(layer: Any, channels: dict[str, int]) -> nn.Module | None:
        inputs = channels[layer.bottom[0]]
        if layer.type == "Convolution":
            opt = layer.convolution_param
            stride, pad = (opt.stride or [1])[0], (opt.pad or [0])[0]
            return nn.Conv2d(
                inputs, opt.num_output, opt.kernel_size[0], stride, pad, groups=opt.group, bias=opt.bias_term
            )
        if layer.type == "InnerProduct":
            return nn.LazyLinear(layer.inner_product_param.num_output)
        if layer.type == "Pooling":
            opt = layer.pooling_param
            if opt.global_pooling:
                return nn.AdaptiveAvgPool2d(1)
            kind = nn.MaxPool2d if opt.pool == caffe_pb2.PoolingParameter.MAX else nn.AvgPool2d
            return kind(opt.kernel_size, opt.stride, opt.pad, ceil_mode=True)
        if layer.type == "LRN":
            opt = layer.lrn_param
            return nn.LocalResponseNorm(opt.local_size, opt.alpha, opt.beta, opt.k)
        simple = {
            "ReLU": lambda: nn.ReLU(inplace=True),
            "Dropout": lambda: nn.Dropout(layer.dropout_param.dropout_ratio),
            "BatchNorm": lambda: nn.BatchNorm2d(inputs),
        }
        return simple[layer.type]() if layer.type in simple else None

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        values, loss = {"data": data, "label": label}, data.new_zeros(())
        for kind, name, bottoms, top, weight in self.steps:
            x = [values[bottom] for bottom in bottoms]
            if kind == "SoftmaxWithLoss":
                loss = loss + weight * F.cross_entropy(x[0], x[1])
            elif kind == "Concat":
                values[top] = torch.cat(x, 1)
            elif kind == "Eltwise":
                values[top] = x[0] + x[1]
            elif kind == "InnerProduct":
                values[top] = getattr(self, name)(x[0].flatten(1))
            else:
                values[top] = getattr(self, name)(x[0])
        return loss
