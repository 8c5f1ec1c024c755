"""Handles the fields of forks in a net or solver: applies them, warns that they have no effect, or rejects them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from caffe import log
from caffe.errors import NetError, ProtoError, SolverError
from caffe.proto import caffe_pb2
from caffe.proto.forks.alignment import align
from caffe.proto.forks.fields import ENGINES, REFUSED, WITHOUT_EFFECT
from caffe.proto.printing import repeated_fields

__all__ = ["FIRST", "apply", "has_effects", "refuse_layer", "refuse_solver", "tell", "without_effect"]

FIRST = 30000
"""The lowest field number that a fork uses in a message of BVLC Caffe."""

_SIDES = ("kernel_size", "stride", "pad")
_PoolingParameter = caffe_pb2.PoolingParameter
_TOLD: set[tuple[str, str]] = set()


def has_effects(net: Any) -> bool:
    """Whether `apply` would change the net."""
    return any(
        layer.type == "AutoCrop" or _translated(layer) or _is_undecided(layer) or _is_fused(layer)
        for layer in net.layer
    )


def apply(net: Any, name: str) -> None:
    """Translate a fork's fields in an upgraded net to BVLC's fields, in place. Raises `ProtoError` for contradictions.

    pooling_param: ceil_mode becomes round_mode; sizes given twice become _h and _w. convolution_param: hole becomes
    dilation. batch_norm_param: a filler of Intel's Caffe adds a scale to the BatchNorm, unless a Scale layer follows.
    AutoCrop of RCF becomes Crop. torch_pooling of NVCaffe becomes round_mode: FLOOR. relu of Intel's Caffe in
    convolution_param and batch_norm_param becomes a ReLU layer.
    """
    for index, layer in enumerate(net.layer):
        try:
            if layer.HasField("pooling_param"):
                _pool(layer.pooling_param)
            if layer.HasField("convolution_param"):
                _dilate(layer.convolution_param)
            if layer.type == "AutoCrop":
                align(layer, list(net.layer[:index]))
        except ProtoError as error:
            raise ProtoError(f'{name}: layer "{layer.name}" ({layer.type}): {error}') from None
        if _is_undecided(layer):
            layer.batch_norm_param.use_weight_bias = not _is_scaled(layer, net.layer[index + 1 :])
    if any(map(_is_fused, net.layer)):
        _split_relu(net)


def tell(message: Any, name: str) -> None:
    """Log one warning that lists, by fork, the fields of a net or solver that have no effect here."""
    found: dict[str, dict[str, None]] = {}
    for origin, field in without_effect(message):
        found.setdefault(origin, {})[field] = None
    if not found:
        return
    listed = "; ".join(f"{', '.join(fields)} ({origin})" for origin, fields in found.items())
    if (name, listed) not in _TOLD and ("", listed) not in _TOLD:
        _TOLD.update({(name, listed)} if name not in ("NetParameter", "SolverParameter") else {("", listed)})
        log.warning("forks.py", f"{name}: no effect on the result, ignored: {listed}")


def refuse_layer(layer: Any, honoured: Collection[str]) -> None:
    """Raise a `NetError` for a fork's field of a LayerParameter that its layer does not support.

    `honoured` are the supported fields, with names such as "TransformationParameter.resize_param".
    """
    for field, value in layer.ListFields():
        if not field.name.endswith("_param") or field.message_type is None or field.is_extension:
            continue
        for path, origin, way_out in _refused(value, field.name, honoured):
            fact = f"{path} comes from a fork of Caffe ({origin})"
            raise NetError(
                f'layer "{layer.name}" ({layer.type}): {fact}; {way_out or "this package does not support it"}'
            )


def refuse_solver(param: Any) -> None:
    """Raise a `SolverError` for a fork's field of a SolverParameter that this package does not support."""
    for path, origin, way_out in _refused(param, "", ()):
        fact = f"{path} is set, which comes from a fork of Caffe ({origin})"
        raise SolverError(f"{fact}; {way_out or 'this package does not support it'}")


def _translated(layer: Any) -> bool:
    pool, conv = layer.pooling_param, layer.convolution_param
    sides = any(getattr(pool, f"more_{side}") for side in _SIDES)
    rounded = pool.HasField("ceil_mode") or pool.HasField("torch_pooling")
    return rounded or sides or bool(conv.hole) or conv.HasField("hole_h") or conv.HasField("hole_w")


def _is_fused(layer: Any) -> bool:
    """Whether a convolution or BatchNorm has fields of Intel's Caffe for a ReLU behind it."""
    conv, norm = layer.convolution_param, layer.batch_norm_param
    return conv.HasField("relu") or conv.HasField("negative_slope") or norm.HasField("relu")


def _split_relu(net: Any) -> None:
    """Replace the field relu by a ReLU layer in place of the top. A negative_slope without relu has no effect."""
    layers = []
    for layer in net.layer:
        layers.append(layer)
        for param in (layer.convolution_param, layer.batch_norm_param):
            if param.relu and layer.top:
                relu = caffe_pb2.LayerParameter(name=f"{layer.name}/relu", type="ReLU", bottom=layer.top, top=layer.top)
                relu.relu_param.negative_slope = getattr(param, "negative_slope", 0)
                for rule in ("include", "exclude"):
                    getattr(relu, rule).extend(getattr(layer, rule))
                layers.append(relu)
        for option in ("convolution_param", "batch_norm_param"):
            if layer.HasField(option):
                getattr(layer, option).ClearField("relu")
        if layer.HasField("convolution_param"):
            layer.convolution_param.ClearField("negative_slope")
    made = [type(layer).FromString(layer.SerializeToString()) for layer in layers]
    del net.layer[:]
    net.layer.extend(made)


def _pool(param: Any) -> None:
    if param.HasField("torch_pooling"):
        if param.torch_pooling:
            param.round_mode = _PoolingParameter.FLOOR
        param.ClearField("torch_pooling")
    if param.HasField("ceil_mode"):
        mode = _PoolingParameter.CEIL if param.ceil_mode else _PoolingParameter.FLOOR
        if param.HasField("round_mode") and param.round_mode != mode:
            raise ProtoError("ceil_mode and round_mode contradict each other; keep round_mode")
        param.round_mode = mode
        param.ClearField("ceil_mode")
    for side in _SIDES:
        more = getattr(param, f"more_{side}")
        if len(more) > 1:
            raise ProtoError(
                f"{side} is given {len(more) + 1} times, expected once, or for height and width: "
                "pooling over more axes comes from a fork of Caffe (the opencl branch of BVLC Caffe)"
            )
        if more:
            stem = side.removesuffix("_size")
            setattr(param, f"{stem}_h", getattr(param, side))
            setattr(param, f"{stem}_w", more[0])
            param.ClearField(side)
            param.ClearField(f"more_{side}")


def _dilate(param: Any) -> None:
    holes = list(param.hole)
    if param.HasField("hole_h") or param.HasField("hole_w"):
        if holes or not (param.HasField("hole_h") and param.HasField("hole_w")):
            raise ProtoError("hole is to be given as hole, or as hole_h and hole_w; write dilation, once an axis")
        holes = [param.hole_h, param.hole_w]
    if not holes:
        return
    if param.dilation and list(param.dilation) != holes:
        raise ProtoError("hole and dilation contradict each other; keep dilation")
    param.dilation[:] = holes
    for name in ("hole", "hole_h", "hole_w"):
        param.ClearField(name)


def _is_undecided(layer: Any) -> bool:
    """Whether a BatchNorm has one of Intel's fillers, which counts only if no Scale follows."""
    param = layer.batch_norm_param
    intel = param.HasField("filler") or param.HasField("bias_filler")
    decided = param.HasField("use_weight_bias") or param.HasField("scale_filler") or param.HasField("scale_bias")
    return layer.type == "BatchNorm" and intel and not decided


def _is_scaled(norm: Any, following: Collection[Any]) -> bool:
    """Whether the first layer that reads a BatchNorm's top is a Scale."""
    readers = (layer for layer in following if set(layer.bottom) & set(norm.top))
    reader = next(readers, None)
    return reader is not None and reader.type == "Scale"


def without_effect(message: Any) -> Iterator[tuple[str, str]]:
    """Yield origin and name of each field and engine in a message, including nested messages, that has no effect."""
    table, repeated = WITHOUT_EFFECT.get(message.DESCRIPTOR.name, {}), repeated_fields(message.DESCRIPTOR)
    for field, value in message.ListFields():
        if field.is_extension or field.name in ("blobs", "layers"):
            continue
        if field.name in table:
            yield table[field.name], "device_id after the first" if field.name == "more_device_id" else field.name
        elif field.name == "engine" and (engine := field.enum_type.values_by_number[value].name) in ENGINES:
            yield ENGINES[engine], f"engine: {engine}"
        elif field.message_type is not None and field.number < FIRST:
            for part in value if field.name in repeated else (value,):
                yield from without_effect(part)


def _refused(message: Any, path: str, honoured: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield path, origin and alternative of each field that asks for something that this package does not support."""
    owner = message.DESCRIPTOR.name
    table = REFUSED.get(owner, {})
    for field, value in message.ListFields():
        inner = f"{path}.{field.name}".lstrip(".")
        if field.name in table and f"{owner}.{field.name}" not in honoured and _asks(field, value):
            yield inner, *table[field.name]
        elif isinstance(value, caffe_pb2.FillerParameter):
            yield from _refused(value, inner, honoured)


def _asks(field: Any, value: Any) -> bool:
    """Whether a field's value differs from Caffe's behaviour without the field."""
    if field.message_type is not None:
        return True
    if field.name in repeated_fields(field.containing_type):
        return field.name != "dilation" or any(item != 1 for item in value)
    return bool(value != field.default_value)
