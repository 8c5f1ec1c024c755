"""Reports on net and solver definitions: origin, shapes, parameters, arithmetic, data, and unsupported parts."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from caffe import log
from caffe.draw import phase_of
from caffe.errors import CaffeError, NetError, SolverError
from caffe.inspection.origin import age, origins
from caffe.inspection.report import Report, Table
from caffe.inspection.stand_ins import READERS, build, phases, without_data, without_python
from caffe.layers import is_a, layer_class
from caffe.layers.input import Input
from caffe.layers.python import Python
from caffe.net.measure.summary import Summary
from caffe.proto import caffe_pb2, upgrade
from caffe.proto.forks import effects

__all__ = ["net", "solver"]


def net(path: str, param: Any) -> Report:
    """Report on a net's definition (prototxt), read from `path`."""
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


def solver(path: str, param: Any) -> Report:
    """Report on a solver's definition (prototxt), read from `path`."""
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
            place = f'layer "{layer.name}"'
            report.unsupported.append(fact if place in fact else f"{place}: {fact}")
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
        for name in (*READERS, "hdf5_data_param"):
            source = getattr(getattr(layer, name), "source", "")
            if source:
                rules = "".join(f" in {caffe_pb2.Phase.Name(rule.phase)}" for rule in layer.include)
                report.needs.append(f'"{layer.name}" ({layer.type}){rules}: {source}')


def _measure(report: Report, param: Any) -> None:
    """Add shapes, parameters, arithmetic and memory, if the net can be built without its data.

    Every phase in which the net has data must build; the figures are those of the first.
    """
    rest, left = without_python(param)
    standing, assumed = without_data(rest)
    first = phase_of(param)
    reasons, shown = [], False
    for phase in phases(standing, caffe_pb2.TEST if first is None else first):
        try:
            with closing(build(standing, phase, assumed)) as built:
                if built.steps and not shown:
                    _figures(report, built, caffe_pb2.Phase.Name(phase), param)
                    shown = True
        except CaffeError as error:
            reasons.append(f"in {caffe_pb2.Phase.Name(phase)} it cannot be built: {error}")
    report.needs += [*left, *dict.fromkeys(assumed)] if shown else []
    if not report.unsupported:
        report.unsupported += reasons or ([] if shown or left else ["it has no layer"])
    if not shown:
        rows = [(layer.name, layer.type, ", ".join(layer.bottom), ", ".join(layer.top)) for layer in param.layer]
        report.layers = Table(("layer", "type", "bottoms", "tops"), list(rows))


def _figures(report: Report, built: Any, phase: str, param: Any) -> None:
    summary = Summary(built)
    report.add("built as", phase)
    report.add("parameters", f"{summary.parameters:,} ({4 * summary.parameters / 1e6:.1f} MB)")
    fact = "GFLOP per batch in matrix products (a multiply-add counts as two)"
    report.add("arithmetic", f"{summary.flops / 1e9:.3f} {fact}")
    report.add("blobs", f"{summary.bytes / 1e6:.1f} MB per batch")
    head, *rows = summary.table()
    types = {layer.name: layer.type for layer in param.layer}  # of data layers, which are replaced by constants
    shown = [(name, types.get(name, kind), *rest) for name, kind, *rest in rows]
    report.layers = Table(head, list(shown), Summary.right)
