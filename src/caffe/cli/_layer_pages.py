"""The output of `caffe layers`: the list of types, the page of a type, and all types as a Markdown document."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import descriptor_pb2

from caffe.layers import layer_class, layer_types
from caffe.proto import extend
from caffe.proto.upgrade import V1_TYPES

__all__ = ["listing", "markdown", "page"]

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
"""Options without a default that are usually required, with an example value."""

_HEAD = """# Layers

The {count} layer types, with their docstrings, options and defaults. This page is generated from the classes by
`caffe layers --markdown > docs/layers.md`. `caffe layers TYPE` shows the same in a terminal, with an example block.
To add a layer type, see [Layers of your own](layers_own.md).
"""


def listing() -> Iterator[str]:
    """Yield a line for each type: name, family and purpose."""
    classes = [layer_class(name) for name in layer_types()]
    name_width = max(len(cls.type) for cls in classes)
    family_width = max(len(_family(cls)) for cls in classes)
    for cls in classes:
        yield f"{cls.type:{name_width}}  {_family(cls):{family_width}}  {_sentence(cls)}".rstrip()
    yield f"\n{len(classes)} layer types; the second column is the family in caffe/layers. More: caffe layers TYPE"


def page(cls: Any) -> Iterator[str]:
    """Return the description of a type for a terminal."""
    yield f"{cls.type}  ({_file(cls)})\n"
    yield inspect.getdoc(cls) or ""
    yield f"\nbottoms: {_count(cls.bottoms)}   tops: {_count(cls.tops)}"
    if old := _v1_names(cls):
        yield f"V1 name: {', '.join(old)}"
    if rows := _options(cls):
        width = max(len(name) for name, _, _ in rows)
        yield f"\n{cls.options}:" if cls.defaults is None else "\nparam_str, a dictionary in python_param:"
        for name, kind, default in rows:
            yield f"  {name:{width}}  {kind}" + (f", default {default}" if default else "")
    yield f"\n{_example(cls)}"


def markdown() -> Iterator[str]:
    """Return all types as one document: a table, then a section for each."""
    classes = [layer_class(name) for name in layer_types()]
    yield _HEAD.format(count=len(classes))
    rows = []
    for cls in classes:
        names = ", ".join(f"`{name}`" for name in _v1_names(cls))
        rows.append((f"[{cls.type}](#{cls.type.lower()})", _family(cls), _cell(_sentence(cls)), names))
    yield _grid(("type", "family", "what it does", "V1 name"), rows)
    for cls in classes:
        counts = f"bottoms: {_count(cls.bottoms)}, tops: {_count(cls.tops)}"
        yield f"\n## {cls.type}\n\n`{_file(cls)}`; {counts}\n\n```text\n{inspect.getdoc(cls) or ''}\n```"
        if options := [tuple(map(_cell, row)) for row in _options(cls)]:
            yield "\n" + _grid((f"`{cls.options}`", "value", "default"), options)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _sentence(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _family(cls: Any) -> str:
    parts = cls.__module__.split(".")
    return parts[2] if parts[0] == "caffe" else parts[-1]


def _file(cls: Any) -> str:
    if cls.__module__.startswith("caffe."):
        return cls.__module__.replace(".", "/") + ".py"
    return str(inspect.getsourcefile(cls) or cls.__module__)


def _v1_names(cls: Any) -> list[str]:
    return [name for name, modern in V1_TYPES.items() if modern == cls.type]


def _count(limits: tuple[int, int | None]) -> str:
    least, most = limits
    if least == most:
        return str(least)
    return f"{least} or more" if most is None else f"{least} to {most}"


def _options(cls: Any) -> list[tuple[str, str, str]]:
    """Yield name, kind and default of each option."""
    if cls.defaults is not None:
        return [(name, type(value).__name__, repr(value)) for name, value in cls.defaults.items()]
    rows = []
    for proto, inner in _fields(cls):
        many = "list of " if proto.label == proto.LABEL_REPEATED else ""
        quote = '"' if proto.type == proto.TYPE_STRING else ""
        default = f"{quote}{proto.default_value}{quote}" if proto.HasField("default_value") else ""
        rows.append((proto.name, many + _kind(proto, inner), default))
    return rows


def _fields(cls: Any) -> list[tuple[Any, Any]]:
    """Return the options of a type: the FieldDescriptorProto of each, and the descriptor of its message or enum, if
    any.
    """
    if not cls.options:
        return []
    message = extend.message_of(cls.options)
    source = descriptor_pb2.DescriptorProto()
    message.CopyToProto(source)
    fields = [message.fields_by_name[proto.name] for proto in source.field]
    return [(proto, field.message_type or field.enum_type) for proto, field in zip(source.field, fields, strict=True)]


def _kind(proto: Any, inner: Any) -> str:
    if proto.type == proto.TYPE_MESSAGE:
        return inner.name
    if proto.type == proto.TYPE_ENUM:
        return " | ".join(value.name for value in inner.values)
    kind = proto.Type.Name(proto.type).removeprefix("TYPE_").lower()
    return {"float": "number", "double": "number", "bool": "true | false"}.get(kind, kind)


def _example(cls: Any) -> str:
    """Return an example block with the required bottoms and tops, and the options that are usually set."""
    lines = ["layer {", f'  name: "{cls.__name__.lower()}1"', f'  type: "{cls.type}"']
    bottoms, tops = cls.bottoms[0], cls.tops[0] or int(cls.tops[1] != 0)
    lines += [f'  bottom: "in{i if bottoms > 1 else ""}"' for i in range(1, bottoms + 1)]
    lines += [f'  top: "out{i if tops > 1 else ""}"' for i in range(1, tops + 1)]
    if cls.defaults is not None:
        usual = [f'    param_str: "{dict(cls.defaults)!r}"']
    else:
        usual = [
            f"    {proto.name}: {_USUAL[proto.name]}"
            for proto, inner in _fields(cls)
            if proto.name in _USUAL and inner is None and not proto.HasField("default_value")
        ]
    lines += [f"  {cls.options} {{", *usual, "  }"] if usual else []
    return "\n".join([*lines, "}"])
