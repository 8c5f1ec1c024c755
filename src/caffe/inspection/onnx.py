"""Reads the description in an ONNX file, without the onnx library."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator

from caffe.inspection.report import Report, Table
from caffe.proto import files, wire

__all__ = ["is_onnx", "onnx"]

_PRODUCER, _PRODUCER_VERSION, _GRAPH, _OPSETS = 2, 3, 7, 8  # field numbers of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # field numbers of GraphProto
_TENSOR_NAME = 8


def is_onnx(path: str) -> bool:
    """Whether a binary file has the outer fields of ONNX's ModelProto."""
    try:
        found = {field.number: field.kind for field in wire.fields(_content(path))}
    except wire.WireError:
        return False
    return found.get(1) == wire.VARINT and found.get(_GRAPH) == wire.BYTES and max(found) <= 25


def onnx(path: str) -> Report:
    """Report on an ONNX file."""
    report = Report(path, "a net in ONNX")
    model = list(wire.fields(_content(path)))
    told = [f.view for f in model if f.number in (_PRODUCER, _PRODUCER_VERSION)]
    producer = " ".join(bytes(view).decode(errors="replace") for view in told)
    graph = next(f.view for f in model if f.number == _GRAPH)
    report.add("made by", producer or "(not told)")
    report.add("format", next((f"IR version {f.integer}" for f in model if f.number == 1), ""))
    report.add("operators", ", ".join(_opset(f.view) for f in model if f.number == _OPSETS))
    nodes: Counter[str] = Counter()
    count, ends, weights = 0, {_INPUT: [], _OUTPUT: []}, set()  # type: ignore[var-annotated]
    for field in wire.fields(graph):
        if field.number == _NODE:
            nodes.update(_texts(field.view, 4))
        elif field.number == _INITIALIZER:
            count += _elements(field.view)
            weights.update(_texts(field.view, _TENSOR_NAME))
        elif field.number in ends:
            ends[field.number] += _texts(field.view, 1)
    report.add("inputs", ", ".join(name for name in ends[_INPUT] if name not in weights))
    report.add("outputs", ", ".join(ends[_OUTPUT]))
    report.add("parameters", f"{count:,}")
    report.layers = Table(("operator", "count"), [(name, str(number)) for name, number in nodes.most_common()], (1,))
    report.unsupported.append("Caffe does not read ONNX; run the file with onnxruntime, or export the net as prototxt")
    return report


def _content(path: str) -> memoryview:
    with files.opened(path) as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _texts(view: memoryview, number: int) -> Iterator[str]:
    return (bytes(f.view).decode(errors="replace") for f in wire.fields(view) if f.number == number)


def _opset(view: memoryview) -> str:
    version = next((f.integer for f in wire.fields(view) if f.number == 2), 0)
    return f"{next(_texts(view, 1), '') or 'ai.onnx'} {version}"


def _elements(tensor: memoryview) -> int:
    """Return the number of elements of a TensorProto, from its dims, packed or not."""
    count = 1
    for field in wire.fields(tensor):
        if field.number == 1:
            sizes = wire.varints(field.view) if field.kind == wire.BYTES else [field.integer]
            for size in sizes:
                count *= size
    return count
