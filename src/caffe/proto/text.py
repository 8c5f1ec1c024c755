"""Reads and writes prototxt, the text form of a message.

The grammar is that of protobuf's C++ parser, which Caffe uses. protobuf's Python parser accepts a different language
(no `lr_mult: - 1`, no `dim: 1dim: 3`), and its error texts depend on the version. The errors of this parser name line,
layer, field and the nearest known name.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import ProtoError
from caffe.proto import caffe_pb2, detect, extend, files, hints
from caffe.proto.files import PathLike
from caffe.proto.printing import dumps, repeated_fields

__all__ = ["dumps", "field_line", "layer_line", "parse", "read", "read_definition", "write"]

M = TypeVar("M", bound=Message)

_TOKEN = re.compile(
    r"""(?:\s+|\#[^\n]*)*                                   # space and comments
    ( [A-Za-z_]\w*                                          # name
    | 0[xX][0-9a-fA-F]+                                     # number
    | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'             # string
    | . | \Z )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)|(.))", re.DOTALL
)
_ESCAPES = dict(zip((bytes([c]) for c in b"abfnrtv\\?'\""), (bytes([c]) for c in b"\a\b\f\n\r\t\v\\?'\""), strict=True))
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|\d+", re.ASCII)
_DECIMAL = re.compile(r"(?!0\d+$)(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?", re.ASCII)
_NOT_FINITE = {"inf": "inf", "infinity": "inf", "nan": "nan"}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_END = ""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: PathLike, message: M) -> M:
    """Read the prototxt file `path` into `message` and return it.

    Raises `FileError` for a file that is unreadable or binary, and `ProtoError` with `path:line:` for its content.
    """
    content = files.read_text_bytes(path)
    found = detect.kind(memoryview(content))
    if found not in ("text", "empty") and b"\0" in content and not content.startswith(_UTF16):
        raise detect.reject(path, found, "text")
    return parse(decode(content), message, os.fspath(path))


def read_definition(path: PathLike) -> Message:
    """Read a prototxt file that is a net's or a solver's definition; returns the NetParameter or SolverParameter.

    Raises `FileError` and `ProtoError`; if the text is neither, the error of a net.
    """
    try:
        return read(path, caffe_pb2.NetParameter())
    except ProtoError as error:
        try:
            return read(path, caffe_pb2.SolverParameter())
        except ProtoError:
            raise error from None


def parse(text: str, message: M, name: str = "<text>") -> M:
    """Parse prototxt `text` into `message` and return it. `name` is the file name in a `ProtoError`."""
    _Parser(text, name).parse(message)
    missing = message.FindInitializationErrors()
    if missing:
        raise ProtoError(f"{name}{_line_of_missing(text, missing[0])}: the required field {missing[0]} is missing")
    return message


def write(path: PathLike, message: Message) -> None:
    """Write `message` as a prototxt file, completely or not at all. Raises `FileError`."""
    with files.atomic(path) as file:
        file.write(dumps(message).encode())


def layer_line(path: PathLike, index: int, name: str | None = None) -> int | None:
    """Return the line where the `index`-th `layer` or `layers` block of a prototxt file begins, counted from 0.

    If `name` is given, this is the block with that name whose index is nearest, because upgrading an old file moves
    layers. Returns None if there is no such block. Reads the file, so call it only for errors.
    """
    blocks = list(_layer_blocks(decode(files.read_text_bytes(path))))
    if name is None:
        return blocks[index][0] if 0 <= index < len(blocks) else None
    named = [(abs(place - index), line) for place, (line, own) in enumerate(blocks) if (own or "") == name]
    return min(named)[1] if named else None


def field_line(path: PathLike, name: str) -> int | None:
    """Return the line of the first top-level field `name` of a prototxt file, or None.

    Reads the file, so call it only for errors.
    """
    content, depth, before = decode(files.read_bytes(path)), 0, -1
    for match in _TOKEN.finditer(content):
        token = match.group(1)
        if before >= 0 and token in (":", "{"):
            return content.count("\n", 0, before) + 1
        before = match.start(1) if token == name and depth == 0 else -1
        depth += (token == "{") - (token == "}")
    return None


class _Parser:
    """Parses the tokens of a text in one pass."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.tokens: list[str] = _TOKEN.findall(text)
        self.at = 0
        self.layer: Message | None = None

    def parse(self, message: Message) -> None:
        self.body(message, _END)

    def body(self, message: Message, end: str) -> None:
        """Parse the fields of a message up to the token `end`."""
        plans = _plans(message.DESCRIPTOR)
        tokens = self.tokens
        while (token := tokens[self.at]) != end:
            added = extend.find(message.DESCRIPTOR, token)  # a user's options can replace a fork's
            plan = (added, False, None) if added else plans.get(token) or self.unknown(message, token, end)
            self.at += 1
            self.field(message, *plan)
            if tokens[self.at] in (",", ";"):
                self.at += 1
        self.at += end != _END

    def field(self, message: Message, field: FieldDescriptor, repeated: bool, convert: _Convert | None) -> None:
        """Parse what follows a field's name."""
        more = None if repeated else _plans(message.DESCRIPTOR).get(f"more_{field.name}")
        if not repeated and extend.has(message, field):
            if more is None:
                self.fail(f"{field.containing_type.name} has {field.name} twice, expected it once", self.at - 1)
            field, repeated, convert = more
        if self.tokens[self.at] == ":":
            self.at += 1
        elif convert is not None:
            self.fail(f'expected ":" after {field.name}, got {self.token()}')
        if not ((repeated or more) and self.tokens[self.at] == "["):
            return self.value(message, field, repeated, convert)
        self.at += 1
        while self.tokens[self.at] != "]":
            if more and not repeated and extend.has(message, field):
                field, repeated, convert = more
            self.value(message, field, repeated, convert)
            if self.tokens[self.at] == ",":
                self.at += 1
            elif self.tokens[self.at] != "]":
                self.fail(f'expected "," or "]" in the list of {field.name}, got {self.token()}')
        self.at += 1
        return None

    def value(self, message: Message, field: FieldDescriptor, repeated: bool, convert: _Convert | None) -> None:
        """Parse one value of a field. A message value is marked as present even if it is empty."""
        if convert is None:
            part = extend.get(message, field)
            part = part.add() if repeated else part
            part.SetInParent()
            closing = {"{": "}", "<": ">"}.get(self.tokens[self.at])
            if closing is None:
                self.fail(f'expected "{{" after {field.name}, got {self.token()}')
            self.at += 1
            if field.name in ("layer", "layers") and repeated:
                self.layer = part
            self.body(part, closing)
        elif repeated:
            getattr(message, field.name).append(convert(self, field))
        elif field.enum_type is not None and extend.takes(field, self.tokens[self.at]):
            setattr(message, f"{field.name}_name", self.tokens[self.at])
            self.at += 1
        else:
            setattr(message, field.name, convert(self, field))

    def sign(self) -> str:
        """Consume a minus sign if there is one."""
        if self.tokens[self.at] != "-":
            return ""
        self.at += 1
        return "-"

    def token(self) -> str:
        """Return the current token for an error."""
        return f'"{self.tokens[self.at]}"' if self.tokens[self.at] != _END else "the end of the file"

    def unknown(self, message: Message, token: str, end: str) -> NoReturn:
        if token == _END:
            self.fail(f'expected "{end}", got the end of the file: a block of {message.DESCRIPTOR.name} is open')
        if not token[0].isalpha() and token[0] != "_":
            self.fail(f'expected a field of {message.DESCRIPTOR.name}, got "{token}"')
        self.fail(f'{message.DESCRIPTOR.name} has no field "{token}"{hints.unknown_field(message, token)}')

    def wrong(self, field: FieldDescriptor, expected: str) -> NoReturn:
        """Create the error for a value of the wrong type."""
        hint = hints.wrong_value(field, self.tokens[self.at])
        self.fail(f"{field.containing_type.name}.{field.name}: expected {expected}, got {self.token()}{hint}")

    def fail(self, fact: str, at: int | None = None) -> NoReturn:
        """Raise a `ProtoError` for the token at index `at`, by default the current one."""
        match = next(itertools.islice(_TOKEN.finditer(self.text), self.at if at is None else at, None))
        line = self.text.count("\n", 0, match.start(1)) + 1
        name: str = "" if self.layer is None else self.layer.name  # type: ignore[attr-defined]
        layer = f'layer "{name}": ' if name else ""
        raise ProtoError(f"{self.name}:{line}: {layer}{fact}").at(name or None, self.name, line)


_Convert = Callable[[_Parser, FieldDescriptor], Any]
_Plan = tuple[FieldDescriptor, bool, _Convert | None]


def _integer(parser: _Parser, field: FieldDescriptor) -> int:
    bits = 32 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 64
    signed = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    start = parser.at
    minus = parser.sign()
    value = _parse_integer(parser.tokens[parser.at])
    if value is None or (minus and not signed):
        parser.at = start
        parser.wrong(field, "a whole number" if signed else "a whole number >= 0")
    value = -value if minus else value
    if not low <= value <= high:
        parser.wrong(field, f"a whole number from {low} to {high}")
    parser.at += 1
    return value


def _parse_integer(token: str) -> int | None:
    """Return the value of an integer token as C reads it: decimal, hexadecimal or octal."""
    if not _INTEGER.fullmatch(token):
        return None
    octal = len(token) > 1 and token[0] == "0" and token.isdigit()
    try:
        return int(token, 8 if octal else 0)
    except ValueError:
        return None


def _float(parser: _Parser, field: FieldDescriptor) -> float:
    minus = parser.sign()
    token = parser.tokens[parser.at]
    if _DECIMAL.fullmatch(token):
        value = float(token.rstrip("fF"))
    elif token.lower() in _NOT_FINITE:
        value = float(_NOT_FINITE[token.lower()])
    else:
        parser.wrong(field, "a number")
    parser.at += 1
    return -value if minus else value


def _bool(parser: _Parser, field: FieldDescriptor) -> bool:
    token = parser.tokens[parser.at]
    value = _BOOLS.get(token)
    if value is None:
        number = _parse_integer(token)
        if number not in (0, 1):
            parser.wrong(field, "true or false")
        value = number == 1
    parser.at += 1
    return value


def _enum(parser: _Parser, field: FieldDescriptor) -> int:
    start = parser.at
    minus = parser.sign()
    token = parser.tokens[parser.at]
    known = field.enum_type.values_by_name.get(token)
    if known is None:
        number = _parse_integer(token)
        known = None if number is None else field.enum_type.values_by_number.get(-number if minus else number)
    if known is None:
        parser.at = start
        parser.wrong(field, "one of " + ", ".join(field.enum_type.values_by_name))
    parser.at += 1
    return known.number


def _bytes(parser: _Parser, field: FieldDescriptor) -> bytes:
    """Parse one string token, or several adjacent ones, which are joined."""
    if parser.tokens[parser.at][:1] not in ('"', "'"):
        parser.wrong(field, "a string in quotes")
    parts = []
    while (token := parser.tokens[parser.at])[:1] in ('"', "'"):
        if len(token) == 1:
            parser.fail(f"{field.name}: the string has no closing {token} on its line")
        try:
            parts.append(_ESCAPE.sub(_unescape, token[1:-1].encode()))
        except UnicodeError:  # half of a surrogate pair
            parser.fail(f"{field.name}: the string is not valid UTF-8")
        except KeyError as error:
            wrong = "\\" + error.args[0].decode("latin-1")
            parser.fail(f'{field.name}: unknown escape "{wrong}" in a string; in paths write /, for a backslash \\\\')
        parser.at += 1
    return b"".join(parts)


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, point, character = match.groups()
    if point:
        return bytes.fromhex(point.replace(b"\\u", b"").decode()).decode("utf-16-be").encode()
    if character:
        return _ESCAPES[character]
    return bytes([int(octal, 8) & 255 if octal else int(hexadecimal, 16)])


def _string(parser: _Parser, field: FieldDescriptor) -> str:
    start = parser.at
    try:
        return _bytes(parser, field).decode()
    except UnicodeDecodeError:
        parser.fail(f"{field.name}: the string is not valid UTF-8", start)


_CONVERT: dict[int, _Convert | None] = {
    FieldDescriptor.TYPE_MESSAGE: None,
    FieldDescriptor.TYPE_INT32: _integer,
    FieldDescriptor.TYPE_INT64: _integer,
    FieldDescriptor.TYPE_UINT32: _integer,
    FieldDescriptor.TYPE_UINT64: _integer,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_DOUBLE: _float,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_ENUM: _enum,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_STRING: _string,
}


@functools.cache
def _plans(descriptor: Descriptor) -> dict[str, _Plan]:
    """Return the parsing function of each field of a message type, by name."""
    repeated = repeated_fields(descriptor)
    return {field.name: (field, field.name in repeated, _CONVERT[field.type]) for field in descriptor.fields}


def decode(content: bytes) -> str:
    """Decode UTF-8, else Latin-1 (comments of old files), or UTF-16 with a byte order mark.

    Line ends become those of Unix.
    """
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _layer_blocks(text: str) -> Iterator[tuple[int, str | None]]:
    """Return line and name of each top-level `layer` and `layers` block."""
    depth, start, name = 0, 0, None
    previous = ["", "", ""]
    for match in _TOKEN.finditer(text):
        token = match.group(1)
        if token in ("{", "<"):
            depth += 1
            opener = previous[1] if previous[2] == ":" else previous[2]
            if depth == 1:
                name = None
                start = 0 if opener not in ("layer", "layers") else text.count("\n", 0, match.start(1)) + 1
        elif token in ("}", ">"):
            depth -= 1
            if depth == 0 and start:
                yield start, name
        elif depth == 1 and previous[1:] == ["name", ":"]:
            name = token[1:-1]
        previous = [*previous[1:], token]


def _line_of_missing(text: str, path: str) -> str:
    """Return `:41`, the line of the layer that a path such as `layer[3].clip_param.max` refers to."""
    match = re.match(r"layers?\[(\d+)\]", path)
    blocks = list(_layer_blocks(text)) if match else []
    index = int(match.group(1)) if match else 0
    return f':{blocks[index][0]}: layer "{blocks[index][1] or ""}"' if index < len(blocks) else ""
