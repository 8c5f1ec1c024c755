"""A binary index file beside a log, which stores what was read, so that the next start reads only new data.

The file starts with a magic word and the length of a header. The header is JSON: the state of the source, its facts,
and the number of points of each curve. The arrays follow, with iterations, values and seconds of each curve; they are
memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import FileError
from caffe.monitor.curve import Arrays, Curve
from caffe.monitor.facts import Facts
from caffe.monitor.source import Source
from caffe.proto import files

__all__ = ["lighten", "load", "paths", "save"]

_MAGIC = b"CAFEIDX1"
_TYPES: tuple[np.dtype[Any], ...] = (
    np.dtype("<i8"),
    np.dtype("<f8"),
    np.dtype("<f4"),
)  # iterations, seconds, values: this order needs no padding


def paths(path: Path) -> tuple[Path, Path]:
    """Return the possible paths of a file's index: beside the file, or in the user's cache."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shown = path.name.replace("tfevents", "events")  # TensorBoard would read any file whose name contains that word
    return path.with_name(f".{shown}.caffe-index"), cache / "cafetiere" / "monitor" / f"{name}.caffe-index"


def save(source: Source) -> bool:
    """Write the index of a source; returns False if neither place is writable."""
    curves = {tag: curve.arrays for tag, curve in source.curves.items()}
    header = {
        "state": source.state(),
        "facts": asdict(source.facts),
        "message": source.tail.message,
        "curves": [[tag, len(arrays.x)] for tag, arrays in curves.items()],
    }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 12) % 8)
    for target in paths(source.path):
        with suppress(FileError, OSError):
            if target.parent != source.path.parent:
                target.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic(target) as file:
                file.write(_MAGIC + struct.pack("<I", len(text)) + text)
                for number, kind in enumerate(_TYPES):
                    for arrays in curves.values():
                        file.write(np.ascontiguousarray(_ordered(arrays)[number], kind).tobytes())
            return True
    return False


def load(source: Source) -> bool:
    """Fill a source from its index; returns False, with the source unchanged, if no index matches."""
    for path in paths(source.path):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
            if _load(source, path):
                return True
    return False


def lighten(source: Source) -> None:
    """Replace the curves of a source by memory maps of its index, which was just written."""
    for path in paths(source.path):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
            _, mapped = _read(path)
            for tag, arrays in mapped.items():
                if len(source.curves[tag].arrays.x) == len(arrays.x):
                    source.curves = {**source.curves, tag: Curve(arrays)}
            return


def _load(source: Source, path: Path) -> bool:
    header, mapped = _read(path)
    facts = Facts(**header["facts"])
    source.restore(header["state"])
    source.curves = {tag: Curve(arrays) for tag, arrays in mapped.items()}
    source.facts, source.tail.message = facts, header["message"]
    return True


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """Read the header of an index, and the curves by tag. Raises ValueError for an invalid or truncated file."""
    with open(path, "rb") as file:
        magic, length = file.read(8), struct.unpack("<I", file.read(4))[0]
        if magic != _MAGIC:
            raise ValueError("no index")
        header = json.loads(file.read(length))
    total = sum(count for _, count in header["curves"])
    begin = 12 + length
    if os.path.getsize(path) != begin + total * sum(kind.itemsize for kind in _TYPES):
        raise ValueError("a truncated index")
    columns: list[Any] = []
    for kind in _TYPES:
        columns.append(np.memmap(path, kind, "r", begin, (total,)) if total else np.empty(0, kind))
        begin += total * kind.itemsize
    curves, at = {}, 0
    for tag, count in header["curves"]:
        x, seconds, y = (np.asarray(column[at : at + count]) for column in columns)
        curves[tag] = Arrays(x, y, seconds)
        at += count
    return header, curves


def _ordered(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return arrays.x, arrays.seconds, arrays.y
