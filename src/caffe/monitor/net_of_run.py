"""The net of a run: from the text in its log, or from the graph in its event files."""

from __future__ import annotations

import re
from typing import Any

from caffe.errors import CaffeError
from caffe.monitor.event_source import read_value
from caffe.monitor.run import Run
from caffe.proto import caffe_pb2, text, upgrade

__all__ = ["net_of"]

Shapes = dict[str, tuple[int, ...]]


def net_of(run: Run) -> tuple[caffe_pb2.NetParameter, Shapes]:
    """Return a NetParameter and the shapes of its blobs. Raises CaffeError if the files contain no net."""
    facts = run.facts
    if facts.net:
        net = text.parse(facts.net, caffe_pb2.NetParameter(), f"the net in {run.path.name}")
        upgrade.upgrade_net(net, run.path.name)
        return net, {name: tuple(shape) for name, shape in facts.shapes.items()}
    if not facts.graph:
        raise CaffeError(f'the files of run "{run.name}" contain no net; it needs a complete log, or a graph')
    graph: Any = caffe_graph(read_value(run.folder, facts.graph, ""))
    return graph


def caffe_graph(data: bytes) -> tuple[caffe_pb2.NetParameter, Shapes]:
    """Convert TensorBoard's graph, as `caffe train -logdir` writes it, to a net: a node is a layer."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    net, shapes = caffe_pb2.NetParameter(), {}
    graph = GraphDef.FromString(data)
    for node in graph.node:
        layer = net.layer.add(name=node.name, type=node.op)
        layer.bottom.extend(_blob(name) for name in node.input)
        outputs = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else []
        for number, shape in enumerate(outputs):
            blob = node.name if not number else f"{node.name}:{number}"
            layer.top.append(blob)
            shapes[blob] = tuple(dim.size for dim in shape.dim)
        for field in node.attr:
            if field.endswith("_param") and field in layer.DESCRIPTOR.fields_by_name:
                text.parse(node.attr[field].s.decode(), getattr(layer, field), node.name)
    return net, shapes


def _blob(name: str) -> str:
    return re.sub(r":0$", "", name.removeprefix("^"))
