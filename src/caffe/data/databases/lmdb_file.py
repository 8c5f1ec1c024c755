"""Reads LMDB's data file page by page. Every number in it is checked.

The LMDB library aborts the process on a damaged page; this module raises `Damage`, which names the page. As in the
library, pages are parts of a memory map. The file's size is checked continually. If another process truncates the file
between a check and an access, the process ends by SIGBUS. With CAFFE_SAFE_LMDB=1 in the environment, pages are read
into memory instead, which avoids this.

Source: lmdb 0.9, mdb.c, on 64-bit little-endian machines: a meta page, a B+ tree of branch and leaf pages, and separate
overflow pages for values of more than half a page.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Damage", "DataFile", "Meta"]

_MAGIC = 0xBEEFC0DE
_HEADER = struct.Struct("<QHHHH")  # page number, pad, flags, lower, upper (or page count)
_META = struct.Struct("<IIQQ 48s IHHQQQQQ QQ")
_NUMBER, _COUNT = struct.Struct("<Q"), struct.Struct("<I")
_NODE = struct.Struct("<HHHH")  # low and high half of a number, flags, length of the key
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 1, 2, 4, 8
_DIRTY = 16  # not used in a file
_KINDS = {_BRANCH: "a branch page", _LEAF: "a leaf page", _OVERFLOW: "an overflow page", _IS_META: "a meta page"}
_BIG = 1  # node flag: the value is on overflow pages; other flags mean a sub-database or several values
_NOTHING = (1 << 64) - 1
_PAGE_SIZES = frozenset(1 << power for power in range(8, 17))
_DEEPEST = 32
_AHEAD = 1 << 15  # bytes per read of consecutive pages

_ASK = 2e-4  # seconds after which the size of a memory-mapped file is checked again


class Damage(ValueError):
    """The fault in the file, with the page number."""


class Meta(NamedTuple):
    """The content of the newer meta page: the page size and the root of the record tree."""

    page_size: int
    root: int
    depth: int
    entries: int
    last_page: int


class DataFile:
    """An open data.mdb. It is closed when the last reference is released; each scan holds a reference."""

    def __init__(self, path: str) -> None:
        self._file = -1
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.meta = self._meta()
        safe = os.environ.get("CAFFE_SAFE_LMDB", "0") not in ("", "0")
        self.map = None if safe else memoryview(mmap.mmap(self._file, self.size, access=mmap.ACCESS_READ))

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def size(self) -> int:
        """Return the current size of the file."""
        return os.fstat(self._file).st_size

    def read(self, start: int, size: int) -> bytes:
        """Read `size` bytes from `start` on, or fewer at the end of the file."""
        return os.pread(self._file, size, start)

    def records(self, start: bytes | None = None) -> Iterator[tuple[bytes, memoryview]]:
        """Yield every (key, value) in key order from the first key >= `start` on. Raises `Damage` and OSError."""
        return (_Scan(self) if self.map is None else _MapScan(self, self.map)).records(start)

    def _meta(self) -> Meta:
        """Return the newer of the two meta pages. A damaged one is ignored."""
        first = self._read_meta(0)
        second = self._read_meta(first[1].page_size if first else 4096)
        found = max((meta for meta in (first, second) if meta), key=lambda pair: pair[0], default=None)
        if found is None:
            raise Damage("neither page 0 nor page 1 is a meta page of LMDB")
        return found[1]

    def _read_meta(self, start: int) -> tuple[int, Meta] | None:
        """Return the transaction number and content of the meta page at this position; None if it is not a meta
        page.
        """
        page = self.read(start, 16 + _META.size)
        if len(page) < 16 + _META.size or not _HEADER.unpack_from(page)[2] & _IS_META:
            return None
        values = _META.unpack_from(page, 16)
        (magic, version), free, (flags, depth), (entries, root, last, transaction) = (
            *(values[:2], values[4], values[6:8]),
            values[11:],
        )
        (size,) = _COUNT.unpack_from(free)
        if magic != _MAGIC or version != 1 or size not in _PAGE_SIZES:
            return None
        if flags:
            raise Damage(f"its records have a format that Caffe does not read (flags {flags:#x})")
        if root != _NOTHING and not 1 <= depth <= _DEEPEST:
            raise Damage(f"its tree has depth {depth}, expected 1 to {_DEEPEST}")
        return transaction, Meta(size, root, depth, entries, last)


class _Scan:
    """One scan of the records, with its own read buffer."""

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self.meta = file.meta
        self._window, self._start = b"", 0

    def records(self, start: bytes | None) -> Iterator[tuple[bytes, memoryview]]:
        """See `DataFile.records`."""
        if self.meta.root == _NOTHING:
            return
        last: bytes | None = None
        for page, number in self._leaves(self.meta.root, self.meta.depth, start):
            unpack, room = _NODE.unpack_from, len(page)
            for at in _places(page, number):
                low, high, flags, length = unpack(page, at)
                size, behind = low | high << 16, at + 8 + length
                key = page[at + 8 : behind].tobytes()
                if start is not None:
                    if key < start:
                        continue
                    start = None
                if last is not None and key <= last:
                    raise Damage(f"page {number}: the keys are not in order")
                if behind + (8 if flags else size) > room:
                    raise Damage(f"page {number}: the record at byte {at} does not end in the page")
                last = key
                yield key, self._big(page, number, flags, size, behind) if flags else page[behind : behind + size]

    def _leaves(self, number: int, depth: int, start: bytes | None) -> Iterator[tuple[memoryview, int]]:
        """Yield the leaf pages below a page, starting with the first that can contain `start`."""
        page = self._page(number, _LEAF if depth == 1 else _BRANCH)
        if depth == 1:
            yield page, number
            return
        children: list[int] = []
        for index, at in enumerate(_places(page, number)):
            low, high, flags, length = _NODE.unpack_from(page, at)
            key = page[at + 8 : at + 8 + length].tobytes()
            if start is not None and index and key <= start:
                children.clear()  # `start` is not before this child; the first child has no key
            children.append(low | high << 16 | flags << 32)
        for child in children:
            yield from self._leaves(child, depth - 1, start)

    def _big(self, page: memoryview, number: int, flags: int, size: int, at: int) -> memoryview:
        """Read a value from overflow pages."""
        if flags != _BIG:
            raise Damage(f"page {number}: the record is a database of its own or has several values (flags {flags:#x})")
        (first,) = _NUMBER.unpack_from(page, at)
        count = (15 + size) // self.meta.page_size + 1
        run = self._page(first, _OVERFLOW, count)
        (stored,) = _COUNT.unpack_from(run, 12)
        if stored != count:
            raise Damage(f"page {first} begins {stored} overflow pages, expected {count} for a value of {size} bytes")
        return run[16 : 16 + size]

    def _page(self, number: int, kind: int, count: int = 1) -> memoryview:
        """Return the bytes of a page, or of `count` overflow pages. Raises Damage if the header does not match."""
        if not 2 <= number <= self.meta.last_page - count + 1:
            raise Damage(f"page {number} is wanted, but the file has pages 2 to {self.meta.last_page}")
        size = self.meta.page_size
        page = self._bytes(number * size, count * size)
        if len(page) < count * size:
            raise Damage(f"page {number} is beyond the end of the file, which was cut off")
        own, _, flags, _, _ = _HEADER.unpack_from(page)
        if own != number or flags & ~_DIRTY != kind:
            found = _KINDS.get(flags & 0xF, f"no page (flags {flags:#x})")
            raise Damage(f"page {number} is {found} and says its number is {own}, expected {_KINDS[kind]}")
        return page

    def _bytes(self, start: int, size: int) -> memoryview:
        """Return the bytes from `start` on, fewer at the end of the file. Reads ahead if the access is sequential."""
        at = start - self._start
        if not 0 <= at <= len(self._window) - size:
            follows = 0 <= at <= len(self._window) + size
            self._window = self.file.read(start, max(size, _AHEAD) if follows else size)
            self._start, at = start, 0
        return memoryview(self._window)[at : at + size]


class _MapScan(_Scan):
    """One scan of the records through a memory map of the file."""

    def __init__(self, file: DataFile, view: memoryview) -> None:
        super().__init__(file)
        self._view = view
        self._size, self._asked = 0, 0.0

    def _bytes(self, start: int, size: int) -> memoryview:
        now = time.monotonic()
        if now - self._asked > _ASK:
            self._size, self._asked = self.file.size, now
        return self._view[start : min(start + size, self._size)]


def _places(page: memoryview, number: int) -> tuple[int, ...]:
    """Return the start positions of the nodes of a page."""
    _, _, _, lower, upper = _HEADER.unpack_from(page)
    if not 16 < lower <= upper <= len(page) or lower % 2:
        raise Damage(f"page {number}: its free space is from {lower} to {upper} of {len(page)} bytes")
    places: tuple[int, ...] = struct.unpack_from(f"<{(lower - 16) // 2}H", page, 16)
    if min(places) < upper or max(places) > len(page) - 8:
        raise Damage(f"page {number}: records begin at bytes {min(places)} to {max(places)}, expected {upper} or more")
    return places
