"""Reads and writes the array "data" of MATLAB files, as DeepLab's layers keep blobs in them.

A MAT-file of level 5 has a header of 128 bytes, then elements: a type, a size, and content up to a multiple of 8 bytes.
An array is an element of the type MATRIX, perhaps in an element COMPRESSED; it holds flags with the class, sizes, a
name and the numbers, the first axis fastest. The axes are those of the blob in reverse, so the order stays.
Source: MathWorks, MAT-File Format.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from caffe.proto import files

__all__ = ["read_array", "write_array"]

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {np.dtype(np.float64): (6, 9), np.dtype(np.float32): (7, 7)}
"""Type -> its class as an array, and its type as an element."""
_NUMERIC = range(6, 16)
"""The classes of arrays of numbers."""
_COMPLEX = 0x800
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEADER = 128


def write_array(path: str, x: np.ndarray) -> None:
    """Write the float array `x` as "data"; its last axis becomes MATLAB's first."""
    kind, number = _CLASSES[x.dtype]
    sizes = struct.pack(f"<{x.ndim}i", *reversed(x.shape))
    numbers = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("<"), copy=False).tobytes()
    parts = [(_UINT32, struct.pack("<II", kind, 0)), (_INT32, sizes), (_INT8, b"data"), (number, numbers)]
    array = b"".join(_packed(*part) for part in parts)
    with files.atomic(path) as file:
        file.write(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM")
        file.write(_packed(_MATRIX, array))


def _packed(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def read_array(path: str) -> np.ndarray:
    """The array "data" of a MATLAB file, MATLAB's first axis last. Raises ValueError or OSError."""
    with open(path, "rb") as file:
        content = file.read()
    if _HDF5 in (content[:8], content[512:520]):
        import h5py

        with h5py.File(path) as hdf5:
            if not isinstance(hdf5.get("data"), h5py.Dataset):
                raise ValueError('has no array "data"')
            return hdf5["data"][()]
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None:
        raise ValueError("is not a MATLAB file of version 5 or later")
    try:
        return _find(content[_HEADER:], order)
    except (struct.error, zlib.error, IndexError, KeyError) as error:
        raise ValueError(f"is damaged ({os.path.getsize(path)} bytes)") from error


def _find(content: bytes, order: str) -> np.ndarray:
    for kind, part in _elements(content, order):
        if kind == _COMPRESSED:
            kind, part = next(_elements(zlib.decompress(part), order))
        if kind == _MATRIX:
            inner = list(_elements(part, order))
            if inner[2][1] == b"data":
                return _array(inner, order)
    raise ValueError('has no array "data"')


def _array(parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    flags = struct.unpack(f"{order}I", parts[0][1][:4])[0]
    if (flags & 0xFF) not in _NUMERIC or flags & _COMPLEX:
        raise ValueError('has an array "data" that does not contain real numbers')
    sizes = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    numbers = np.frombuffer(parts[3][1], order + _NUMBERS[parts[3][0]])
    return numbers.reshape(sizes[::-1])


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element. Of a small one both sizes are 16 bits wide and the content 4 bytes."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:
            yield kind & 0xFFFF, content[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + size > len(content):
            raise struct.error
        yield kind, content[at + 8 : at + 8 + size]
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)
