"""Prints messages as prototxt."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from google.protobuf import text_encoding
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message

from caffe.proto import extend

__all__ = ["dumps", "repeated_fields"]

_STORES = {f"{field}_name" for field in extend.NAMED}


def dumps(message: Message) -> str:
    """Format the message as prototxt, in the style of protobuf's C++ DebugString, which Caffe logs."""
    lines: list[str] = []
    _print(message, "", lines)
    return "".join(lines)


@functools.cache
def repeated_fields(descriptor: Descriptor) -> frozenset[str]:
    """Return the names of a message type's repeated fields. protobuf 4 and 7 have no common attribute for this."""
    source = DescriptorProto()
    descriptor.CopyToProto(source)
    return frozenset(field.name for field in source.field if field.label == field.LABEL_REPEATED)


def _print(message: Message, indent: str, lines: list[str]) -> None:
    repeated = repeated_fields(message.DESCRIPTOR)
    for field, value in message.ListFields():
        name = field.name.removeprefix("more_")  # a string in BVLC that is a list in forks: see forks/detection.proto
        for item in value if field.name in repeated else (value,):
            if field.message_type is not None:
                lines.append(f"{indent}{name} {{\n")
                _print(item, indent + "  ", lines)
                lines.append(f"{indent}}}\n")
            elif field.full_name in _STORES:
                lines.append(f"{indent}{name.removesuffix('_name')}: {item}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(field, item)}\n")


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.type == FieldDescriptor.TYPE_FLOAT:
        short = f"{value:.6g}"
        return short if np.float32(short) == np.float32(value) else f"{value:.9g}"
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        short = f"{value:.15g}"
        return short if float(short) == value else f"{value:.17g}"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return f'"{text_encoding.CEscape(value.encode() if isinstance(value, str) else value, False)}"'
    return str(value)
