"""The nets below SSD's head: ZF, VGG-16, ResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caffe.model_libs.blocks import PLAIN, ConvBNLayer, ResBody, frozen
from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["ResNet101Body", "ResNet152Body", "VGGNetBody", "ZFNetBody"]


def ZFNetBody(
    net: NetSpec,
    from_layer: str,
    need_fc: bool = True,
    fully_conv: bool = False,
    reduced: bool = False,
    dilated: bool = False,
    dropout: bool = True,
    need_fc8: bool = False,
    freeze_layers: Sequence[str] = [],
) -> NetSpec:
    """Add the net of Zeiler and Fergus: conv1 to conv5, and fc6 and fc7 if needed."""
    source = from_layer
    for index, (outputs, kernel, pad, stride) in enumerate(
        [(96, 7, 3, 2), (256, 5, 2, 2), *[(384, 3, 1, 1)] * 2, (256, 3, 1, 1)], 1
    ):
        _conv_relu(
            net, source, str(index), outputs, kernel_size=kernel, pad=pad, **({"stride": 2} if stride > 1 else {})
        )
        source = f"relu{index}"
        if index < 3:
            local = {"local_size": 3, "alpha": 0.00005, "beta": 0.75}
            net[f"norm{index}"] = L.LRN(net[source], norm_region=P.LRN.WITHIN_CHANNEL, engine=P.LRN.CAFFE, **local)
            source = _pool(net, f"norm{index}", f"pool{index}", 3, 2, 1)
    if need_fc:
        _pool(net, source, "pool5", 3, 1 if dilated else 2, 1)
        wide = (
            {"pad": 5, "dilation": 5 if reduced else 2}
            if dilated
            else {"pad": 2, **({"dilation": 2} if reduced else {})}
        )
        _fully_connected(net, "pool5", fully_conv, reduced, dropout, {"kernel_size": 3 if reduced else 6, **wide})
    if need_fc8:
        last = net[net.keys()[-1]]
        net.fc8 = (
            L.Convolution(last, num_output=1000, kernel_size=1, **PLAIN)
            if fully_conv
            else L.InnerProduct(last, num_output=1000)
        )
        net.prob = L.Softmax(net.fc8)
    return frozen(net, freeze_layers)


def VGGNetBody(
    net: NetSpec,
    from_layer: str,
    need_fc: bool = True,
    fully_conv: bool = False,
    reduced: bool = False,
    dilated: bool = False,
    nopool: bool = False,
    dropout: bool = True,
    freeze_layers: Sequence[str] = [],
    dilate_pool4: bool = False,
) -> NetSpec:
    """Add VGG-16: conv1_1 to conv5_3, and fc6 and fc7 if needed. With `nopool`, convolutions replace the pooling."""
    source, dilation = from_layer, 2 if dilate_pool4 and not nopool else 1
    for block, (outputs, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        wide = {"pad": dilation, "kernel_size": 3, "dilation": dilation} if block == 5 else {"pad": 1, "kernel_size": 3}
        for index in range(1, count + 1):
            _conv_relu(net, source, f"{block}_{index}", outputs, **wide)
            source = f"relu{block}_{index}"
        if block == 5 and not need_fc:
            break
        stride = 1 if block == 5 and dilated else 2
        if nopool:
            name = f"conv{block}_{count + 1}"
            net[name] = L.Convolution(net[source], num_output=outputs, pad=1, kernel_size=3, stride=stride, **PLAIN)
            source = name
        elif stride == 1 or (block == 4 and dilate_pool4):
            source = _pool(net, source, f"pool{block}", 3, 1, 1)
        else:
            source = _pool(net, source, f"pool{block}", 2, 2)
    if need_fc:
        kernel = 3 if reduced else 7
        dilation *= (6 if reduced else 2) if dilated else (3 if reduced else 1)
        window = {"pad": dilation * (kernel // 2), "kernel_size": kernel, "dilation": dilation}
        _fully_connected(net, source, fully_conv, reduced, dropout, window)
    return frozen(net, freeze_layers)


def _conv_relu(net: NetSpec, source: str, number: str, outputs: int, **window: int) -> None:
    net[f"conv{number}"] = L.Convolution(net[source], num_output=outputs, **window, **PLAIN)
    net[f"relu{number}"] = L.ReLU(net[f"conv{number}"], in_place=True)


def _pool(net: NetSpec, source: str, name: str, kernel: int, stride: int, pad: int = 0) -> str:
    padding = {"pad": pad} if pad else {}
    net[name] = L.Pooling(net[source], pool=P.Pooling.MAX, kernel_size=kernel, stride=stride, **padding)
    return name


def _fully_connected(
    net: NetSpec, source: str, conv: bool, reduced: bool, dropout: bool, window: Mapping[str, int]
) -> None:
    """Add fc6 and fc7, as convolutions with 1024 (`reduced`) or 4096 outputs, or as inner products."""
    for number, sides in ((6, window), (7, {"kernel_size": 1})):
        name, relu = f"fc{number}", f"relu{number}"
        if conv:
            net[name] = L.Convolution(net[source], num_output=1024 if reduced else 4096, **sides, **PLAIN)
        else:
            net[name] = L.InnerProduct(net[source], num_output=4096)
        net[relu] = L.ReLU(net[name], in_place=True)
        if dropout:
            net[f"drop{number}"] = L.Dropout(net[relu], dropout_ratio=0.5, in_place=True)
        source = relu


def ResNet101Body(
    net: NetSpec, from_layer: str, use_pool5: bool = True, use_dilation_conv5: bool = False, **bn_param: Any
) -> NetSpec:
    """Add ResNet-101 without its classifier."""
    return _resnet(net, from_layer, (3, 22), use_pool5, use_dilation_conv5, bn_param)


def ResNet152Body(
    net: NetSpec, from_layer: str, use_pool5: bool = True, use_dilation_conv5: bool = False, **bn_param: Any
) -> NetSpec:
    """Add ResNet-152 without its classifier."""
    return _resnet(net, from_layer, (7, 35), use_pool5, use_dilation_conv5, bn_param)


def _resnet(
    net: NetSpec, source: str, more: tuple[int, int], pool: bool, dilated: bool, norm: Mapping[str, Any]
) -> NetSpec:
    """Add a ResNet. `more` counts the further blocks of the third and the fourth stage."""
    names: dict[str, Any] = {"bn_prefix": "bn_", "bn_postfix": "", "scale_prefix": "scale_", "scale_postfix": ""}
    ConvBNLayer(net, source, "conv1", True, True, 64, 7, 3, 2, **names, **norm)
    net.pool1 = L.Pooling(net.conv1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    source = "pool1"
    blocks = [
        ["2a", "2b", "2c"],
        *([f"{s}a", *(f"{s}b{i}" for i in range(1, n + 1))] for s, n in zip((3, 4), more, strict=True)),
    ]
    for stage, names_of in enumerate([*blocks, ["5a", "5b", "5c"]], 2):
        width = 64 << (stage - 2)
        wide = dilated and stage == 5
        for index, name in enumerate(names_of):
            stride = 2 if stage > 2 and not index and not wide else 1
            ResBody(net, source, name, width, width, 4 * width, stride, not index, 2 if wide else 1, **norm)
            source = f"res{name}"
    if pool:
        net.pool5 = L.Pooling(net.res5c, pool=P.Pooling.AVE, global_pooling=True)
    return net
