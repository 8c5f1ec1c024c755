"""`caffe layers`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display

_USUAL = {
    "num_output": "10",
    "kernel_size": "3",
    "batch_size": "64",
    "source": '"path/to/data"',
    "mean_file": '"mean.binaryproto"',
    "file_name": '"out.h5"',
    "channels": "3",
    "height": "28",
    "width": "28",
    "input_dim": "1000",
    "module": '"my_module"',
    "layer": '"MyLayer"',
    "slice_point": "1",
}
"""Options without a default that usually have to be given, with a value to start from."""


@command(arguments="[TYPE]")
def layers(flags: SimpleNamespace, display: Display) -> None:
    """List the layer types, or tell about one.

    Of one it tells what it computes, its options with their defaults, and a block to start from.

        caffe layers
        caffe layers Pooling
    """
    from caffe.layers import layer_class, layer_types
    from caffe.proto.upgrade import V1_TYPES

    if not flags.arguments:
        print("\n".join(_table([layer_class(name) for name in layer_types()])))
        return
    cls = layer_class(flags.arguments[0])
    old = [name for name, modern in V1_TYPES.items() if modern == cls.type]
    print(f"{cls.type}  ({_file(cls)})\n")
    print(inspect.getdoc(cls) or "")
    print(f"\nbottoms: {_count(cls.bottoms)}   tops: {_count(cls.tops)}")
    if old:
        print(f"V1 name: {', '.join(old)}")
    if cls.options:
        print(f"\n{cls.options}:")
        print("\n".join(_options(cls)))
    print(f"\n{_example(cls)}")


def _table(classes: list[Any]) -> Iterator[str]:
    name_width = max(len(cls.type) for cls in classes)
    family_width = max(len(_family(cls)) for cls in classes)
    for cls in classes:
        first = (inspect.getdoc(cls) or "").partition("\n")[0]
        yield f"{cls.type:{name_width}}  {_family(cls):{family_width}}  {first}".rstrip()
    yield f"\n{len(classes)} layer types; the second column is the file in caffe/layers. More: caffe layers TYPE"


def _family(cls: Any) -> str:
    return cls.__module__.rpartition(".")[2]


def _file(cls: Any) -> str:
    path = Path(inspect.getsourcefile(cls) or cls.__module__)
    return "/".join(path.parts[-3:])


def _count(limits: tuple[int, int | None]) -> str:
    least, most = limits
    if least == most:
        return str(least)
    return f"{least} or more" if most is None else f"{least} to {most}"


def _fields(cls: Any) -> list[tuple[Any, Any]]:
    """The options of a type: for each its FieldDescriptorProto and the descriptor of its message or enum, if any."""
    from google.protobuf import descriptor_pb2

    from caffe.proto import caffe_pb2

    message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[cls.options].message_type
    protos = descriptor_pb2.DescriptorProto()
    message.CopyToProto(protos)
    return [(proto, _inner(message.fields_by_name[proto.name])) for proto in protos.field]


def _inner(field: Any) -> Any:
    return field.message_type or field.enum_type


def _options(cls: Any) -> Iterator[str]:
    fields = _fields(cls)
    width = max((len(proto.name) for proto, _ in fields), default=0)
    for proto, inner in fields:
        many = "list of " if proto.label == proto.LABEL_REPEATED else ""
        quote = '"' if proto.type == proto.TYPE_STRING else ""
        default = f", default {quote}{proto.default_value}{quote}" if proto.HasField("default_value") else ""
        yield f"  {proto.name:{width}}  {many}{_kind(proto, inner)}{default}"


def _kind(proto: Any, inner: Any) -> str:
    if proto.type == proto.TYPE_MESSAGE:
        return inner.name
    if proto.type == proto.TYPE_ENUM:
        return " | ".join(value.name for value in inner.values)
    kind = proto.Type.Name(proto.type).removeprefix("TYPE_").lower()
    return {"float": "number", "double": "number", "bool": "true | false"}.get(kind, kind)


def _example(cls: Any) -> str:
    """A layer block with as many bottoms and tops as are needed, and the options that usually are."""
    lines = ["layer {", f'  name: "{cls.__name__.lower()}1"', f'  type: "{cls.type}"']
    bottoms, tops = cls.bottoms[0], cls.tops[0] or int(cls.tops[1] != 0)
    lines += [f'  bottom: "in{i if bottoms > 1 else ""}"' for i in range(1, bottoms + 1)]
    lines += [f'  top: "out{i if tops > 1 else ""}"' for i in range(1, tops + 1)]
    if cls.options:
        usual = [
            f"    {proto.name}: {_USUAL[proto.name]}"
            for proto, inner in _fields(cls)
            if proto.name in _USUAL and inner is None and not proto.HasField("default_value")
        ]
        lines += [f"  {cls.options} {{", *usual, "  }"] if usual else []
    return "\n".join([*lines, "}"])
