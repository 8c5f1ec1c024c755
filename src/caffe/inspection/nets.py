"""Reports on net and solver definitions: origin, shapes, parameters, arithmetic, data, and unsupported parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from caffe import log
from caffe.draw import phase_of
from caffe.errors import CaffeError, NetError, SolverError
from caffe.inspection.origin import age, origins
from caffe.inspection.report import Report, Table
from caffe.layers import Source, is_a, layer_class
from caffe.layers.input import Input
from caffe.layers.python import Python
from caffe.net import Net
from caffe.net.measure.summary import Summary
from caffe.proto import caffe_pb2, text, upgrade
from caffe.proto.forks import effects

__all__ = ["net", "solver"]

_READERS = (
    *("data_param", "image_data_param", "window_data_param", "dense_image_data_param", "annotated_data_param"),
    *("video_data_param", "seg_data_param", "pose_image_data_param"),
)
"""Options of the layers that read images from files. HDF5Data is not included, because its options state no shape."""


def net(path: str) -> Report:
    """Report on a net's definition (prototxt)."""
    param = text.read(path, caffe_pb2.NetParameter())
    report = Report(path, "a net's definition")
    report.add("name", param.name or "(none)")
    report.add("format", age(param))
    before = param.__class__()
    before.CopyFrom(param)
    with log.quiet():
        upgrade.upgrade_net(param, path)
    before.layer.extend(param.layer if before.layers else [])
    tell_origin(report, before)
    _judge(report, param)
    types = {layer.type for layer in param.layer}
    report.add("layers", f"{len(param.layer)} of {len(types)} types")
    _needs(report, param)
    _measure(report, param)
    return report


def solver(path: str) -> Report:
    """Report on a solver's definition (prototxt)."""
    param = text.read(path, caffe_pb2.SolverParameter())
    report = Report(path, "a solver's definition")
    with log.quiet():
        upgrade.upgrade_solver(param, path)
    report.add("type", param.type)
    report.add("learning rate", f"{param.base_lr:g}, {param.lr_policy or 'no lr_policy'}, {param.max_iter} iterations")
    named = [param.net] if param.net else [param.train_net, *param.test_net]
    report.needs += [f"net: {name}" for name in named if name]
    tell_origin(report, param)
    try:
        effects.refuse_solver(param)
    except SolverError as error:
        report.unsupported.append(str(error))
    return report


def tell_origin(report: Report, message: Any) -> None:
    """Add the fork that a message was written for, and its fields without effect here."""
    report.origin = origins(message)
    report.add("made by", report.origin[0][0] if report.origin else "BVLC Caffe: it contains no name of a fork")
    report.without_effect += sorted({f"{name} ({fork})" for fork, name in effects.without_effect(message)})


def _judge(report: Report, param: Any) -> None:
    """Add the layers that cannot be built here, whatever their data, and the options without effect."""
    for layer in param.layer:
        try:
            kind = layer_class(layer.type)
            effects.refuse_layer(layer, kind.honours)
        except NetError as error:
            fact = str(error)
            report.unsupported.append(fact if layer.name in fact else f'layer "{layer.name}": {fact}')
            continue
        if kind.options and kind.without_effect:
            given = {field.name for field, _ in getattr(layer, kind.options).ListFields()}
            report.without_effect += [f'{name} of "{layer.name}"' for name in kind.without_effect if name in given]


def _needs(report: Report, param: Any) -> None:
    """Add the files and inputs that the net's layers read."""
    for layer in param.layer:
        if is_a(layer.type, Input):
            shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
            report.needs.append(f"{', '.join(layer.top)}: set by the caller, {', '.join(map(str, shapes))}")
        elif is_a(layer.type, Python):
            report.needs.append(f'"{layer.name}": Python module {layer.python_param.module}')
        for name in (*_READERS, "hdf5_data_param"):
            source = getattr(getattr(layer, name), "source", "")
            if source:
                rules = "".join(f" in {caffe_pb2.Phase.Name(rule.phase)}" for rule in layer.include)
                report.needs.append(f'"{layer.name}" ({layer.type}){rules}: {source}')


def _measure(report: Report, param: Any) -> None:
    """Add shapes, parameters, arithmetic and memory, if the net can be built without its data."""
    standing, assumed = _without_data(param)
    first = phase_of(param)
    first = caffe_pb2.TEST if first is None else first
    reasons = []
    for phase in (first, caffe_pb2.TRAIN + caffe_pb2.TEST - first):
        try:
            with log.quiet(), closing(Net(standing, phase, device="meta", python_layers=False)) as built:
                if not built.steps:
                    continue
                _figures(report, built, caffe_pb2.Phase.Name(phase))
        except CaffeError as error:
            reasons.append(f"in {caffe_pb2.Phase.Name(phase)} it cannot be built: {error}")
            continue
        report.needs += assumed
        return
    if not report.unsupported:
        report.unsupported += reasons or ["it has no layer"]
    rows = [(layer.name, layer.type, ", ".join(layer.bottom), ", ".join(layer.top)) for layer in param.layer]
    report.layers = Table(("layer", "type", "bottoms", "tops"), list(rows))


def _figures(report: Report, built: Any, phase: str) -> None:
    summary = Summary(built)
    report.add("built as", phase)
    report.add("parameters", f"{summary.parameters:,} ({4 * summary.parameters / 1e6:.1f} MB)")
    fact = "GFLOP per batch in matrix products (a multiply-add counts as two)"
    report.add("arithmetic", f"{summary.flops / 1e9:.3f} {fact}")
    report.add("blobs", f"{summary.bytes / 1e6:.1f} MB per batch")
    head, *rows = summary.table()
    report.layers = Table(head, list(rows), Summary.right)


def _without_data(param: Any) -> tuple[Any, list[str]]:
    """Return the net with constant inputs instead of data files, and the assumptions made."""
    standing = param.__class__()
    standing.CopyFrom(param)
    assumed = []
    for layer in standing.layer:
        shape = _data_shape(layer)
        if shape is None:
            continue
        assumed.append(f'"{layer.name}": shapes assume {shape[1]} channels of {shape[2]} x {shape[3]}')
        stand_in = caffe_pb2.LayerParameter(name=layer.name, type="DummyData", top=layer.top)
        stand_in.include.extend(layer.include)
        stand_in.exclude.extend(layer.exclude)
        labels = layer_class(layer.type).label_shape
        for index, _ in enumerate(layer.top):
            sizes = list(shape if index == 0 else shape[:1])
            if index and labels:
                sizes = [of or own for of, own in zip(labels, shape, strict=True)]
            stand_in.dummy_data_param.shape.add().dim.extend(sizes)
        layer.CopyFrom(stand_in)
    return standing, list(dict.fromkeys(assumed))


def _data_shape(layer: Any) -> tuple[int, int, int, int] | None:
    """Return the shape of a file-based data layer from its options, else 224 x 224; None for other layers."""
    if layer.bottom or not any(layer.HasField(name) for name in _READERS):
        return None
    try:
        if not issubclass(layer_class(layer.type), Source):
            return None
    except NetError:
        return None
    batch = next(_batch_sizes(layer), 1)
    images, transform = layer.image_data_param, layer.transform_param
    size = transform.crop_size
    if size:
        return batch, 3, size, size
    height = transform.resize_param.height or images.new_height or 224
    return batch, 3, height, transform.resize_param.width or images.new_width or height


def _batch_sizes(layer: Any) -> Iterator[int]:
    for name in _READERS:
        batch = getattr(getattr(layer, name), "batch_size", 0)
        if batch:
            yield batch
