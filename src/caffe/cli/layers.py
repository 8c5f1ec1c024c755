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
    """List the layer types, or tell about one: what it computes, its options and a block to start from.

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
        print("\n".join(_options(_message(cls))))
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


def _message(cls: Any) -> Any:
    """The descriptor of the message that holds the type's options."""
    from caffe.proto import caffe_pb2

    return caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[cls.options].message_type


def _options(message: Any) -> Iterator[str]:
    width = max(len(field.name) for field in message.fields)
    for field in message.fields:
        yield f"  {field.name:{width}}  {_kind(field)}{_default(field)}"


def _kind(field: Any) -> str:
    many = "list of " if field.is_repeated else ""
    if field.message_type:
        return many + field.message_type.name
    if field.enum_type:
        return many + " | ".join(value.name for value in field.enum_type.values)
    return many + {"float": "number", "double": "number", "bool": "true | false"}.get(_scalar(field), _scalar(field))


def _scalar(field: Any) -> str:
    names = {value: name for name, value in vars(type(field)).items() if name.startswith("TYPE_")}
    return names[field.type].removeprefix("TYPE_").lower()


def _default(field: Any) -> str:
    if not field.has_default_value:
        return ""
    if field.enum_type:
        return f", default {field.enum_type.values_by_number[field.default_value].name}"
    if isinstance(field.default_value, bool):
        return f", default {str(field.default_value).lower()}"
    if isinstance(field.default_value, float):
        return f", default {field.default_value:.7g}"
    return f", default {field.default_value!r}".replace("'", '"')


def _example(cls: Any) -> str:
    """A layer block with as many bottoms and tops as are needed, and the options that usually are."""
    lines = ["layer {", f'  name: "{cls.__name__.lower()}1"', f'  type: "{cls.type}"']
    bottoms, tops = cls.bottoms[0], max(cls.tops[0], min(1, 1 if cls.tops[1] is None else cls.tops[1]))
    lines += [f'  bottom: "in{i if bottoms > 1 else ""}"' for i in range(1, bottoms + 1)]
    lines += [f'  top: "out{i if tops > 1 else ""}"' for i in range(1, tops + 1)]
    if cls.options:
        usual = [
            f"    {field.name}: {_USUAL[field.name]}"
            for field in _message(cls).fields
            if field.name in _USUAL and not field.has_default_value and not field.message_type
        ]
        lines += [f"  {cls.options} {{", *usual, "  }"] if usual else []
    return "\n".join([*lines, "}"])
