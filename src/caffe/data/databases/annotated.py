"""AnnotatedDatum records of SSD: an image and the boxes of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from caffe.data.databases.base import Bytes
from caffe.data.databases.datum import DatumReader
from caffe.errors import DataError
from caffe.proto.caffe_pb2 import AnnotatedDatum, Datum

__all__ = ["AnnotatedReader", "LabelReader", "annotated", "annotated_record", "encode_boxes", "typed"]

_DATUM = b"\x0a"  # first byte of the field `datum`, which writers put first


class AnnotatedReader:
    """Decodes the bytes of an AnnotatedDatum to its image (C, H, W) and its boxes.

    Boxes are rows (M, 7) of float32: label, instance, xmin, ymin, xmax, ymax, difficult. The bytes of the image are not
    parsed here, but passed to a `DatumReader`.
    """

    def __init__(self, color: bool | None = None, split: bool = True) -> None:
        self.read = DatumReader(color, split)

    def __call__(self, value: Bytes) -> tuple[np.ndarray, np.ndarray]:
        image, rest = _parted(value)
        return self.read(image)[0], _rows(rest)

    def knows(self, value: Bytes) -> bool:
        """Whether this value can be decoded at almost no cost, so that no thread is needed. Parses no boxes."""
        try:
            place, end = _span(value)
        except (DecodeError, IndexError):
            return False  # decoding it reports the error
        return end > 0 and self.read.knows(value[place:end])


class LabelReader(AnnotatedReader):
    """Like `AnnotatedReader`, but returns the label of the Datum instead of boxes.

    For records without an annotation type.
    """

    def __call__(self, value: Bytes) -> tuple[np.ndarray, Any]:  # type: ignore[override]
        return self.read(_parted(value)[0])


def typed(value: Bytes) -> bool:
    """Whether a record states that its annotations are boxes."""
    return _parted(value)[1].HasField("type")


def annotated(value: Bytes) -> bool:
    """Whether a record is an AnnotatedDatum and not a Datum. Tested by its first field, which is a message."""
    return bytes(value[:1]) == _DATUM


def annotated_record(value: Bytes) -> tuple[Datum, np.ndarray]:
    """Return the Datum and the boxes (M, 7) of a record."""
    image, rest = _parted(value)
    try:
        return Datum.FromString(bytes(image)), _rows(rest)
    except DecodeError as error:
        raise DataError("is not an AnnotatedDatum message; write the database again with convert_annoset") from error


def encode_boxes(datum: Datum, rows: Sequence[Sequence[float]]) -> bytes:
    """Encode an AnnotatedDatum whose boxes (label, instance, xmin, ymin, xmax, ymax, difficult) are grouped by label.

    The groups are in the order in which their labels first occur.
    """
    result = AnnotatedDatum(datum=datum, type=AnnotatedDatum.BBOX)
    groups: dict[int, Any] = {}
    for label, instance, xmin, ymin, xmax, ymax, difficult in rows:
        group = groups.get(int(label))
        if group is None:
            group = groups[int(label)] = result.annotation_group.add(group_label=int(label))
        box = group.annotation.add(instance_id=int(instance)).bbox
        box.xmin, box.ymin, box.xmax, box.ymax, box.difficult = xmin, ymin, xmax, ymax, bool(difficult)
    return result.SerializeToString()


def _parted(value: Bytes) -> tuple[Bytes, AnnotatedDatum]:
    """Return the bytes of the Datum in a record, and the record without them."""
    try:
        place, end = _span(value)
        if end:
            return value[place:end], AnnotatedDatum.FromString(bytes(value[end:]))
        whole = AnnotatedDatum.FromString(bytes(value))
    except (DecodeError, IndexError) as error:
        raise DataError("is not an AnnotatedDatum message; write the database again with convert_annoset") from error
    if not whole.HasField("datum"):
        raise DataError("has no image: AnnotatedData reads databases of convert_annoset, Data those of Datum")
    return whole.datum.SerializeToString(), whole


def _span(value: Bytes) -> tuple[int, int]:
    """Return where the Datum begins and ends, if it is the first field of the record; else (0, 0).

    Raises `DecodeError` or `IndexError` for a record that is cut off.
    """
    if bytes(value[:1]) != _DATUM:
        return 0, 0
    size, place = 0, 1
    while True:  # a varint: groups of 7 bits, the lowest first
        byte = value[place]
        size |= (byte & 127) << 7 * (place - 1)
        place += 1
        if byte < 128:
            break
    if place + size > len(value):
        raise DecodeError("truncated")
    return place, place + size


def _rows(record: AnnotatedDatum) -> np.ndarray:
    """Return the boxes (M, 7) of a record."""
    flat: list[float] = []  # numpy reads one flat list faster than a list of rows
    for group in record.annotation_group:
        label = group.group_label
        for each in group.annotation:
            box = each.bbox
            flat += label, each.instance_id, box.xmin, box.ymin, box.xmax, box.ymax, box.difficult
    return np.array(flat, np.float32).reshape(-1, 7)
