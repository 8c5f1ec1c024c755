"""Reads TensorBoard's event files, as `caffe train -logdir` writes them: scalars, histograms, images, graph, texts."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import FileError, require_extra
from caffe.monitor.source import Source

__all__ = ["EventSource", "is_event_file", "read_value"]

_HEAD, _FOOT = 12, 4  # a record: length (8 bytes), checksum, event, checksum
_LARGEST = 1 << 28
_FINDING = re.compile(r"([\w.-]+): (.*)", re.DOTALL)


def is_event_file(path: Path) -> bool:
    """Whether a file's name is that of an event file."""
    return "tfevents" in path.name and not path.name.startswith(".")


class EventSource(Source):
    """Reads one event file. Large values stay in the file; the facts store their positions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._event: Any = _messages()
        self.begin: float | None = None
        self._broken = False

    def use(self, data: bytes) -> int:
        """Read the complete records in `data`; returns the number of bytes used."""
        at = 0
        while len(data) - at >= _HEAD and not self._broken:
            (length,) = struct.unpack_from("<Q", data, at)
            if length > _LARGEST:
                self._break(at, "a record with an invalid length")
                break
            end = at + _HEAD + length + _FOOT
            if end > len(data):
                break
            try:
                event = self._event.FromString(data[at + _HEAD : end - _FOOT])
            except Exception:  # protobuf's DecodeError, of any implementation
                self._break(at, "a record that is not an event")
                break
            self._take(event, self.tail.offset + at + _HEAD, length)
            at = end
        return at

    def restarted(self) -> None:
        """See the base class."""
        super().restarted()
        self.begin, self._broken = None, False
        self.facts.images, self.facts.histograms, self.facts.graph = {}, {}, []

    def state(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().state(), "begin": self.begin, "broken": self._broken}

    def restore(self, state: dict[str, Any]) -> None:
        """See the base class."""
        super().restore(state)
        self.begin, self._broken = state["begin"], state["broken"]

    def _break(self, at: int, reason: str) -> None:
        self._broken = True
        self.tail.message = f"{self.path.name} holds {reason} at byte {self.tail.offset + at}; the rest is not read"

    def _take(self, event: Any, offset: int, length: int) -> None:
        self.begin = event.wall_time if self.begin is None else self.begin
        place = [int(event.step), self.path.name, offset, length]
        if event.graph_def:
            self.facts.graph = place
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                self.curve(value.tag).add(int(event.step), value.simple_value, event.wall_time - self.begin)
            elif kind in ("histo", "image"):
                kept = self.facts.histograms if kind == "histo" else self.facts.images
                kept.setdefault(value.tag, []).append(place)
            elif kind == "tensor":
                self._tensor(value, int(event.step), event.wall_time - self.begin)

    def _tensor(self, value: Any, step: int, seconds: float) -> None:
        """Return a text, or a scalar in the format of newer writers."""
        tensor = value.tensor
        if tensor.string_val and value.tag.startswith("findings"):
            text = tensor.string_val[0].decode("utf-8", "replace")
            match = _FINDING.match(text)
            code, message = match.groups() if match else ("finding", text)
            self.facts.found({"code": code, "iteration": step, "message": message, "severity": "warning"})
        elif tensor.string_val and value.tag.startswith("solver"):
            self.facts.solver = tensor.string_val[0].decode("utf-8", "replace")
        elif value.metadata.plugin_data.plugin_name in ("scalars", "") and not tensor.tensor_shape.dim:
            numbers = tensor.float_val or np.frombuffer(tensor.tensor_content, np.float32)
            if len(numbers) == 1:
                self.curve(value.tag).add(step, float(numbers[0]), seconds)


def read_value(folder: Path, place: list[Any], tag: str) -> Any:
    """Read the value of a tag (or the graph's bytes, without a tag) at a position stored in the facts.

    Raises FileError.
    """
    _, name, offset, length = place
    path = folder / name
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            event = _messages().FromString(file.read(length))
    except Exception as error:  # the file is missing, or was replaced
        raise FileError(f"{path}: cannot read the event at byte {offset}: {error}") from error
    if not tag:
        return event.graph_def
    found = next((value for value in event.summary.value if value.tag == tag), None)
    if found is None:
        raise FileError(f'{path}: the event at byte {offset} no longer holds "{tag}"')
    return found


def _messages() -> Any:
    module: Any = require_extra(
        "tensorboard.compat.proto.event_pb2", "tensorboard", "reading TensorBoard's event files"
    )
    return module.Event
