"""The wire format of protocol buffers, as far as large files need it.

A parsed `NetParameter` turns 60 million weights into as many Python floats. These functions walk over the bytes
instead, so that a blob's numbers are one view that numpy takes as it is. They do not look at field names, which
makes them indifferent to the clashing field numbers of Caffe's forks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "Field", "WireError", "fields", "key", "varint", "varints"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_NOTHING = memoryview(b"")


class WireError(ValueError):
    """Bytes that are no message: of another format, or cut off by `missing` bytes."""

    def __init__(self, fact: str, missing: int = 0) -> None:
        super().__init__(fact)
        self.missing = missing


class Field(NamedTuple):
    """One field of a message: `integer` of a VARINT, `view` of the bytes of any other kind, and where it ends."""

    number: int
    kind: int
    integer: int
    view: memoryview
    end: int


def fields(view: memoryview) -> Iterator[Field]:
    """Every field of a message in the order of the bytes; raises `WireError`."""
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
    """A packed run of integers."""
    values, at = [], 0
    while at < len(view):
        value, at = _read_varint(view, at)
        values.append(value)
    return values


def varint(value: int) -> bytes:
    """A number >= 0 in base 128, as lengths and integers are written."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def key(number: int, size: int) -> bytes:
    """What precedes `size` bytes of a BYTES field."""
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
