"""Hints in errors about a prototxt: the field or value that was probably meant."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import did_you_mean, nearest
from caffe.proto import caffe_pb2, extend
from caffe.proto.forks import foreign_value
from caffe.proto.v1 import V1_TYPES

__all__ = ["unknown_field", "wrong_value"]

_LAYER = caffe_pb2.LayerParameter.DESCRIPTOR
_V1_LAYER = caffe_pb2.V1LayerParameter.DESCRIPTOR
_ROOTS = {
    "NetParameter": (caffe_pb2.SolverParameter.DESCRIPTOR, "a solver"),
    "SolverParameter": (caffe_pb2.NetParameter.DESCRIPTOR, "a net"),
}
_NEW_WORDS = {
    "blobs_lr": "param { lr_mult: ... }",
    "weight_decay": "param { decay_mult: ... }",
    "blob_share_mode": "param { share_mode: ... }",
}


_SAME_VALUE = {"AVG": ["AVE"], "AVERAGE": ["AVE", "MEAN"], "MEAN": ["AVE"], "ADD": ["SUM"], "MUL": ["PROD"]}


def unknown_field(message: Message, name: str) -> str:
    """Return the hint to append to `LayerParameter has no field "nonsense"`."""
    own = message.DESCRIPTOR
    if own is _LAYER and name in _NEW_WORDS:
        return f'; it belongs to the older "layers", in "layer" write {_NEW_WORDS[name]}'
    if own is _V1_LAYER and name in _LAYER.fields_by_name:
        return '; only "layer { ... }" has it, not the older "layers { ... }"'
    if own.name in _ROOTS:
        other, kind = _ROOTS[own.name]
        if name in other.fields_by_name:
            return f"; {other.name} has one: is this the file of {kind}?"
    close = _nearest(name, [*own.fields_by_name, *(extend.names() if own is _LAYER else ())])
    if close:
        return f'; did you mean "{close}"?'
    if own is _LAYER or own is _V1_LAYER:
        return _options_with(name)
    return ""


def wrong_value(field: FieldDescriptor, token: str) -> str:
    """Return the hint to append to `Message.field: expected ..., got "token"`."""
    word = token.strip("\"'")
    if field.type == FieldDescriptor.TYPE_STRING and token[:1].isalpha():
        return f'; write "{V1_TYPES.get(token, token)}"' if field.containing_type is _LAYER else f'; write "{token}"'
    if field.enum_type is None:
        return ""
    if field.containing_type is _V1_LAYER and field.name == "type" and token != word:
        return '; "layers" takes the name without quotes, or write "layer" with the type in quotes'
    if word in field.enum_type.values_by_name:
        return "; write it without quotes"
    known = field.enum_type.values_by_name
    same = [value for value in _SAME_VALUE.get(word.upper(), ()) if value in known]
    return foreign_value(word) or (f'; did you mean "{same[0]}"?' if same else did_you_mean(word, known))


def _options_with(name: str) -> str:
    """Return the option messages of a layer that have a field `name`, if they are few."""
    if name.endswith("_param"):
        return "; no layer type known here has such options; a file with your own is loaded by --import FILE"
    owners = [
        field.name
        for field in _LAYER.fields
        if field.message_type and field.name.endswith("_param") and name in field.message_type.fields_by_name
    ]
    return f"; it belongs in {' or '.join(owners)}" if 0 < len(owners) <= 4 else ""


def _nearest(name: str, known: list[str]) -> str:
    """Return the known name closest to `name`.

    The suffix _param is ignored, because most names have it.
    """
    if name.endswith("_param"):
        stems = {other.removesuffix("_param"): other for other in known if other.endswith("_param")}
        return stems.get(nearest(name.removesuffix("_param"), stems), "")
    return nearest(name, known)
