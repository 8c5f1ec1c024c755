"""The protobuf wire format, as far as large files need it.

Parsing a `NetParameter` with protobuf would turn 60 million weights into as many Python floats. These functions iterate
over the bytes instead, so that the numbers of a blob are one buffer view that numpy can use directly. They ignore field
names, so that conflicting field numbers of Caffe's forks do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "Field", "WireError", "fields", "key", "varint", "varints"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_NOTHING = memoryview(b"")


class WireError(ValueError):
    """The bytes are not a message: they have another format, or `missing` bytes are cut off."""

    def __init__(self, fact: str, missing: int = 0) -> None:
        super().__init__(fact)
        self.missing = missing


class Field(NamedTuple):
    """One field of a message: `integer` for VARINT, otherwise `view` of its bytes; and the end position."""

    number: int
    kind: int
    integer: int
    view: memoryview
    end: int


def fields(view: memoryview) -> Iterator[Field]:
    """Yield every field of a message in the order of the bytes. Raises `WireError`."""
    at, length = 0, len(view)
    while at < length:
        tag, at = _read_varint(view, at)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
            raise WireError(f"field number {number} of wire type {kind}")
        if kind == VARINT:
            integer, at = _read_varint(view, at)
            yield Field(number, kind, integer, _NOTHING, at)
            continue
        size = 4 if kind == FIXED32 else 8
        if kind == BYTES:
            size, at = _read_varint(view, at)
        if at + size > length:
            raise WireError(f"field {number} is cut off", at + size - length)
        at += size
        yield Field(number, kind, 0, view[at - size : at], at)


def varints(view: memoryview) -> list[int]:
    """Decode a packed run of integers."""
    values, at = [], 0
    while at < len(view):
        value, at = _read_varint(view, at)
        values.append(value)
    return values


def varint(value: int) -> bytes:
    """Encode a number >= 0 as a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def key(number: int, size: int) -> bytes:
    """Encode the key and length that precede `size` bytes of a BYTES field."""
    return varint(number << 3 | BYTES) + varint(size)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(at + 10, len(view))):
        byte = view[index]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, index + 1
        shift += 7
    if at + 10 > len(view):
        raise WireError("a number is cut off", 1)
    raise WireError("a number of more than 64 bits")
