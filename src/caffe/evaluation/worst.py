"""Writes the worst mistakes as pictures into folders, and applies corrections: changed labels and removed records."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe.data import create_database, open_source
from caffe.data.databases.datum import DatumReader
from caffe.errors import DataError, FileError
from caffe.evaluation.judgement import Judgement
from caffe.opencv import cv2
from caffe.pictures.grid import grid, viewable, write_picture
from caffe.proto import files
from caffe.proto.caffe_pb2 import Datum

__all__ = ["INDEX", "Changes", "apply", "read_changes", "write_worst"]

INDEX = "index.csv"
_HEAD = ("picture", "backend", "database", "key", "label", "called", "loss")
_SHOWN = 128


def write_worst(folder: str | Path, judgement: Judgement, count: int, backend: str, database: str) -> list[str]:
    """Write the `count` items with the largest losses: FOLDER/CLASS/NAME.png, worst.png with all of them, and
    index.csv.

    Item number i must be record number i of the database. Returns text lines that describe the items.
    """
    top = Path(folder)
    if top.exists() and (not top.is_dir() or any(top.iterdir())):
        raise FileError(f'"{top}": already exists; give a folder that is new or empty')
    chosen = judgement.worst(count)
    taken = _records(backend, database, {int(number) for number in chosen}, len(judgement.labels))
    names = judgement.names
    rows: list[tuple[str, ...]] = []
    tiles, captions, told = [], [], []
    for each in names:
        (top / _folder(each)).mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(int(each) for each in chosen):
        key, image, label = taken[number]
        if label != judgement.labels[number]:
            raise DataError(
                f'"{database}": record {number} has the label {label}, but the net read another; is shuffle set?'
            )
        called, loss = int(judgement.answers[number]), float(judgement.losses[number])
        name = f"{_folder(names[label])}/{place + 1:04d}_looks_like_{_folder(names[called])}.png"
        pixels = viewable(image)
        times = max(1, _SHOWN // min(pixels.shape[:2]))
        shown = cv2.resize(pixels, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)
        write_picture(str(top / name), shown)
        text = key.decode("utf-8", "surrogateescape")
        rows.append((Path(name).name, backend, database, text, names[label], names[called], f"{loss:.4f}"))
        tiles.append(pixels)
        captions.append(f"{names[label]}: {names[called]} {loss:.1f}"[:30])
        told.append(f"{loss:7.3f}  {names[label]} called {names[called]}: {text}")
    write_picture(str(top / "worst.png"), grid(tiles, captions))
    _write_table(top / INDEX, rows)
    return told


def _folder(name: str) -> str:
    """Return the folder of a class."""
    return name.replace("/", "_")


def _records(backend: str, database: str, wanted: set[int], count: int) -> dict[int, tuple[bytes, np.ndarray, int]]:
    reader = DatumReader()
    found = {}
    with closing(open_source(backend, database)) as source, closing(source.scan()) as records:
        for number, (key, value) in enumerate(records):
            if number in wanted:
                image, label = reader(bytes(value))
                found[number] = (key, image, label)
    if len(found) < len(wanted):
        raise DataError(f'"{database}" has fewer records than the {count} items that were tested')
    return found


def _write_table(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_HEAD, *rows])
    with files.atomic(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class Changes:
    """Changes of a database: the new label of a key, or None to remove its record."""

    backend: str
    database: str
    labels: dict[str, str | None]


def read_changes(folder: str | Path, classes: Sequence[str]) -> list[Changes]:
    """Read the changes made to the pictures of `write_worst`: moved to another class folder, or removed.

    Raises FileError for folders that are not classes.
    """
    top = Path(folder)
    if not (top / INDEX).is_file():
        raise FileError(f'"{folder}": has no {INDEX}; expected a folder that `caffe test -worst N -o FOLDER` wrote')
    content = files.read_bytes(top / INDEX).decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(content)))
    folders = {_folder(name): name for name in classes}
    places = {path.name: path.parent.name for path in top.glob("*/*.png")}
    unknown = sorted(set(places.values()) - set(folders))
    if unknown:
        raise FileError(
            f'"{top / unknown[0]}": "{unknown[0]}" is not a class (they are: {", ".join(classes[:10])}); '
            "move the pictures into the folder of a class, or remove them"
        )
    there = {name: folders[place] for name, place in places.items()}
    found: dict[tuple[str, str], dict[str, str | None]] = {}
    for row in rows:
        now = there.get(row["picture"])
        if now != row["label"]:
            found.setdefault((row["backend"], row["database"]), {})[row["key"]] = now
    return [Changes(backend, database, labels) for (backend, database), labels in found.items()]


def apply(changes: Changes, classes: Sequence[str]) -> tuple[int, int, int]:
    """Write a database again with the changes; returns how many records were relabelled, removed, and remain."""
    relabelled = removed = 0
    pending = dict(changes.labels)
    with closing(open_source(changes.backend, changes.database)) as source:
        count = source.count()
        if count and sum(label is None for label in pending.values()) >= count:
            raise DataError(f'"{changes.database}": no record would remain')
        with (
            create_database(changes.backend, changes.database, overwrite=True) as writer,
            closing(source.scan()) as all_,
        ):
            for key, value in all_:
                text = key.decode("utf-8", "surrogateescape")
                if text not in pending:
                    writer.put(key, bytes(value))
                    continue
                label = pending.pop(text)
                if label is None:
                    removed += 1
                    continue
                datum = Datum.FromString(bytes(value))
                datum.label = classes.index(label)
                writer.put(key, datum.SerializeToString())
                relabelled += 1
            left = writer.count
    return relabelled, removed, left
