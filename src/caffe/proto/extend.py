"""Options of layer types that users add: fields of LayerParameter that are not in caffe.proto.

Each is a protobuf extension, so it is read, printed, copied and stored like any other field. In prototxt it has the
same form: `smooth_param { scale: 3 }`.
"""

from __future__ import annotations

import zlib
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from caffe.errors import ProtoError, nearest
from caffe.proto import caffe_pb2

__all__ = ["NAMED", "add_name", "add_options", "find", "get", "has", "message_of", "names", "options", "takes"]

NAMED = frozenset({"caffe.DataParameter.backend"})
"""Enum fields that also take names which code adds. A field FIELD_name of the same message stores such a name."""
_NAMES: set[str] = set()

_LAYER = caffe_pb2.LayerParameter.DESCRIPTOR
_FORKS = range(30000, 40000)  # field numbers used by forks: a user's options of the same name replace the fork's
_FIRST, _COUNT = 1_000_000, 500_000_000  # field numbers of LayerParameter that are reserved for extensions
_ADDED: dict[str, FieldDescriptor] = {}


def add_options(name: str, message: Descriptor) -> None:
    """Add to LayerParameter the field `name` of the message type `message`. Adding the same field again has no effect.

    The field number is derived from the name, so that binary files stay readable. Raises `ProtoError` if the name is in
    use.
    """
    other = _ADDED[name].message_type if name in _ADDED else None
    if other is message:
        return
    known = _LAYER.fields_by_name.get(name)
    if known is not None and known.message_type is message:
        return
    if other is not None or (known is not None and known.number not in _FORKS):
        raise ProtoError(f"options {name}: LayerParameter already has a field of this name; rename the layer type")
    file = descriptor_pb2.FileDescriptorProto(name=f"caffe/options/{name}.proto", package="caffe.options")
    file.dependency.extend([_LAYER.file.name, message.file.name])
    file.extension.add(
        name=name,
        number=_FIRST + zlib.crc32(name.encode()) % _COUNT,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{message.full_name}",
        extendee=f".{_LAYER.full_name}",
    )
    pool = descriptor_pool.Default()
    try:
        pool.AddSerializedFile(file.SerializeToString())
        message_factory.GetMessageClassesForFiles([file.name], pool)
        _ADDED[name] = pool.FindExtensionByName(f"caffe.options.{name}")
    except (TypeError, KeyError) as error:
        fact = f"options {name}: protobuf cannot add {message.full_name} to LayerParameter"
        raise ProtoError(f"{fact}: {error}") from error


def find(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """Return the field `name` that was added to a message type, or None."""
    return _ADDED.get(name) if descriptor is _LAYER else None


def names() -> list[str]:
    """Return the names of the fields added to LayerParameter."""
    return list(_ADDED)


def has(message: Any, field: FieldDescriptor) -> bool:
    """Whether a non-repeated field is set, be it added or of caffe.proto."""
    if field.is_extension:
        return message.HasExtension(field)
    return message.HasField(field.name) or (field.full_name in NAMED and message.HasField(f"{field.name}_name"))


def add_name(name: str) -> None:
    """Make the parser accept `name` as the value of the fields in `NAMED`."""
    _NAMES.add(name)


def takes(field: FieldDescriptor, token: str) -> bool:
    """Whether a token is no value of an enum field, but a name that code adds, or may add before the net is built.

    A name that resembles a value is a typing error, unless code has added it.
    """
    if field.full_name not in NAMED or token in field.enum_type.values_by_name or not token.isidentifier():
        return False
    return token in _NAMES or not nearest(token, field.enum_type.values_by_name)


def get(message: Any, field: FieldDescriptor) -> Any:
    """Return the value of a field, be it added or of caffe.proto."""
    return message.Extensions[field] if field.is_extension else getattr(message, field.name)


def options(layer: Any, name: str) -> Any:
    """Return the options `name` of a LayerParameter, such as `pooling_param`, be they added or of caffe.proto."""
    return get(layer, _ADDED.get(name) or _LAYER.fields_by_name[name])


def message_of(name: str) -> Descriptor:
    """Return the message type of a LayerParameter's options `name`, be they added or of caffe.proto."""
    return (_ADDED.get(name) or _LAYER.fields_by_name[name]).message_type
