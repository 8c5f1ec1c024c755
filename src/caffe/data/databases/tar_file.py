"""Walks the headers of a tar archive. Every number in it is checked, and nothing is skipped silently.

Python's `tarfile` ends without an error at a damaged header, and needs ten times as long for an archive of a million
members.

Source: POSIX.1-2001, pax interchange format; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["BLOCK", "Damage", "Member", "TarFile"]

BLOCK = 512
_ZEROS = bytes(BLOCK)
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_FILES = b"0\x007"
_IGNORED = b"5g"  # folders, and pax records about the whole archive
_LONG_NAME, _PAX = b"L", b"x"
_LONGEST = 1 << 20  # bytes of a long name or of pax records


class Damage(ValueError):
    """The fault in the archive, with the byte at which it was found."""


class Member(NamedTuple):
    """A file in the archive: its name, the position of its header, and the position and size of its content."""

    name: str
    header: int
    data: int
    size: int


class TarFile:
    """An uncompressed tar archive, opened for reading at any position. It is closed with its last reference."""

    def __init__(self, path: str) -> None:
        self._file = -1
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._file).st_size

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read(self, start: int, size: int) -> bytes:
        """Read `size` bytes from `start` on. Raises Damage if the file ends before."""
        data = os.pread(self._file, size, start)
        while len(data) < size:
            more = os.pread(self._file, size - len(data), start + len(data))
            if not more:
                raise Damage(
                    f"byte {start + len(data)}: the file ends where {size - len(data)} more bytes are expected"
                )
            data += more
        return data

    def members(self) -> Iterator[Member]:
        """Yield the files of the archive in its order. Raises Damage and OSError."""
        self._refuse_compressed()
        at, name, size = 0, "", -1  # name and size from the records before a header
        while (block := self.read(at, BLOCK)) != _ZEROS:
            kind, own = _checked(block, at), _size(block, at)
            length, data = own if size < 0 else size, at + BLOCK
            if data + length > self.size:
                fact = f"byte {at}: the content of {name or _name(block)!r} ends at byte {data + length}"
                raise Damage(f"{fact}, but the file has {self.size} bytes")
            if kind in (_LONG_NAME, _PAX):
                if length > _LONGEST:
                    raise Damage(f"byte {at}: a name or its records have {length} bytes, expected at most {_LONGEST}")
                content = self.read(data, length)
                if kind == _LONG_NAME:
                    name = _text(content.rstrip(b"\0"))
                else:
                    name, size = _pax(content, data, name)
            elif kind in _FILES:
                yield Member(name or _name(block), at, data, length)
                name, size = "", -1
            elif kind in _IGNORED:
                name, size = "", -1
            else:
                raise Damage(f"byte {at}: {name or _name(block)!r} is a link or a special file, expected files only")
            at = data + -(-length // BLOCK) * BLOCK

    def _refuse_compressed(self) -> None:
        start = os.pread(self._file, 8, 0)
        for magic, (kind, tool) in _COMPRESSED.items():
            if start.startswith(magic):
                raise Damage(
                    f"byte 0: it is compressed with {kind}, and images cannot be read from the middle; decompress it "
                    f"with {tool} (JPEG does not become smaller by it)"
                )


def _checked(block: bytes, at: int) -> bytes:
    """Return the kind of the member with this header, one byte. Raises Damage if the checksum is wrong."""
    try:
        stored = _number(block[148:156])
    except ValueError:
        stored = -1
    if stored != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise Damage(f"byte {at}: no header of a tar archive (its checksum is wrong)")
    return block[156:157]


def _size(block: bytes, at: int) -> int:
    try:
        return _number(block[124:136])
    except ValueError:
        raise Damage(f"byte {at}: {_name(block)!r} has no readable size") from None


def _number(field: bytes) -> int:
    """Read octal digits, or GNU's binary number, which begins with byte 128."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ValueError("negative")
        return int.from_bytes(field[1:], "big")
    number = int(field.partition(b"\0")[0].strip() or b"0", 8)
    if number < 0:
        raise ValueError("negative")
    return number


def _name(block: bytes) -> str:
    name, prefix = (block[start:end].partition(b"\0")[0] for start, end in ((0, 100), (345, 500)))
    posix = block[257:263] == b"ustar\0"
    return _text(prefix + b"/" + name if posix and prefix else name)


def _pax(content: bytes, at: int, name: str) -> tuple[str, int]:
    """Return the name and the size that pax records `LENGTH KEY=VALUE\\n` give, or `name` and -1."""
    size, place = -1, 0
    while place < len(content):
        digits, _, _ = content[place : place + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or record[-1:] != b"\n" or (key == b"size" and not value.isdigit()):
            raise Damage(f"byte {at + place}: pax records cannot be read")
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise Damage(f"byte {at + place}: a file is stored sparse; write the archive without --sparse")
        place += length
    return name, size


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
