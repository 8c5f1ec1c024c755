"""Declaring the options of a layer class, and reading them from a LayerParameter."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from google.protobuf.message import Message

from caffe.errors import NetError, did_you_mean
from caffe.proto import caffe_pb2, extend, schema

__all__ = ["Options", "field_of", "from_text", "written"]

Options = str | Mapping[str, Any] | type[Message] | None
"""The class argument `options`."""

_FIELDS = {
    field.name.replace("_", ""): field.name
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields
    if field.name.endswith("_param")
}


def field_of(cls: Any, options: Options) -> str | None:
    """The field of LayerParameter that holds the options of the layer class `cls`. Adds the field for a user's message.

    `options` is the argument of the class statement:

        None                           the field that caffe.proto has for the class name, else that of the base class
        "recurrent_param"              a field of caffe.proto
        "smooth.proto"                 the message SmoothParameter of a file in the folder of the class's module
        "smooth.proto:Message"         that message of the file
        smooth_pb2.SmoothParameter     a message class that protoc generated
        {"scale": 2.0}                 names and defaults; the values are in python_param.param_str
    """
    if options is None:
        return _FIELDS.get(cls.__name__.lower() + "param", cls.options)
    if isinstance(options, Mapping):
        return "python_param"
    name = _snake_case(cls.__name__) + "_param"
    if not isinstance(options, str):
        extend.add_options(name, options.DESCRIPTOR)
        return name
    if not re.search(r"\.proto(:|$)", options):
        return options
    file, _, message = options.partition(":")
    message = message or cls.__name__ + "Parameter"
    home = getattr(sys.modules.get(cls.__module__), "__file__", None)
    known = schema.load(Path(home).parent / file if home else file).message_types_by_name
    if message not in known:
        raise NetError(f'layer type "{cls.__name__}": {file} has no message "{message}"{did_you_mean(message, known)}')
    extend.add_options(name, known[message])
    return name


def from_text(param: Any, defaults: Mapping[str, Any], error: Callable[[str], NoReturn]) -> SimpleNamespace:
    """The options of a layer whose class declares a dictionary: `defaults`, updated from param.param_str."""
    if param.module or param.layer:
        error('python_param.module and layer are for the type "Python"; this type takes param_str only')
    try:
        given = ast.literal_eval(param.param_str.strip() or "{}")
    except (ValueError, SyntaxError):
        given = None
    if not isinstance(given, dict):
        error(f"python_param.param_str is {param.param_str!r}, expected a dictionary such as {dict(defaults)!r}")
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            error(f'has no option "{name}"{did_you_mean(str(name), defaults)} (options: {known})')
        if not _fits(value, defaults[name]):
            wanted = type(defaults[name]).__name__
            error(f"option {name} is {value!r}, expected a value of the type of its default: {wanted}")
    return SimpleNamespace(**{**defaults, **given})


def written(options: Any, names: Sequence[str]) -> list[str]:
    """The names among `names` that the prototxt sets."""
    fields = {field.name for field, _ in options.ListFields()} if isinstance(options, Message) else set()
    return [name for name in names if name in fields]


def _snake_case(type_name: str) -> str:
    """`InnerProduct` -> `inner_product`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type_name).lower()


def _fits(value: object, default: object) -> bool:
    """Whether a value has the type of a default. An integer fits a float, and anything fits None."""
    if default is None or type(value) is type(default):
        return True
    return isinstance(default, float) and type(value) is int
