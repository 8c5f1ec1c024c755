"""Reads a `.proto` file at run time, without protoc: the messages and enums of proto2.

Unsupported statements (services, groups, maps, oneof, extensions, imports other than caffe.proto) raise an error that
says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from caffe.errors import ProtoError
from caffe.proto import caffe_pb2, files
from caffe.proto.files import PathLike

__all__ = ["load"]

_TOKEN = re.compile(
    r"""(?:\s+|//[^\n]*|/\*.*?\*/)*                              # space and comments
    ( "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'              # string
    | -?(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf\b|nan\b)
    | \.?[A-Za-z_]\w*(?:\.\w+)*                              # name
    | . | \Z )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_CAFFE = caffe_pb2.DESCRIPTOR.name
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in _FIELD.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}
_LOADED: dict[tuple[str, str], FileDescriptor] = {}
_LABELS = {name.removeprefix("LABEL_").lower(): number for name, number in _FIELD.Label.items()}


def load(path: PathLike) -> FileDescriptor:
    """Load the messages and enums of the .proto file `path`, which can use the types of caffe.proto.

    Without a `package` statement, the file gets a package of its own. Raises `FileError` for a file that cannot be read
    and `ProtoError`, with `path:line:`, for its content.
    """
    name = str(Path(path).resolve())
    text = files.read_text_bytes(path).decode("utf-8-sig", "replace")
    if (name, text) in _LOADED:  # already loaded for another layer type of the same file
        return _LOADED[name, text]
    source = _Parser(text, str(path)).file(name)
    if not source.package:
        source.package = "caffe." + re.sub(r"\W", "_", Path(path).stem)
    pool = descriptor_pool.Default()
    try:
        pool.AddSerializedFile(source.SerializeToString())
        return _LOADED.setdefault((name, text), pool.FindFileByName(name))
    except (TypeError, KeyError) as error:
        raise ProtoError(
            f"{path}: {error}; protobuf refuses it: a type is unknown, a name or number is used twice, or a file of "
            "this name with other content is loaded already"
        ) from error


class _Parser:
    """Parses the tokens of a .proto file in one pass."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.tokens: list[str] = _TOKEN.findall(text)
        self.at = 0

    def file(self, name: str) -> descriptor_pb2.FileDescriptorProto:
        """Parse the whole file."""
        result = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto2", dependency=[_CAFFE])
        while (token := self.take()) != "":
            if token == "syntax":
                self.expect("=")
                if self.take()[1:-1] != "proto2":
                    self.fail("expected proto2, which records whether a field is set", self.at - 1)
            elif token == "package":
                result.package = self.take()
            elif token == "import":
                if Path(self.take()[1:-1]).name != "caffe.proto":
                    self.fail("only caffe.proto can be imported; compile the file with protoc", self.at - 1)
            elif token in ("message", "enum"):
                self.declaration(token, result)
                continue
            elif token != ";":
                self.fail(f'expected "message" or "enum", got "{token}"', self.at - 1)
            if token != ";":
                self.expect(";")
        return result

    def declaration(self, kind: str, parent: Any) -> None:
        """Parse a message or an enum, after its keyword."""
        name = self.take()
        self.expect("{")
        if kind == "enum":
            self.enum(parent.enum_type.add(name=name))
        elif isinstance(parent, descriptor_pb2.FileDescriptorProto):
            self.message(parent.message_type.add(name=name))
        else:
            self.message(parent.nested_type.add(name=name))

    def message(self, message: descriptor_pb2.DescriptorProto) -> None:
        while (token := self.take()) != "}":
            if token in ("message", "enum"):
                self.declaration(token, message)
            elif token in _LABELS:
                self.field(message.field.add(label=_LABELS[token]))
            elif token != ";":
                self.fail(f'expected "optional", "repeated" or "required", got "{token or "the end"}"', self.at - 1)

    def enum(self, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        while (token := self.take()) != "}":
            self.expect("=")
            enum.value.add(name=token, number=self.number())
            self.expect(";")

    def field(self, field: descriptor_pb2.FieldDescriptorProto) -> None:
        kind = self.take()
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type_name = kind  # protobuf determines whether the type is a message or an enum
        field.name = self.take()
        self.expect("=")
        field.number = self.number()
        if self.tokens[self.at] == "[":
            self.at += 1
            while self.tokens[self.at - 1] != "]":
                self.option(field, self.take())
                if self.take() not in (",", "]"):
                    self.fail('expected "," or "]"', self.at - 1)
        self.expect(";")

    def option(self, field: descriptor_pb2.FieldDescriptorProto, name: str) -> None:
        self.expect("=")
        value = self.take()
        if name == "default":
            field.default_value = value[1:-1] if value[:1] in ('"', "'") else value
        elif name in ("packed", "deprecated"):
            setattr(field.options, name, value == "true")
        else:
            self.fail(f'unknown field option "{name}", expected default, packed or deprecated', self.at - 3)

    def number(self) -> int:
        try:
            return int(self.take(), 0)
        except ValueError:
            self.fail(f'expected a whole number, got "{self.tokens[self.at - 1]}"', self.at - 1)

    def take(self) -> str:
        """Return the current token and advance, but never beyond the end."""
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def expect(self, token: str) -> None:
        if (got := self.take()) != token:
            self.fail(f'expected "{token}", got "{got or "the end"}"', self.at - 1)

    def fail(self, fact: str, at: int) -> NoReturn:
        """Raise a `ProtoError` for the token at index `at`."""
        starts = [match.start(1) for match in _TOKEN.finditer(self.text)]
        line = self.text.count("\n", 0, starts[min(at, len(starts) - 1)]) + 1
        raise ProtoError(f"{self.name}:{line}: {fact}")
