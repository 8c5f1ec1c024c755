"""Mutations of bytes, of tokens of text, and of messages in protobuf's wire format."""

from __future__ import annotations

import random
import re

from caffe.proto import wire

__all__ = ["NUMBERS", "STRINGS", "damaged", "damaged_message", "damaged_text"]

_BYTES = (0, 1, 0x7F, 0x80, 0xFF)
_INTEGERS = (0, 1, 7, 1 << 31, (1 << 63) + 5, (1 << 64) - 1, 1 << 40)
_TOKEN = re.compile(r'\s+|[A-Za-z_]\w*|-?[\d.]+(?:[eE][-+]?\d+)?|"(?:[^"\\\n]|\\.)*"|.', re.DOTALL)
NUMBERS = ("0", "1", "2", "3", "-1", "5", "100", "0.5", "-2.5", "1e30", "-1e30", "1e-30", "nan", "inf", "-inf", "007")
STRINGS = ("", "x", "data", "a/b", "ä", "\\355\\240\\200", "\\000", "/", "." * 300, "con v", "\\n", "%s", "..", "~")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to three faults."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = _once(data, rng)
    return data


def _once(data: bytes, rng: random.Random) -> bytes:
    choice, size = rng.randrange(7), len(data)
    at = rng.randrange(size) if size else 0
    length = min(size - at, rng.choice((1, 2, 4, 8, 16, 100, 4096)))
    if choice == 0:
        return data[:at]
    if choice == 1:
        return data[:at] + bytes(length) + data[at + length :]
    if choice == 2:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if choice == 3:
        return data[:at] + data[at + length :]
    if choice == 4:
        return data[:at] + data[at : at + length] * 2 + data[at + length :]
    if choice == 5:
        return data[:at] + bytes([rng.choice(_BYTES)]) + data[at + 1 :]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if size else b"\0"


def damaged_message(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a message with a field changed, at any depth, or with bytes damaged."""
    return damaged(data, rng) if rng.random() < 0.3 else _edited(data, rng, depth=4)


def _edited(data: bytes, rng: random.Random, depth: int) -> bytes:
    pieces, start = [], 0
    try:
        for field in wire.fields(memoryview(data)):
            pieces.append((field, data[start : field.end]))
            start = field.end
    except wire.WireError:
        return damaged(data, rng)
    if not pieces:
        return data + wire.key(rng.randrange(1, 12), 0)
    number = rng.choice(sorted({field.number for field, _ in pieces}))  # not the field that occurs most often
    index = rng.choice([index for index, (field, _) in enumerate(pieces) if field.number == number])
    field, piece = pieces[index]
    if field.kind == wire.BYTES and depth and len(field.view) and rng.random() < 0.7:
        content = _edited(bytes(field.view), rng, depth - 1)
        piece = wire.key(field.number, len(content)) + content
    else:
        piece = _other(field, piece, rng)
    return b"".join([*(other for _, other in pieces[:index]), piece, *(other for _, other in pieces[index + 1 :])])


def _other(field: wire.Field, piece: bytes, rng: random.Random) -> bytes:
    choice = rng.randrange(6)
    if choice == 0:
        return b""
    if choice == 1:
        return piece * 2
    if choice == 2:
        return wire.varint(field.number << 3 | wire.VARINT) + wire.varint(rng.choice(_INTEGERS))
    if choice == 3:
        return wire.varint(field.number << 3 | rng.choice((wire.FIXED32, wire.FIXED64, 3, 4))) + rng.randbytes(8)
    number = field.number if choice == 4 else rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50, 99, 101, 1000))
    content = bytes(field.view) if choice == 5 else damaged(bytes(field.view), rng)
    return wire.key(number, len(content)) + content


def damaged_text(text: str, rng: random.Random) -> bytes:
    """The bytes of a text with one to four tokens changed, or bytes damaged."""
    if rng.random() < 0.1:
        return damaged(text.encode(), rng)
    tokens = _TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(tokens, rng)
    return "".join(tokens).encode("utf-8", "surrogatepass")


def _change(tokens: list[str], rng: random.Random) -> None:
    places = [index for index, token in enumerate(tokens) if not token.isspace()]
    values = [index for index in places if tokens[index][0] in '"-0123456789']
    at = rng.choice(values if values and rng.random() < 0.5 else places or [0])
    token = tokens[at] if tokens else ""
    choice = rng.randrange(8)
    if choice < 4 and token:  # another token of the same kind, so that the text can still be parsed in most cases
        tokens[at] = _alike(token, tokens, rng)
    elif choice == 4:
        del tokens[at : at + rng.choice((1, 1, 3, 10))]
    elif choice == 5:
        end = at + rng.choice((1, 3, 10, 30))
        tokens[at:at] = [" ", *tokens[at:end], " "]
    elif choice == 6 and places:
        other = rng.choice(places)
        tokens[at], tokens[other] = tokens[other], tokens[at]
    else:
        tokens.insert(
            at, rng.choice(("{", "}", ":", '"', "<", "#", "\0", "-", "\ud800", "[", "\\", rng.choice(NUMBERS)))
        )


def _alike(token: str, tokens: list[str], rng: random.Random) -> str:
    if token[0] == '"':
        words = [other for other in tokens if other[0] == '"']
        return rng.choice(words) if rng.random() < 0.6 else f'"{rng.choice(STRINGS)}"'
    if token[0].isdigit() or token[0] == "-":
        return rng.choice(NUMBERS)
    if token[0].isalpha():
        return rng.choice([other for other in tokens if other[0].isalpha()])
    return rng.choice("{}:<>;,")
