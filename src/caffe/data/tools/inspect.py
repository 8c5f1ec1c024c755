"""Inspects a database: summary, damaged records, export of its images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffe.data.databases.annotated import AnnotatedReader, annotated, annotated_record
from caffe.data.databases.base import READERS, RecordSource, open_source, show_key
from caffe.data.databases.datum import DatumReader, compression
from caffe.data.pipeline.pool import ordered
from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto.caffe_pb2 import Datum

__all__ = ["Survey", "detect", "entries", "export", "survey"]


@dataclass
class Survey:
    """Summary of a database. `shapes` counts (channels, height, width); `kinds` counts raw, float and compressed
    images.
    """

    count: int = 0
    size: int = 0
    keys: tuple[bytes, bytes] = (b"", b"")
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)


@dataclass
class Entry:
    """A record: its bytes, and its image and label, or the error if it cannot be decoded."""

    key: bytes
    value: bytes
    image: np.ndarray | None = None
    label: Any = 0  # a number, or the boxes (M, 7) of an AnnotatedDatum
    error: str = ""

    @property
    def kind(self) -> str:
        """How the image is stored."""
        datum = self.datum
        if datum.encoded:
            return compression(datum.data)
        return "raw" if datum.data else "float"

    @property
    def datum(self) -> Datum:
        """The Datum message of the image."""
        return annotated_record(self.value)[0] if annotated(self.value) else Datum.FromString(self.value)

    @property
    def labels(self) -> list[int]:
        """The label of the image, or the labels of its boxes."""
        return [int(row[0]) for row in self.label] if isinstance(self.label, np.ndarray) else [self.label]


def detect(path: str) -> RecordSource:
    """Open the database at `path` with the backend that it fits, or else as an LMDB."""
    fitting = [name for name in READERS.names() if READERS.find(name).fits(path)]
    return open_source(fitting[0] if fitting else "LMDB", path)


def entries(source: RecordSource, most: int | None = None) -> Iterator[Entry]:
    """Yield the first `most` records, decoded in parallel. A record that cannot be decoded has an `error`."""
    plain, boxed = DatumReader(), AnnotatedReader()

    def read(record: tuple[bytes, bytes]) -> Entry:
        try:
            return Entry(*record, *(boxed if annotated(record[1]) else plain)(record[1]))
        except DataError as error:
            return Entry(*record, error=str(error))

    with closing(source.scan()) as records:
        chosen = ((key, bytes(value)) for number, (key, value) in zip(_numbers(most), records, strict=False))
        yield from ordered(read, chosen)


def survey(source: RecordSource, progress: Callable[[int], None]) -> Survey:
    """Read all records. `progress` is called with the number of records so far."""
    found = Survey()
    try:
        for entry in entries(source):
            found.keys = (found.keys[0] if found.count else entry.key, entry.key)
            found.count += 1
            found.size += len(entry.value)
            if entry.image is None:
                found.damaged.append(f"record {show_key(entry.key)} {entry.error}")
            else:
                found.shapes[entry.image.shape] += 1
                found.kinds[entry.kind] += 1
                found.labels.update(entry.labels)
            progress(found.count)
    except DataError as error:  # an error of the database: later records cannot be read
        found.damaged.append(str(error))
    return found


def export(source: RecordSource, folder: Path, progress: Callable[[int], None]) -> int:
    """Write each image to a file in a new folder, with a list.txt for convert_imageset; returns the number of images.

    Boxes are written to one text file per image, and list.txt is then for convert_annoset.

    A compressed image keeps its bytes; raw pixels become .png; floats and other channel counts become .npy.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise FileError(f'cannot make the folder "{folder}": {error.strerror}; choose a new folder') from error
    count = 0
    with open(folder / "list.txt", "w", encoding="utf-8") as lines:
        for count, entry in enumerate(entries(source), 1):
            if entry.image is None:
                raise DataError(f'"{source.path}": record {show_key(entry.key)} {entry.error}')
            suffix, content = _file_of(entry)
            stem = re.sub(r"[^\w.-]+", "_", entry.key.decode("utf-8", "replace")).removesuffix(f".{suffix}")
            name = f"{stem}.{suffix}"
            if (folder / name).exists():  # keys that differ only in special characters
                name = f"{stem}-{count}.{suffix}"
            (folder / name).write_bytes(content)
            lines.write(f"{name} {_label_of(entry, folder, name)}\n")
            progress(count)
    return count


def _label_of(entry: Entry, folder: Path, name: str) -> str:
    """Return the label of an image, or the file its boxes were written to, for -label_type=txt of convert_annoset."""
    if not isinstance(entry.label, np.ndarray):
        return str(entry.label)
    assert entry.image is not None
    height, width = entry.image.shape[1:]
    rows = entry.label[:, 2:6] * np.array([width, height] * 2, np.float32)
    lines = [f"{int(label)} {' '.join(f'{x:g}' for x in row)}\n" for label, row in zip(entry.labels, rows, strict=True)]
    (folder / f"{name}.txt").write_text("".join(lines))
    return f"{name}.txt"


def _file_of(entry: Entry) -> tuple[str, bytes]:
    image = entry.image
    assert image is not None
    kind = entry.kind
    if kind not in ("raw", "float"):
        return kind, entry.datum.data
    if kind == "raw" and len(image) in (1, 3):
        return "png", cv2.imencode(".png", np.ascontiguousarray(image.transpose(1, 2, 0)))[1].tobytes()
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, image)
    return "npy", buffer.getvalue()


def _numbers(most: int | None) -> Iterator[int]:
    from itertools import count

    return iter(range(most)) if most is not None else count()
