"""Groups of layers that the nets of model_libs consist of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffe.proto import caffe_pb2

__all__ = [
    "PLAIN",
    "ConvBNLayer",
    "CreateAnnotatedDataLayer",
    "InceptionTower",
    "ResBody",
    "UnpackVariable",
    "check_if_exist",
    "frozen",
    "make_if_not_exist",
]

_FIXED = {"lr_mult": 0, "decay_mult": 0}
PLAIN = {
    "param": [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}],
    "weight_filler": {"type": "xavier"},
    "bias_filler": {"type": "constant", "value": 0},
}


def check_if_exist(path: str) -> bool:
    """Whether a file or folder exists."""
    return os.path.exists(path)


def make_if_not_exist(path: str) -> None:
    """Create a folder, with its parents, unless it exists."""
    os.makedirs(path, exist_ok=True)


def UnpackVariable(var: Any, num: int) -> list[Any]:
    """A list of `num` values: `var` itself, or the value in it or of it, repeated."""
    if isinstance(var, list):
        if len(var) == num:
            return var
        if len(var) != 1:
            raise ValueError(f"{len(var)} values are given, expected 1 or {num}")
        var = var[0]
    return [var] * num


def ConvBNLayer(
    net: NetSpec,
    from_layer: str,
    out_layer: str,
    use_bn: bool,
    use_relu: bool,
    num_output: int,
    kernel_size: Any,
    pad: Any,
    stride: Any,
    dilation: int = 1,
    use_scale: bool = True,
    lr_mult: float = 1,
    conv_prefix: str = "",
    conv_postfix: str = "",
    bn_prefix: str = "",
    bn_postfix: str = "_bn",
    scale_prefix: str = "",
    scale_postfix: str = "_scale",
    bias_prefix: str = "",
    bias_postfix: str = "_bias",
    **bn_params: Any,
) -> None:
    """Add a convolution, and in place BatchNorm with Scale or Bias, and ReLU.

    `bn_params` may have eps, moving_average_fraction and use_global_stats, which also fixes the Scale or Bias.
    """
    name = f"{conv_prefix}{out_layer}{conv_postfix}"
    options = {**_window(kernel_size, pad, stride), **_conv_options(use_bn, lr_mult)}
    net[name] = L.Convolution(net[from_layer], num_output=num_output, **options)
    if dilation > 1:
        net.update(name, {"dilation": dilation})
    if use_bn:
        norm = f"{bn_prefix}{out_layer}{bn_postfix}"
        net[norm] = L.BatchNorm(net[name], in_place=True, **_norm_options(bn_params))
        rate = {"lr_mult": 0 if bn_params.get("use_global_stats") else lr_mult, "decay_mult": 0}
        one, zero = ({"type": "constant", "value": value} for value in (1.0, 0.0))
        if use_scale:
            both = {"bias_term": True, "param": [rate, rate], "filler": one, "bias_filler": zero}
            net[f"{scale_prefix}{out_layer}{scale_postfix}"] = L.Scale(net[norm], in_place=True, **both)
        else:
            net[f"{bias_prefix}{out_layer}{bias_postfix}"] = L.Bias(net[norm], in_place=True, param=[rate], filler=zero)
    if use_relu:
        net[f"{name}_relu"] = L.ReLU(net[name], in_place=True)


def _window(kernel_size: Any, pad: Any, stride: Any) -> dict[str, int]:
    """The fields of a window, given by one number or by those for height and width."""
    sides = {
        "kernel": UnpackVariable(kernel_size, 2),
        "pad": UnpackVariable(pad, 2),
        "stride": UnpackVariable(stride, 2),
    }
    if sides["kernel"][0] != sides["kernel"][1]:
        return {f"{name}_{axis}": side for name, both in sides.items() for axis, side in zip("hw", both, strict=True)}
    return {"kernel_size": sides["kernel"][0], "pad": sides["pad"][0], "stride": sides["stride"][0]}


def _conv_options(use_bn: bool, lr_mult: float) -> dict[str, Any]:
    weights = {"lr_mult": lr_mult, "decay_mult": 1}
    if use_bn:
        return {"param": [weights], "weight_filler": {"type": "gaussian", "std": 0.01}, "bias_term": False}
    return {**PLAIN, "param": [weights, {"lr_mult": 2 * lr_mult, "decay_mult": 0}]}


def _norm_options(given: Mapping[str, Any]) -> dict[str, Any]:
    options = {"param": [_FIXED] * 3, "eps": given.get("eps", 0.001)}
    if given.get("use_global_stats"):
        return {**options, "use_global_stats": given["use_global_stats"]}
    return {**options, "moving_average_fraction": given.get("moving_average_fraction", 0.999)}


def ResBody(
    net: NetSpec,
    from_layer: str,
    block_name: str,
    out2a: int,
    out2b: int,
    out2c: int,
    stride: int,
    use_branch1: bool,
    dilation: int = 1,
    **bn_param: Any,
) -> None:
    """Add a block of ResNet: convolutions of 1, 3 and 1 beside the identity, or beside a convolution (branch1)."""
    names: dict[str, Any] = {
        "conv_prefix": f"res{block_name}_",
        "bn_prefix": f"bn{block_name}_",
        "scale_prefix": f"scale{block_name}_",
    }
    names |= {"conv_postfix": "", "bn_postfix": "", "scale_postfix": ""}

    def conv(source: str, name: str, relu: bool, outputs: int, kernel: int, step: int, wide: int = 1) -> str:
        ConvBNLayer(
            net, source, name, True, relu, outputs, kernel, wide * (kernel // 2), step, wide, **names, **bn_param
        )
        return f"res{block_name}_{name}"

    beside = conv(from_layer, "branch1", False, out2c, 1, stride) if use_branch1 else from_layer
    first = conv(from_layer, "branch2a", True, out2a, 1, stride)
    second = conv(first, "branch2b", True, out2b, 3, 1, dilation)
    third = conv(second, "branch2c", False, out2c, 1, 1)
    net[f"res{block_name}"] = L.Eltwise(net[beside], net[third])
    net[f"res{block_name}_relu"] = L.ReLU(net[f"res{block_name}"], in_place=True)


def InceptionTower(
    net: NetSpec, from_layer: str, tower_name: str, layer_params: Iterable[Mapping[str, Any]], **bn_param: Any
) -> Top:
    """Add layers one behind the other, and return the last: Pooling if the name has "pool" in it, else ConvBNLayer."""
    for given in layer_params:
        name, options = f"{tower_name}/{given['name']}", {key: each for key, each in given.items() if key != "name"}
        if "pool" in name:
            net[name] = L.Pooling(net[from_layer], **options)
        else:
            options |= bn_param
            ConvBNLayer(net, from_layer, name, use_bn=True, use_relu=True, use_scale=False, **options)
        from_layer = name
    top: Top = net[from_layer]
    return top


def CreateAnnotatedDataLayer(
    source: str,
    batch_size: int = 32,
    backend: int = P.Data.LMDB,
    output_label: bool = True,
    train: bool = True,
    label_map_file: str = "",
    anno_type: int | None = None,
    transform_param: Mapping[str, Any] = {},
    batch_sampler: Sequence[Mapping[str, Any]] = [{}],
) -> Any:
    """The tops of an AnnotatedData layer called "data": images, and boxes unless `output_label` is false."""
    annotated = {"label_map_file": label_map_file, "batch_sampler": batch_sampler}
    return L.AnnotatedData(
        name="data",
        annotated_data_param=annotated if anno_type is None else {**annotated, "anno_type": anno_type},
        data_param={"batch_size": batch_size, "backend": backend, "source": source},
        ntop=2 if output_label else 1,
        include={"phase": caffe_pb2.TRAIN if train else caffe_pb2.TEST},
        transform_param=transform_param,
    )


def frozen(net: NetSpec, names: Iterable[str]) -> NetSpec:
    """Set the rates of these layers to 0."""
    for name in set(names) & set(net.tops):
        net.update(name, {**PLAIN, "param": [_FIXED, _FIXED]})
    return net
