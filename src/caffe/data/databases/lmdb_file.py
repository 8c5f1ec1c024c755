"""The format of LMDB's data file, read page by page with every number checked.

The library aborts the process on a damaged page; here that is a `Damage`, which names the page. As in the library,
pages are parts of a memory map. The file's size is checked all the time, but a file that is cut between a check and the
use of a value ends the process by SIGBUS. With CAFFE_SAFE_LMDB=1 in the environment, pages are read into memory.

Source: lmdb 0.9, mdb.c, on machines of 64 bits and little endian: a meta page, a B+ tree of branch and leaf pages, and
values of more than half a page on overflow pages of their own.
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
_HEADER = struct.Struct("<QHHHH")  # page number, pad, flags, lower, upper; in overflow pages the last two are a count
_META = struct.Struct("<IIQQ 48s IHHQQQQQ QQ")
_NUMBER, _COUNT = struct.Struct("<Q"), struct.Struct("<I")
_NODE = struct.Struct("<HHHH")  # low and high half of a number, flags, length of the key
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 1, 2, 4, 8
_DIRTY = 16  # has no meaning in a file
_KINDS = {_BRANCH: "a branch page", _LEAF: "a leaf page", _OVERFLOW: "an overflow page", _IS_META: "a meta page"}
_BIG = 1  # flag of a node: its value is on overflow pages; with other flags it is a database, or several values
_NOTHING = (1 << 64) - 1
_PAGE_SIZES = frozenset(1 << power for power in range(8, 17))
_DEEPEST = 32
_AHEAD = 1 << 15  # bytes read at a time where pages follow one another

_ASK = 2e-4  # seconds after which the size of a file in a memory map is asked for again


class Damage(ValueError):
    """What is wrong in the file, with the number of the page."""


class Meta(NamedTuple):
    """What the newer meta page says: the page size, and the tree of the records."""

    page_size: int
    root: int
    depth: int
    entries: int
    last_page: int


class DataFile:
    """An open data.mdb. The file is closed with the last reference to it: a scan holds one."""

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
        """The present size of the file."""
        return os.fstat(self._file).st_size

    def read(self, start: int, size: int) -> bytes:
        """The bytes from `start` on: `size` of them, or fewer at the end of the file."""
        return os.pread(self._file, size, start)

    def records(self, start: bytes | None = None) -> Iterator[tuple[bytes, memoryview]]:
        """Every (key, value) in key order from the first key >= `start` on; raises `Damage` and OSError."""
        return (_Scan(self) if self.map is None else _MapScan(self, self.map)).records(start)

    def _meta(self) -> Meta:
        """The newer of the two meta pages that are whole."""
        first = self._read_meta(0)
        second = self._read_meta(first[1].page_size if first else 4096)
        found = max((meta for meta in (first, second) if meta), key=lambda pair: pair[0], default=None)
        if found is None:
            raise Damage("neither page 0 nor page 1 is a meta page of LMDB")
        return found[1]

    def _read_meta(self, start: int) -> tuple[int, Meta] | None:
        """The number of the transaction, and what the meta page at this place says; None if it is no meta page."""
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
            raise Damage(f"its records are kept in a way that Caffe does not read (flags {flags:#x})")
        if root != _NOTHING and not 1 <= depth <= _DEEPEST:
            raise Damage(f"its tree has depth {depth}, expected 1 to {_DEEPEST}")
        return transaction, Meta(size, root, depth, entries, last)


class _Scan:
    """One pass over the records, with a window of the file of its own."""

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self.meta = file.meta
        self._window, self._start = b"", 0

    def records(self, start: bytes | None) -> Iterator[tuple[bytes, memoryview]]:
        """As `DataFile.records`."""
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
        """The leaf pages below a page, from the one on that may hold `start`."""
        page = self._page(number, _LEAF if depth == 1 else _BRANCH)
        if depth == 1:
            yield page, number
            return
        children: list[int] = []
        for index, at in enumerate(_places(page, number)):
            low, high, flags, length = _NODE.unpack_from(page, at)
            key = page[at + 8 : at + 8 + length].tobytes()
            if start is not None and index and key <= start:
                children.clear()  # `start` is not before this child; the first one has no key
            children.append(low | high << 16 | flags << 32)
        for child in children:
            yield from self._leaves(child, depth - 1, start)

    def _big(self, page: memoryview, number: int, flags: int, size: int, at: int) -> memoryview:
        """A value on overflow pages."""
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
        """The bytes of a page, or of `count` overflow pages, whose header must say what they are."""
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
        """The bytes from `start` on, fewer at the end of the file; reads ahead where they follow those before."""
        at = start - self._start
        if not 0 <= at <= len(self._window) - size:
            follows = 0 <= at <= len(self._window) + size
            self._window = self.file.read(start, max(size, _AHEAD) if follows else size)
            self._start, at = start, 0
        return memoryview(self._window)[at : at + size]


class _MapScan(_Scan):
    """One pass over the records in a memory map of the file."""

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
    """Where the nodes of a page begin."""
    _, _, _, lower, upper = _HEADER.unpack_from(page)
    if not 16 < lower <= upper <= len(page) or lower % 2:
        raise Damage(f"page {number}: its free space is from {lower} to {upper} of {len(page)} bytes")
    places: tuple[int, ...] = struct.unpack_from(f"<{(lower - 16) // 2}H", page, 16)
    if min(places) < upper or max(places) > len(page) - 8:
        raise Damage(f"page {number}: records begin at bytes {min(places)} to {max(places)}, expected {upper} or more")
    return places
