"""Determines the kind of a file, and reports on files that are not definitions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import FileError, NetError
from caffe.inspection import nets
from caffe.inspection.onnx import is_onnx, onnx
from caffe.inspection.report import Report, Table
from caffe.layers import layer_class
from caffe.proto import caffe_pb2, detect, files, hdf5, state, text, weights, wire

__all__ = ["inspect"]

_OURS = 20000
_LAYER, _BLOBS = 100, 7  # field numbers of NetParameter and LayerParameter
_RAW = (10, 11, 12, 13)  # field numbers of BlobProto: raw_data_type, raw_diff_type, raw_data, raw_diff


def inspect(path: str) -> Report:
    """Inspect the file or database at `path`. Raises `FileError`, `ProtoError`, `DataError`."""
    if os.path.isdir(path):
        return _database(path)
    with files.opened(path) as file:
        start = memoryview(file.read(1 << 16))
    kind = detect.kind(start)
    if kind == "text":
        return _definition(path)
    if kind == "hdf5":
        return _hdf5(path)
    if kind in ("state", "unknown") and is_onnx(path):
        return onnx(path)
    if kind in ("state", "unknown") and path.endswith(".onnx"):
        raise FileError(f"{path}: is not an ONNX file, or is damaged or cut off; export it again")
    reports = {"net": _weights, "state": _state, "blob": _mean}
    if kind not in reports:
        raise detect.reject(path, kind, "any")
    return reports[kind](path)


def _definition(path: str) -> Report:
    """Report on a net or a solver, whichever grammar the text matches."""
    found = text.read_definition(path)
    return nets.net(path, found) if isinstance(found, caffe_pb2.NetParameter) else nets.solver(path, found)


def _weights(path: str) -> Report:
    report = Report(path, "a net's weights (.caffemodel)")
    skeleton = weights.skeleton(path)
    report.add("name", skeleton.name or "(none)")
    types = {layer.name: layer.type for layer in skeleton.layer}
    report.add("format", "V2" if any(types.values()) else "V1 (2014), or layers without types")
    nets.tell_origin(report, skeleton)
    if not report.origin and _has_raw_data(path):
        report.facts[-1] = ("made by", "NVIDIA's Caffe: its blobs are raw data, such as 16-bit numbers")
    _blobs(report, weights.read(path), types)
    unknown = {kind for kind in types.values() if kind and not _known(kind)}
    report.unsupported += [f"layer type {kind}; its weights can be read" for kind in sorted(unknown)]
    return report


def _has_raw_data(path: str) -> bool:
    """Whether the first blob of a file is stored in NVCaffe's format."""
    with detect.binary(path, "net") as view:
        for layer in wire.fields(view):
            if layer.number == _LAYER:
                for blob in wire.fields(layer.view):
                    if blob.number == _BLOBS:
                        return any(field.number in _RAW for field in wire.fields(blob.view))
    return False


def _blobs(report: Report, found: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> None:
    rows: list[Sequence[str]] = []
    total, bad = 0, 0
    for name, blobs in found.items():
        arrays = [np.asarray(blob) for blob in blobs if blob is not None]
        count = sum(array.size for array in arrays)
        total += count
        bad += sum(int(np.count_nonzero(~np.isfinite(array))) for array in arrays)
        if arrays:
            shapes = ", ".join(" x ".join(map(str, array.shape)) or "1" for array in arrays)
            rows.append((name, types.get(name, ""), shapes, f"{count:,}"))
    report.add("parameters", f"{total:,} in {len(rows)} of {len(found)} layers")
    if bad:
        report.add("not finite", f"{bad:,} values are NaN or infinite")
    report.layers = Table(("layer", "type", "blobs", "parameters"), rows, (3,))


def _known(kind: str) -> bool:
    try:
        layer_class(kind)
    except NetError:
        return False
    return True


def _state(path: str) -> Report:
    report = Report(path, "a solver's state (.solverstate)")
    _tell_state(report, path)
    return report


def _tell_state(report: Report, path: str) -> None:
    head, history = state.read(path)
    report.add("iteration", f"{head.iter:,}")
    report.add("step", head.current_step)
    values = sum(array.size for array in history)
    report.add("history", f"{len(history)} arrays, {values:,} values")
    own = sorted(field.name for field, _ in head.ListFields() if field.number >= _OURS)
    report.add("made by", f"Cafetière ({', '.join(own)})" if own else "BVLC Caffe or a fork: no field of Cafetière's")
    report.needs.append(f"weights: {head.learned_net}")
    if head.learned_net and not Path(head.learned_net).exists():
        try:
            report.needs[-1] += f" (here: {state.find_weights(head.learned_net, path)})"
        except FileError:
            report.needs[-1] += " (missing)"


def _mean(path: str) -> Report:
    report = Report(path, "a single blob, such as a mean (.binaryproto)")
    mean = weights.read_mean(path)
    report.add("shape", " x ".join(map(str, mean.shape)))
    report.add("values", f"{mean.min():g} to {mean.max():g}")
    if mean.ndim == 4:
        means = mean.mean((0, 2, 3))
        report.add("channel means", ", ".join(f"{value:.6g}" for value in means[:12]))
        report.add("as options", " ".join(f"mean_value: {value:.6g}" for value in means[:12]))
    return report


def _hdf5(path: str) -> Report:
    """Report on an HDF5 file: weights, a solver's state, or the arrays of an HDF5Data layer."""
    names = hdf5.shapes(path)
    if "data" in names and names["data"] is None:
        report = Report(path, "a net's weights (HDF5)")
        _blobs(report, weights.read(path), {})
        return report
    if "iter" in names and "history" in names:
        report = Report(path, "a solver's state (HDF5)")
        _tell_state(report, path)
        return report
    report = Report(path, "arrays (HDF5), as HDF5Data reads them")
    rows = [(name, "group" if shape is None else " x ".join(map(str, shape))) for name, shape in names.items()]
    report.layers = Table(("dataset", "shape"), list(rows))
    return report


def _database(path: str) -> Report:
    from caffe.data.databases.base import show_key
    from caffe.data.tools.inspect import detect as open_database
    from caffe.data.tools.inspect import survey

    source = open_database(path)
    try:
        found = survey(source, lambda count: None)
    finally:
        source.close()
    report = Report(path, f"a database of records ({source.backend})")
    report.add("records", f"{found.count:,}, {found.size:,} bytes")
    report.add("keys", f"{show_key(found.keys[0])} to {show_key(found.keys[1])}")
    report.add("stored", ", ".join(f"{name} ({count:,})" for name, count in found.kinds.most_common()))
    shapes = [f"{' x '.join(map(str, shape))} ({count:,})" for shape, count in found.shapes.most_common(12)]
    report.add("shapes", ", ".join(shapes))
    report.add("labels", f"{len(found.labels)} different")
    report.unsupported += found.damaged[:12]
    return report
