"""Small nets: SqueezeNet and MobileNet."""

from __future__ import annotations

from typing import Any

from caffe.errors import NetError
from caffe.models.blocks import begin, conv, conv_bn, conv_relu, end
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["mobilenet_v1", "mobilenet_v2", "squeezenet"]

_SQUEEZENETS: dict[str, tuple[int, int, tuple[int, ...]]] = {"1.0": (96, 7, (1, 4, 8)), "1.1": (64, 3, (1, 3, 5))}


def squeezenet(batch: int = 10, classes: int = 1000, size: int = 227, train: bool = False, version: str = "1.0") -> Any:
    """SqueezeNet 1.0 (1,248,424 parameters) or 1.1 (1,235,496). Source: Iandola et al., arXiv:1602.07360."""
    if version not in _SQUEEZENETS:
        raise NetError(f'SqueezeNet has the versions "1.0" and "1.1", not "{version}"')
    first, kernel, pools = _SQUEEZENETS[version]
    n = begin(batch, 3, size)
    x = conv_relu(n, "conv1", n.data, first, kernel, stride=2)
    for number in range(1, 10):
        if number > 1:
            x = _fire(n, f"fire{number}/", x, 16 * (number // 2))
        if number in pools:
            x = n[f"pool{number}"] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.drop9 = L.Dropout(x, dropout_ratio=0.5, in_place=True)
    x = conv_relu(n, "conv10", n.drop9, classes, 1, weight_filler={"type": "gaussian", "std": 0.01})
    n.pool10 = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    return end(n, f"SqueezeNet_{version}", n.pool10, train)


def _fire(n: NetSpec, at: str, x: Top, squeezed: int) -> Top:
    """Add a fire module: a 1x1 squeeze convolution, then parallel 1x1 and 3x3 expand convolutions."""
    x = conv_relu(n, f"{at}squeeze1x1", x, squeezed, 1, f"{at}relu_squeeze1x1")
    sides = [
        conv_relu(n, f"{at}expand{kernel}", x, 4 * squeezed, int(kernel[0]), f"{at}relu_expand{kernel}", pad=pad)
        for kernel, pad in (("1x1", 0), ("3x3", 1))
    ]
    n[f"{at}concat"] = L.Concat(*sides)
    return n[f"{at}concat"]


def _conv(n: NetSpec, name: str, x: Top, outputs: int, kernel: int, relu: bool = True, **options: Any) -> Top:
    names = (name, f"{name}/bn", f"{name}/scale", f"relu_{name}")
    return conv_bn(n, names if relu else names[:3], x, outputs, kernel, pad=kernel // 2, **options)


def mobilenet_v1(batch: int = 1, classes: int = 1000, size: int = 224, train: bool = False) -> Any:
    """MobileNet; 4,231,976 parameters. Source: Howard et al., arXiv:1704.04861."""
    n = begin(batch, 3, size)
    x, wide = _conv(n, "conv1", n.data, 32, 3, stride=2), 32
    stages = {2: (64, 128), 3: (128, 256), 4: (256, 512), 5: (512,) * 5 + (1024,), 6: (1024,)}
    for stage, widths in stages.items():
        for index, outputs in enumerate(widths, 1):
            name = f"conv{stage}_{index}" if len(widths) > 1 else f"conv{stage}"
            stride = 2 if outputs > wide > 32 else 1
            x = _conv(n, f"{name}/dw", x, wide, 3, group=wide, stride=stride)
            x = _conv(n, f"{name}/sep", x, outputs, 1)
            wide = outputs
    return _end(n, "MobileNet", x, classes, train)


def mobilenet_v2(batch: int = 1, classes: int = 1000, size: int = 224, train: bool = False) -> Any:
    """MobileNet v2; 3,504,872 parameters. Source: Sandler et al., arXiv:1801.04381, whose ReLU6 is ReLU and Clip."""
    n = begin(batch, 3, size)
    x, wide = _conv6(n, "conv1", n.data, 32, 3, stride=2), 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (factor, outputs, depth, stride) in enumerate(stages, 2):
        for index in range(1, depth + 1):
            x = _inverted(n, f"conv{stage}_{index}", x, wide, outputs, factor, stride if index == 1 else 1)
            wide = outputs
    return _end(n, "MobileNet-V2", _conv6(n, "conv9", x, 1280, 1), classes, train)


def _inverted(n: NetSpec, at: str, x: Top, wide: int, outputs: int, factor: int, stride: int) -> Top:
    """Add an inverted residual: expand, depthwise convolution, project; plus x if the shape is the same."""
    y = x if factor == 1 else _conv6(n, f"{at}/expand", x, factor * wide, 1)
    y = _conv6(n, f"{at}/dwise", y, factor * wide, 3, group=factor * wide, stride=stride)
    y = _conv(n, f"{at}/linear", y, outputs, 1, relu=False)
    if stride > 1 or wide != outputs:
        return y
    n[f"{at}/sum"] = L.Eltwise(x, y)
    return n[f"{at}/sum"]


def _conv6(n: NetSpec, name: str, x: Top, outputs: int, kernel: int, **options: Any) -> Top:
    y = _conv(n, name, x, outputs, kernel, relu=False, **options)
    n[f"relu6_{name}"] = L.Clip(y, min=0, max=6, in_place=True)
    return n[f"relu6_{name}"]


def _end(n: NetSpec, name: str, x: Top, classes: int, train: bool) -> Any:
    n.pool6 = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    n.flat = L.Flatten(conv(n, "fc7", n.pool6, classes, 1))
    return end(n, name, n.flat, train)
