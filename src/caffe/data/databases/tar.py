"""Shards of images in tar archives, in the layout of WebDataset: `key.jpg` and `key.cls` side by side."""

from __future__ import annotations

import io
import os
import re
import tarfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from json import loads

import numpy as np

from caffe import log
from caffe.data.databases.annotated import annotated
from caffe.data.databases.base import Records, RecordSource, WrongBackend, show_key
from caffe.data.databases.datum import compression
from caffe.data.databases.tar_file import Damage, Member, TarFile
from caffe.data.databases.writer import Pending, RecordWriter
from caffe.errors import DataError, FileError
from caffe.opencv import cv2
from caffe.proto import files
from caffe.proto.caffe_pb2 import Datum

__all__ = ["IMAGES", "Tar", "TarWriter", "is_shards"]

IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "pgm", "ppm"))
_LABELS = ("cls", "json", "txt")  # the first that a sample has
_FIELDS = ("label", "cls")  # of an object in a .json
_LONGEST = 1 << 20  # bytes of a label's file
_MOST = 100_000  # shards of a pattern
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_NUMBERED = 10  # digits of a record's number in its key


class Tar(RecordSource, backend="TAR"):
    """The samples of one or several uncompressed tar archives, in the order of the archives.

    The path is an archive, a pattern such as `train-{000..009}.tar` or `{a,b}.tar`, or a folder of .tar files, which
    are read in the order of their names. A sample consists of adjacent members with the same name up to the first dot:
    an image (.jpg, .png, ...), and its label as a whole number in .cls, in .json (a number, or an object with "label"
    or "cls") or in .txt. Other members are ignored.

    Opening reads all headers and labels once. Records are then read at any position, as Datums of compressed images.
    Their keys are the number of the sample, the archive and the sample's name.
    """

    @classmethod
    def fits(cls, path: str) -> bool:
        return is_shards(path)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._paths = expanded(path)
        self._closed = False
        self._names, self._ends = bytearray(), array("Q")  # all names joined, and where each ends
        self._places, self._sizes, self._labels = array("Q"), array("Q"), array("l")
        self._firsts: list[int] = []  # number of the first sample of each shard
        for shard in self._paths:
            self._firsts.append(len(self._places))
            self._read_index(shard)
        log.info("data_layer.cpp", f"Opened {len(self._paths)} tar {_shards(self._paths)} of {self.count()} images")

    def count(self) -> int:
        return len(self._places)

    def scan(self, start: bytes | None = None) -> Records:
        if self._closed:
            raise FileError(f'tar shards "{self.path}" have been closed; build the net again to read on')
        number = 0 if start is None else bisect_left(range(self.count()), start, key=self._key)
        opened, shard = None, -1
        while number < self.count():
            found = bisect_right(self._firsts, number) - 1
            path = self._paths[found]
            try:
                if opened is None or found != shard:
                    opened, shard = TarFile(path), found
                image = opened.read(self._places[number], self._sizes[number])
            except (Damage, OSError) as error:
                fact = f'tar shard "{path}" has changed since it was opened: {error}'
                raise DataError(f"{fact}; build the net again") from error
            datum = Datum(data=image, label=self._labels[number], encoded=True)
            yield self._key(number), datum.SerializeToString()
            number += 1

    def close(self) -> None:
        self._closed = True

    def _key(self, number: int) -> bytes:
        shard = os.path.basename(self._paths[bisect_right(self._firsts, number) - 1])
        begin = self._ends[number - 1] if number else 0
        return b"%0*d_%s/" % (_NUMBERED, number, os.fsencode(shard)) + self._names[begin : self._ends[number]]

    def _read_index(self, path: str) -> None:
        """Add the samples of a shard. Raises FileError with the shard's name and the byte of the fault."""
        try:
            files.refuse_special(path)
            file = TarFile(path)
            if not file.size:
                raise Damage("the file is empty")
            for name, members in groupby(file.members(), lambda member: _parted(member.name)[0]):
                sample = _sample(name, list(members), file) if name else None
                if sample is not None:
                    image, label = sample
                    self._names += os.fsencode(name)
                    self._ends.append(len(self._names))
                    self._places.append(image.data)
                    self._sizes.append(image.size)
                    self._labels.append(label)
            if len(self._places) == self._firsts[-1]:
                raise Damage("it holds no images with labels, named like 000001.jpg and 000001.cls")
        except OSError as error:
            raise FileError(f'tar shard "{path}" cannot be read: {files.reason(error)} (from {os.getcwd()})') from error
        except Damage as error:
            raise FileError(f'tar shard "{path}": {error}; {_way_out(error)}') from error


class TarWriter(RecordWriter, backend="TAR"):
    """Creates a folder of shards 000000.tar, 000001.tar, ..., as described in `RecordWriter`.

    Each shard holds up to `shard` images as `key.jpg` and `key.cls`. Compressed images keep their bytes; raw ones are
    compressed as PNG, which keeps their pixels.
    """

    shard = 10_000

    def _open(self, folder: str) -> None:
        self._target = folder
        self._archive: tarfile.TarFile | None = None
        self._written = 0
        self._used: set[str] = set()

    def _write(self, records: Pending) -> None:
        for key, value in records:
            name, (kind, image, label) = self._named(key), _parts(key, value)
            try:
                if self._written % self.shard == 0:
                    self._close()
                    path = os.path.join(self._target, f"{self._written // self.shard:06d}.tar")
                    self._archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `_close` does
                assert self._archive is not None
                _add(self._archive, f"{name}.{kind}", image)
                _add(self._archive, f"{name}.cls", str(label).encode())
            except OSError as error:
                raise self._refused(error) from error
            self._written += 1

    def _close(self) -> None:
        archive, self._archive = self._archive, None
        if archive is not None:
            try:
                archive.close()
            except OSError as error:
                raise self._refused(error) from error

    def _named(self, key: bytes) -> str:
        """Return the sample's name: the key without the ending of an image, and without dots or leading slashes."""
        text = os.fsdecode(key)
        stem, dot, ending = text.rpartition(".")
        text = stem if dot and ending.lower() in IMAGES else text
        name = re.sub(r"/{2,}", "/", text.replace(".", "_")).strip("/") or "_"
        if name in self._used:
            raise FileError(f'tar shards "{self.path}": two records would be named "{name}"; rename one of the images')
        self._used.add(name)
        return name

    def _refused(self, error: OSError) -> FileError:
        return FileError(f'cannot write to tar shards "{self.path}": {files.reason(error)}')


def is_shards(path: str) -> bool:
    """Whether a path names tar shards, and not another database."""
    if os.path.isdir(path):
        names = os.listdir(path)
        return "data.mdb" not in names and "CURRENT" not in names and any(name.endswith(".tar") for name in names)
    return path.endswith(".tar")


def expanded(path: str) -> list[str]:
    """Return the shards that a path names, in order. Raises FileError if one does not exist."""
    if os.path.isdir(path):
        for name, backend in (("data.mdb", "LMDB"), ("CURRENT", "LEVELDB")):
            if os.path.exists(os.path.join(path, name)):
                raise WrongBackend(f'"{path}" is an {backend} database, not a folder of tar shards', backend)
        found = sorted(entry.path for entry in os.scandir(path) if entry.name.endswith(".tar"))
        if not found:
            raise FileError(f'the folder "{path}" holds no .tar file; expected shards such as 000000.tar')
        return found
    found = [path] if os.path.exists(path) else list(_alternatives(path, path))
    missing = [shard for shard in found if not os.path.exists(shard)]
    if missing:
        count = "" if found == [path] else f" ({len(missing)} of the {len(found)} shards of the pattern are missing)"
        raise FileError(
            f'tar shard "{missing[0]}" not found{count}: no such file or directory (from {os.getcwd()}); correct '
            "data_param.source, or write shards with: caffe convert_imageset -backend=tar"
        )
    return found


def _alternatives(pattern: str, whole: str) -> Iterator[str]:
    """Yield the names that a pattern with braces stands for, the last braces counting fastest."""
    braces = _BRACES.search(pattern)
    if braces is None:
        if "{" in pattern or "}" in pattern:
            raise FileError(f'tar shards "{whole}": unbalanced braces; expected {{000..009}} or {{a,b}}')
        yield pattern
        return
    begin, end = pattern[: braces.start()], pattern[braces.end() :]
    for choice in _choices(braces[1], whole):
        for rest in _alternatives(end, whole):
            yield begin + choice + rest


def _choices(text: str, whole: str) -> Iterable[str]:
    if "," in text:
        return text.split(",")
    numbers = _RANGE.fullmatch(text)
    if numbers is None:
        raise FileError(f'tar shards "{whole}": {{{text}}} is not a valid pattern; expected {{000..009}} or {{a,b}}')
    first, last = int(numbers[1]), int(numbers[2])
    if not first <= last < first + _MOST:
        raise FileError(
            f'tar shards "{whole}": {{{text}}} is not a valid range; expected ascending numbers, at most {_MOST} shards'
        )
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return (f"{number:0{width}d}" for number in range(first, last + 1))


def _parted(name: str) -> tuple[str, str]:
    """Return the name up to the first dot of its last part, and the rest in lower case; empty if there is no dot."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, kind = base.partition(".")
    return (folder + slash + stem, kind.lower()) if stem and dot else ("", "")


def _sample(name: str, members: list[Member], file: TarFile) -> tuple[Member, int] | None:
    """Return the image and the label of a sample, or None if the members are something else."""
    kinds: dict[str, Member] = {}
    for member in members:
        kind = _parted(member.name)[1]
        if kind in kinds:
            raise Damage(f'byte {member.header}: "{member.name}" is the second {kind} of "{name}"')
        kinds[kind] = member
    images = [member for kind, member in kinds.items() if kind in IMAGES]
    labels = [kinds[kind] for kind in _LABELS if kind in kinds]
    if len(images) > 1:
        raise Damage(f'byte {images[1].header}: "{name}" has two images, "{images[0].name}" and "{images[1].name}"')
    if images and not labels:
        place = f'byte {images[0].header}: image "{images[0].name}"'
        raise Damage(f"{place} has no label; expected {name}.cls, .json or .txt beside it")
    if not images:
        if "cls" in kinds:
            raise Damage(f'byte {labels[0].header}: label "{labels[0].name}" has no image beside it')
        return None
    return images[0], _label(labels[0], file)


def _label(member: Member, file: TarFile) -> int:
    """Read the whole number in a label's file."""
    text = file.read(member.data, min(member.size, _LONGEST))
    value: object = None
    with suppress(ValueError, RecursionError):
        value = loads(text) if member.name.lower().endswith(".json") else int(text.replace(b"_", b"?"))
    if isinstance(value, dict):
        value = next((value[field] for field in _FIELDS if field in value), None)
    if type(value) is not int or not -(1 << 31) <= value < 1 << 31:
        start = text[:40].decode("utf-8", "replace")
        expected = 'a whole number, or {"label": number}' if text[:1] == b"{" else "a whole number of 32 bits"
        raise Damage(f'byte {member.header}: label "{member.name}" is {start!r}, expected {expected}')
    return value


def _way_out(error: Damage) -> str:
    text = str(error)
    if "compressed" in text:
        return "or write it with: tar -cf"
    if any(word in text for word in ("label", "image", "second")):
        return "correct the sample, or remove it"
    return "copy or write it again"


def _shards(paths: list[str]) -> str:
    return "shard" if len(paths) == 1 else "shards"


def _parts(key: bytes, value: bytes) -> tuple[str, bytes, int]:
    """Return the format, the bytes and the label of a record's image."""
    if annotated(value):
        raise DataError(f"record {show_key(key)} has boxes, which tar shards do not hold; write an lmdb or leveldb")
    datum = Datum.FromString(value)
    if datum.encoded:
        kind = compression(datum.data)
        if kind not in IMAGES:
            raise DataError(f"record {show_key(key)} has an image of unknown format; compress it as jpg or png")
        return kind, datum.data, datum.label
    if not datum.data or datum.channels not in (1, 3):
        what = f"{datum.channels} channels" if datum.data else "floats"
        raise DataError(f"record {show_key(key)} has {what}; tar shards hold images of 1 or 3 channels of bytes")
    pixels = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return "png", cv2.imencode(".png", image)[1].tobytes(), datum.label


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
