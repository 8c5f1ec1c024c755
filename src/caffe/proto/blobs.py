"""Converts between BlobProto and numpy arrays, as messages and as bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe.errors import FileError
from caffe.proto import caffe_pb2, wire

__all__ = ["blob_from_proto", "blob_to_proto", "decode", "encode", "fits", "has_diff"]

_PACKED = {5: "<f4", 6: "<f4", 8: "<f8", 9: "<f8"}  # data, diff, double_data, double_diff
_RAW = {10: 12, 11: 13}  # NVCaffe: raw_data_type and raw_data, raw_diff_type and raw_diff
_RAW_TYPES = ["<f8", "<f4", "<f2", "<i4", "<u4"]  # NVCaffe: DOUBLE, FLOAT, FLOAT16, INT, UINT


def blob_from_proto(proto: caffe_pb2.BlobProto, diff: bool = False) -> np.ndarray:
    """Return the array of a BlobProto message: float64 if it stores doubles, otherwise float32."""
    return decode(memoryview(proto.SerializeToString()), "BlobProto", diff)


def blob_to_proto(array: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    """Create a BlobProto with the array's shape and values. float64 arrays are stored as doubles."""
    return caffe_pb2.BlobProto.FromString(b"".join(encode(np.asarray(array), diff)))


def fits(stored: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a stored blob's shape equals `wanted`. Files of 2014 pad every shape to four axes with leading ones."""
    stored, wanted = tuple(stored), tuple(wanted)
    return stored == wanted or (len(stored) == 4 and stored == (1,) * (4 - len(wanted)) + wanted)


def has_diff(view: memoryview) -> bool:
    """Whether the bytes of a BlobProto contain a diff."""
    return any(field.number in (6, 9, 13) for field in wire.fields(view))


def decode(view: memoryview, what: str, diff: bool = False, copy: bool = True) -> np.ndarray:
    """Decode the array in the bytes of a BlobProto, in native byte order; `what` names it in errors.

    With `copy`, the array has its own memory; otherwise it can be a view of the bytes, possibly unaligned.

    Supports packed and unpacked numbers, doubles, the four legacy dimensions and NVCaffe's raw data. Half precision
    becomes float32. If the legacy dimensions and `shape` are both given, the legacy dimensions are used, as in Caffe's
    blob.cpp.
    """
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    numbers: dict[int, list[memoryview]] = {}
    raw_type = raw_data = None
    type_field = 11 if diff else 10
    for field in wire.fields(view):
        if field.kind == wire.VARINT:
            if field.number <= 4:
                legacy[field.number] = field.integer
            elif field.number == type_field:
                raw_type = field.integer
        elif field.number in _PACKED:
            numbers.setdefault(field.number, []).append(field.view)
        elif field.kind == wire.BYTES and field.number == 7:
            shape = _dims(field.view)
        elif field.kind == wire.BYTES and field.number == _RAW[type_field]:
            raw_data = field.view
    if legacy:
        shape = [legacy.get(axis, 0) for axis in (1, 2, 3, 4)]
    for number in (9, 6) if diff else (8, 5):
        if number in numbers:
            return _shaped(_array(numbers[number], _PACKED[number], what, copy), shape, what)
    if raw_data is not None:
        return _shaped(_raw(raw_data, raw_type or 0, what), shape, what)
    return _shaped(np.empty(0, np.float32), shape, what)


def encode(array: np.ndarray, diff: np.ndarray | None = None, double: bool | None = None) -> list[bytes | memoryview]:
    """Encode an array as the bytes of a BlobProto, in pieces. Contiguous arrays are not copied.

    `double` selects float64 or float32 storage; the default is the array's dtype.
    """
    double = array.dtype == np.float64 if double is None else double
    dims = b"".join(wire.varint(size) for size in array.shape)
    packed = wire.key(1, len(dims)) + dims
    shape: list[bytes | memoryview] = [wire.key(7, len(packed)) + packed] if dims else []
    data_field, diff_field = (8, 9) if double else (5, 6)
    numbers = _pack(data_field, array) + (_pack(diff_field, diff) if diff is not None else [])
    return shape + numbers if double else numbers + shape


def _pack(number: int, array: np.ndarray) -> list[bytes | memoryview]:
    flat = np.ascontiguousarray(array, dtype=_PACKED[number]).reshape(-1)
    return [wire.key(number, flat.nbytes), flat.data.cast("B")] if flat.size else []


def _array(runs: list[memoryview], dtype: str, what: str, copy: bool = True) -> np.ndarray:
    """Combine the numbers of packed runs and single values to an array."""
    run = runs[0] if len(runs) == 1 else memoryview(b"".join(runs))
    if len(run) % np.dtype(dtype).itemsize:
        raise FileError(f"{what}: {len(run)} bytes are not a whole number of {np.dtype(dtype).name} values")
    return np.frombuffer(run, dtype).astype(np.dtype(dtype).newbyteorder("="), copy=copy)


def _raw(run: memoryview, kind: int, what: str) -> np.ndarray:
    if kind >= len(_RAW_TYPES):
        raise FileError(f"{what}: raw_data_type {kind} is unknown, expected 0 to {len(_RAW_TYPES) - 1}")
    numbers = _array([run], _RAW_TYPES[kind], what)
    return numbers.astype(np.float64 if kind == 0 else np.float32, copy=False)


def _dims(view: memoryview) -> list[int]:
    """Read the dimensions of a BlobShape, packed or not."""
    dims: list[int] = []
    for field in wire.fields(view):
        if field.number == 1:
            dims += [field.integer] if field.kind == wire.VARINT else wire.varints(field.view)
    return dims


def _shaped(array: np.ndarray, shape: list[int] | None, what: str) -> np.ndarray:
    if shape is None:
        return array.reshape(()) if array.size == 1 else array
    if len(shape) > 32 or math.prod(size or 1 for size in shape) >= 1 << 63:
        raise FileError(f"{what}: no array has the shape {str(tuple(shape))[:100]}; the file is damaged")
    if array.size != math.prod(shape):
        raise FileError(
            f"{what}: shape {tuple(shape)} has {math.prod(shape)} numbers, but {array.size} are stored; "
            "the file is damaged, or uses a format that only the program that wrote it can read"
        )
    return array.reshape(shape)
