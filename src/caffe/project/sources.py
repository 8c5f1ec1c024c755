"""The sources of a project's examples: folders of pictures, a list of files, arrays."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caffe.data.streams.arrays import read_npz
from caffe.data.streams.images import read_image
from caffe.data.tools import datasets
from caffe.data.tools.picture_sets import PICTURE_SETS, cached
from caffe.errors import DataError, FileError, did_you_mean
from caffe.proto import files

__all__ = [
    "TRAIN",
    "VAL",
    "ArraySource",
    "Example",
    "FolderSource",
    "ListSource",
    "Source",
    "known_source",
    "names_part",
    "pair_of",
    "picture_columns",
    "read_table",
]

TRAIN, VAL = "train", "val"
_TRAIN_NAMES = ("train", "training")
_VAL_NAMES = ("val", "valid", "validation", "dev")
_TEST_NAMES = ("test", "testing")
_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"),
    *(".pgm", ".ppm", ".pnm", ".pbm", ".jp2"),
}
_LAYOUT = "expected a folder for each class with its pictures, or train/ and val/ with these inside"


@dataclass(frozen=True)
class Example:
    """A picture: its name for messages and keys, its class, its part if given, and its group.

    Examples with the same group, such as pictures of one object, are kept in one part.
    """

    name: str
    label: str
    part: str = ""
    group: str = ""
    index: int = 0


@dataclass
class Source(ABC):
    """Examples that can be read, and notes about what was skipped."""

    examples: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @abstractmethod
    def read(self, example: Example) -> np.ndarray:
        """Read the pixels of an example, (H, W, 3) in BGR order or (H, W). Raises DataError if it cannot be read."""


class _Files(Source):
    """Examples stored as files."""

    def path(self, example: Example) -> str:
        """Return the file of an example."""
        return example.name

    def read(self, example: Example) -> np.ndarray:
        path = self.path(example)
        pixels = read_image(path)
        with open(path, "rb") as file:
            if _cut_off(file.read()):
                raise DataError("is cut off: the end of the picture is missing")
        return pixels


class FolderSource(_Files):
    """Pictures in folders: a folder for each class, with any subfolders, or such folders in train/ and val/.

    `group` is "folder", so that each subfolder of a class is a group, or a regular expression that is searched in the
    path of a picture; its first group (or the whole match) is the name of the picture's group. Links are followed, once
    each. Names that look the same are one class, because macOS and other systems encode an umlaut differently.
    """

    def __init__(self, folder: str | Path, group: str = "") -> None:
        super().__init__()
        self.group = _group_rule(group)
        top = _outermost(Path(folder))
        parts = _parts(top)
        if TRAIN not in parts:
            self._take(top, "")
        for part, inner in parts.items():
            self._take(inner, part)
        if "unused" in parts:
            self.examples = [each for each in self.examples if each.part != "unused"]
            self.notes.append(f"{parts['unused']}: not used, as there is a folder for validation; keep it for the end")
        if not self.examples:
            raise FileError(f'"{folder}": has no pictures in folders; {_LAYOUT}')

    def _take(self, top: Path, part: str) -> None:
        """Add the pictures of the class folders in `top`."""
        loose = sum(entry.is_file() and _is_picture(entry.name) for entry in _entries(top))
        classes = [entry.name for entry in _entries(top) if entry.is_dir()]
        if loose:
            self.notes.append(f"{top}: {loose} pictures outside the class folders are left out")
        if loose and not classes:
            raise FileError(f'"{top}": has {loose} pictures and no folders; {_LAYOUT}')
        others = 0
        for label in classes:
            before = len(self.examples)
            others += self._take_class(top / label, unicodedata.normalize("NFC", label), part)
            if len(self.examples) == before:
                self.notes.append(f"{top / label}: has no pictures, so it is not a class")
        if others:
            self.notes.append(f"{top}: {others} files that are not pictures are left out")

    def _take_class(self, folder: Path, label: str, part: str) -> int:
        """Add the pictures of a class; returns the number of other files."""
        others, seen = 0, set()
        for inner, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
            real = os.path.realpath(inner)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not _hidden(name))
            for name in sorted(names):
                if _hidden(name):
                    continue
                if not _is_picture(name):
                    others += 1
                    continue
                path = os.path.join(inner, name)
                self.examples.append(Example(path, label, part, self._group(path, folder)))
        return others

    def _group(self, path: str, folder: Path) -> str:
        inner = os.path.relpath(path, folder)
        if self.group == "folder":
            outer = os.path.dirname(inner)
            return f"{folder}/{outer}" if outer else ""
        if isinstance(self.group, re.Pattern) and (match := self.group.search(os.path.join(folder.name, inner))):
            return match[1] if match.re.groups else match[0]
        return ""


class ListSource(_Files):
    """Pictures named in a table (CSV) with a column of files, one of labels, and optionally "split" and "group".

    Names are relative to `root`, by default the folder of the table. The columns are found by their titles; a table
    without titles has the file first and the label second.
    """

    def __init__(self, path: str | Path, root: str | Path = "") -> None:
        super().__init__()
        self.root = str(root or Path(path).parent)
        rows = read_table(path)
        columns = picture_columns(rows[0][1])
        body = rows[1:] if columns else rows
        columns = columns or {"file": 0, "label": 1}
        for line, cells in body:
            self.examples.append(self._example(f"{path}:{line}", cells, columns))
        if not self.examples:
            raise FileError(f"{path}: names no pictures; expected lines of file,label")

    def _example(self, place: str, cells: list[str], columns: dict[str, int]) -> Example:
        if len(cells) <= max(columns.values()):
            raise FileError(f"{place}: has {len(cells)} columns, expected {max(columns.values()) + 1}")
        value = {name: cells[column].strip() for name, column in columns.items()}
        if not value["file"] or not value["label"]:
            raise FileError(f"{place}: the {'label' if value['file'] else 'file'} is empty")
        return Example(value["file"], value["label"], _part(value.get("split", ""), place), value.get("group", ""))

    def path(self, example: Example) -> str:
        return os.path.join(self.root, example.name)


class ArraySource(Source):
    """Pictures in arrays (N, H, W), (N, H, W, C) in RGB order, or (N, C, H, W), uint8 or in 0 .. 1, with labels (N)."""

    def __init__(self, images: np.ndarray, labels: Sequence[object], parts: Sequence[str] = (), name: str = "") -> None:
        super().__init__()
        self.images = _as_pictures(images, name)
        if len(labels) != len(images):
            raise DataError(f'"{name}" has {len(images)} images and {len(labels)} labels')
        parts = parts or [""] * len(images)
        width = max((len(str(label)) for label in labels), default=0)
        whole = all(str(label).lstrip("-").isdigit() for label in labels)
        self.examples = [
            Example(f"{name}[{index}]", str(label).zfill(width) if whole else str(label), part, "", index)
            for index, (label, part) in enumerate(zip(labels, parts, strict=True))
        ]

    @classmethod
    def from_npz(cls, path: str) -> ArraySource:
        """Read the arrays of an .npz file: images as "images", "x" or "data", labels as "labels" or "y"."""
        pixels, classes = read_npz(path, list(pair_of(path)))
        return cls(np.asarray(pixels), [value.item() for value in np.asarray(classes).ravel()], name=path)

    def read(self, example: Example) -> np.ndarray:
        image = self.images[example.index]
        if image.dtype != np.uint8:
            top = 255 if self.images.max() <= 1 else 1
            image = np.clip(np.rint(image * top), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(image[..., 2::-1]) if image.ndim == 3 else image


def pair_of(path: str) -> tuple[str, str]:
    """Return the names of the arrays of examples and of labels in an .npz file; the usual names if there are none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file) if not isinstance(file, np.ndarray) else []
    except Exception:
        names = []  # reading the file later reports the error
    lower = {name.lower(): name for name in names}
    examples, labels = (
        next((lower[name] for name in known if name in lower), known[0])
        for known in (("images", "x", "data", "x_train"), ("labels", "y", "label", "target", "y_train"))
    )
    return examples, labels


def known_source(name: str) -> Source:
    """Return the pictures of a known data set. Its test part is used for validation."""
    known = datasets.KNOWN
    if name in PICTURE_SETS:
        return FolderSource(cached(name))
    if name not in known:
        names = (*known, *PICTURE_SETS)
        raise DataError(f'unknown data set "{name}"{did_you_mean(name, names)} (known: {", ".join(names)})')
    parts = datasets.pictures(name)
    train, val = parts["train"], parts["test"]
    labels = [known[name].classes[int(number)] for _, numbers in (train, val) for number in numbers]
    images = np.concatenate([train[0], val[0]])
    images = images.transpose(0, 2, 3, 1)[..., ::-1] if images.ndim == 4 else images
    return ArraySource(images, labels, [TRAIN] * len(train[1]) + [VAL] * len(val[1]), name)


def _as_pictures(images: np.ndarray, name: str) -> np.ndarray:
    """Convert images to (N, H, W) or (N, H, W, 3)."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (3, 4)) or not images.size:
        raise DataError(f'"{name}": images have the shape {images.shape}; expected (N, H, W) or (N, H, W, 3)')
    return images


def read_table(path: str | Path) -> list[tuple[int, list[str]]]:
    """Return the non-empty rows of a table with their line numbers.

    Columns are separated by , ; tabs or the last space.
    """
    content = files.read_bytes(path).decode("utf-8-sig", "surrogateescape")
    first = content.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    if mark in first:
        reader = csv.reader(content.splitlines(), delimiter=mark)
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    else:  # a list in the format of convert_imageset: "name label"
        rows = [(line, text.rsplit(maxsplit=1)) for line, text in enumerate(content.splitlines(), 1) if text.strip()]
    if not rows:
        raise FileError(f"{path}: is empty; expected a table with a line for each example")
    return rows


def picture_columns(heads: Sequence[str]) -> dict[str, int]:
    """Return the columns for files and labels that a first line names; empty if it names none."""
    head = [cell.strip().lower() for cell in heads]
    names = {
        "file": ("file", "filename", "path", "image", "image_path", "filepath", "picture", "name"),
        "label": ("label", "class", "category", "target"),
        "split": ("split", "part", "set", "subset"),
        "group": ("group", "series"),
    }
    found = {kind: head.index(name) for kind, known in names.items() for name in reversed(known) if name in head}
    return found if {"file", "label"} <= set(found) else {}


def _part(text: str, place: str) -> str:
    part = names_part(text)
    if text and not part:
        hint = did_you_mean(text.lower(), (*_TRAIN_NAMES, *_VAL_NAMES))
        raise FileError(f'{place}: unknown split "{text}"{hint}; expected train or val')
    return part


def names_part(text: str) -> str:
    """The part that a word names; empty if it names none."""
    word = text.lower()
    parts = ((TRAIN, _TRAIN_NAMES), (VAL, (*_VAL_NAMES, *_TEST_NAMES)))
    return next((part for part, names in parts if word in names), "")


def _outermost(folder: Path) -> Path:
    """Return the folder with the class folders. A folder that contains only one folder, as archives do, is skipped."""
    if not folder.is_dir():
        fact = "is a file" if folder.exists() else "no such folder"
        raise FileError(f'"{folder}": {fact} (from {os.getcwd()}); {_LAYOUT}')
    while True:
        entries = list(_entries(folder))
        inner = [Path(entry.path) for entry in entries if entry.is_dir()]
        if len(inner) != 1 or any(_is_picture(entry.name) for entry in entries):
            return folder
        if not any(entry.is_dir() for entry in _entries(inner[0])) or inner[0].name.lower() in _TRAIN_NAMES:
            return folder
        if any(entry.is_file() and _is_picture(entry.name) for entry in _entries(inner[0])):
            return folder
        folder = inner[0]


def _parts(top: Path) -> dict[str, Path]:
    """Return the folders of the parts; test/ is used if there is no val/."""
    found: dict[str, Path] = {}
    known = {TRAIN: _TRAIN_NAMES, VAL: _VAL_NAMES, "test": _TEST_NAMES}
    folders = {entry.name.lower(): Path(entry.path) for entry in _entries(top) if entry.is_dir()}
    for part, names in known.items():
        for name in names:
            if name in folders:
                found.setdefault(part, folders[name])
    if TRAIN not in found:
        return {}
    if "test" in found:
        test = found.pop("test")
        found["unused" if VAL in found else VAL] = test
    extra = sorted(set(folders.values()) - set(found.values()))
    if extra:
        raise FileError(f'"{top}": has the folder "{found[TRAIN].name}" and beside it "{extra[0].name}"; {_LAYOUT}')
    return {part: found[part] for part in (TRAIN, VAL, "unused") if part in found}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        yield from sorted((entry for entry in os.scandir(folder) if not _hidden(entry.name)), key=lambda e: e.name)
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> None:
    raise FileError(f'cannot read the folder "{error.filename}": {error.strerror}') from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _group_rule(text: str) -> str | re.Pattern[str]:
    if text in ("", "folder"):
        return text
    try:
        return re.compile(text)
    except re.error as error:
        raise DataError(f'-group "{text}": not a regular expression: {error}') from error


def _cut_off(data: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing; decoders would fill it with grey."""
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data[:4] == b"\x89PNG" and b"IEND" not in data[-64:] and b"IEND" not in data
