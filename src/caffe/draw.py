"""Pictures of nets.

    caffe.draw.draw_net_to_file(net_parameter, "net.svg", rankdir="TB")

svg, png and pdf do not need Graphviz. A box shows a layer together with the in-place layers on its top, and an arrow is
a blob. A .dot file is text for Graphviz, in which blobs are separate nodes, as in pycaffe's pictures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caffe.errors import ArgumentError, did_you_mean, require_extra
from caffe.pictures.labels import (
    get_edge_label,
    get_layer_label,
    get_layer_lr_mult,
    get_pooling_types_dict,
    shape_label,
)
from caffe.proto import caffe_pb2, files

__all__ = [
    "BLOB_STYLE",
    "LAYER_STYLE_DEFAULT",
    "NEURON_LAYER_STYLE",
    "Graph",
    "choose_color_by_layertype",
    "draw_net",
    "draw_net_to_file",
    "get_edge_label",
    "get_layer_label",
    "get_layer_lr_mult",
    "get_pooling_types_dict",
    "get_pydot_graph",
    "phase_of",
    "shape_label",
]

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_RANKDIRS = ("LR", "TB", "BT", "RL")


class Graph:
    """A graph in Graphviz's terms: nodes and edges with attributes."""

    def __init__(self, name: str, rankdir: str) -> None:
        self.name = name
        self.rankdir = rankdir
        self.nodes: dict[str, dict[str, str]] = {}
        self.edges: list[tuple[str, str, str]] = []

    def to_string(self) -> str:
        """The text of a .dot file."""
        lines = [f"digraph {_quoted(self.name or 'Net')} {{", f"  rankdir={self.rankdir};"]
        for node, attributes in self.nodes.items():
            lines.append(f"  {_quoted(node)} [{', '.join(f'{k}={_quoted(v)}' for k, v in attributes.items())}];")
        for source, target, label in self.edges:
            lines.append(
                f"  {_quoted(source)} -> {_quoted(target)}" + (f" [label={_quoted(label)}];" if label else ";")
            )
        return "\n".join([*lines, "}"]) + "\n"


def phase_of(net: Any) -> int | None:
    """Return the default phase to draw: None if every layer is in both phases, else TRAIN, or TEST if TRAIN is empty.

    In a picture of both phases, layers of different phases would produce the same blobs.
    """
    if len(_layers(net, caffe_pb2.TRAIN)) == len(_layers(net, caffe_pb2.TEST)) == len(net.layer):
        return None
    return caffe_pb2.TRAIN if _layers(net, caffe_pb2.TRAIN) else caffe_pb2.TEST


def choose_color_by_layertype(layertype: str) -> str:
    """Return the colour of a layer type."""
    # type names: pycaffe's function takes a name, and drawing imports no torch
    special = {"Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
    return "#FF5050" if layertype in ("Convolution", "Deconvolution") else special.get(layertype, "#6495ED")


def get_pydot_graph(
    caffe_net: Any,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """The graph of a NetParameter's layers and blobs. With a `phase`, only of the layers in that phase."""
    _check_rankdir(rankdir)
    graph = Graph(caffe_net.name, rankdir)
    for index, layer in enumerate(_layers(caffe_net, phase)):
        node = f"{index}: {layer.name} ({layer.type})"
        in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
        style = NEURON_LAYER_STYLE if in_place else LAYER_STYLE_DEFAULT
        colour = {} if in_place else {"fillcolor": choose_color_by_layertype(layer.type)}
        graph.nodes[node] = {"label": get_layer_label(layer, rankdir, display_lrm), **style, **colour}
        for blob in (*layer.bottom, *layer.top):
            label = f"{blob}\n{shape_label(shapes[blob])}" if shapes and blob in shapes else blob
            graph.nodes[f"{blob}_blob"] = {"label": label, **BLOB_STYLE}
        graph.edges += [(f"{blob}_blob", node, "") for blob in layer.bottom]
        graph.edges += [(node, f"{blob}_blob", get_edge_label(layer) if label_edges else "") for blob in layer.top]
    return graph


def draw_net(
    caffe_net: Any,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """Return a picture of a NetParameter as the bytes of a file in the format `ext`: svg, png, pdf, dot, ...

    An empty `rankdir` means LR, or TB if LR would be very wide. `shapes` gives the shapes of blobs to show.
    """
    if ext in ("dot", "raw"):
        return get_pydot_graph(caffe_net, rankdir or "LR", True, phase, display_lrm, shapes).to_string().encode()
    if rankdir:
        _check_rankdir(rankdir)
    bases: Any = require_extra("matplotlib.backend_bases", "plot", "drawing nets")
    formats = ["dot", *sorted(bases.FigureCanvasBase.filetypes)]
    if ext not in formats:
        raise ArgumentError(
            f'"{ext}" is not a picture format{did_you_mean(ext, formats)}; the file\'s name must end in one '
            f"(formats: {', '.join(formats)})"
        )
    from caffe.pictures import net_graph as _netgraph

    stream = io.BytesIO()
    _netgraph.save(_layers(caffe_net, phase), caffe_net.name, rankdir, ext, stream, display_lrm, shapes or {})
    return stream.getvalue()


def draw_net_to_file(
    caffe_net: Any,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write a picture of a NetParameter to a file. The suffix gives the format: svg, png, pdf, dot, ...

    See `draw_net`.
    """
    ext = Path(filename).suffix.lstrip(".").lower()
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm, shapes)
    with files.atomic(filename) as file:
        file.write(picture)


def _layers(net: Any, phase: int | None) -> list[Any]:
    """The layers of a net that are in `phase`, or all."""
    if phase is None:
        return list(net.layer)
    if phase not in (caffe_pb2.TRAIN, caffe_pb2.TEST):
        raise ArgumentError(f"phase is {phase!r}, expected caffe.TRAIN, caffe.TEST or None for all layers")

    for each in net.layer:
        if each.include and each.exclude:
            raise ArgumentError(f'layer "{each.name}" has include and exclude rules; use only one of the two kinds')

    def named(rules: Any) -> bool:
        return any(rule.HasField("phase") and rule.phase == phase for rule in rules)

    return [each for each in net.layer if not named(each.exclude) and (not each.include or named(each.include))]


def _check_rankdir(rankdir: str) -> None:
    if rankdir not in _RANKDIRS:
        raise ArgumentError(f'rankdir is "{rankdir}"{did_you_mean(rankdir, _RANKDIRS)}, expected one of {_RANKDIRS}')


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
