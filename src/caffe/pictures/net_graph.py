"""The picture of a net: boxes placed by `layout` and drawn with matplotlib. See `caffe.draw`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.path import Path as Curve

from caffe.pictures import labels
from caffe.pictures.layout import Node, place

__all__ = ["save"]

_LINE, _CHARACTER, _MARGIN = 13.0, 5.1, 8.0  # points
_FONT = 8.5
_PIXELS = 30000
_DPI = 110.0
_WIDEST = 5000  # largest width in pixels of a picture from left to right
# type names: drawing imports no torch, and with it no layer classes
_COLOURS = {
    "#f4b6a6": (*labels.CONVOLUTIONS, "Im2col"),
    "#fbd38d": ("Pooling", "SPP"),
    "#d6bcfa": ("InnerProduct", "Embed", "LSTM", "RNN"),
    "#b7e4c7": ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Swish", "Clip", "AbsVal", "Exp", "Log", "Power"),
    "#c9e4f6": ("BatchNorm", "Scale", "Bias", "LRN", "MVN", "Dropout"),
    "#fff3b0": ("Concat", "Eltwise", "Slice", "Split", "Flatten", "Reshape", "Crop", "Softmax"),
    "#d9d9d9": ("Data", "Input", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "Accuracy"),
}
_COLOUR_OF = {kind: colour for colour, kinds in _COLOURS.items() for kind in kinds}


@dataclass
class _Box:
    """A layer and the in-place layers on its tops: texts and colours, line by line."""

    lines: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)

    def add(self, layer: Any, display_lrm: bool, shapes: Mapping[str, Sequence[int]]) -> None:
        rates = labels.rates(layer) if display_lrm else ""
        made = [] if layer.type == "Input" else [top for top in layer.top if top in shapes and top not in layer.bottom]
        shape = "; ".join(labels.shape_label(shapes[top]) for top in made)
        facts = ", ".join(fact for fact in (_facts(layer), rates) if fact) + (f"  [{shape}]" if shape else "")
        self.lines.append(f"{layer.name}  {layer.type}" + (f"  {facts}" if facts else ""))
        loss = "#f28b82" if layer.type.endswith("Loss") else "#e2e8f0"
        self.colours.append(_COLOUR_OF.get(layer.type, loss))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in points."""
        return max(map(len, self.lines)) * _CHARACTER + _MARGIN, len(self.lines) * _LINE


def save(
    layers: Sequence[Any],
    title: str,
    rankdir: str,
    ext: str,
    stream: BinaryIO,
    display_lrm: bool,
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """Draw the layers into `stream`, in the format `ext`.

    An empty `rankdir` means LR, or TB if that picture would be wider than `_WIDEST` pixels.
    """
    boxes, edges = _boxes(layers, display_lrm, shapes)
    page = _draw(boxes, edges, title, rankdir or "LR")
    if not rankdir and page.get_size_inches()[0] * _DPI > _WIDEST:
        page = _draw(boxes, edges, title, "TB")
    page.savefig(stream, format=ext, dpi=min(_DPI, _PIXELS / max(page.get_size_inches())))


def _draw(boxes: Sequence[_Box], edges: Sequence[tuple[int, int]], title: str, rankdir: str) -> Figure:
    """Draw the boxes and arrows on a page."""
    upright = rankdir in ("TB", "BT")
    nodes = [Node(*(box.size[::-1] if upright else box.size)) for box in boxes]
    paths = place(nodes, edges, 22.0 if upright else 30.0, 16.0)

    def point(along: float, across: float) -> tuple[float, float]:
        along = -along if rankdir in ("TB", "RL") else along
        return (across, along) if upright else (along, -across)

    centres = [point(node.at, node.x) for node in nodes]
    page, axes = _page(boxes, [point(n.at, n.x) for path in paths for n in path] + centres, title)
    _draw_edges(axes, paths, point)
    for box, centre in zip(boxes, centres, strict=True):
        _draw_box(axes, box, centre)
    return page


def _boxes(
    layers: Sequence[Any], display_lrm: bool, shapes: Mapping[str, Sequence[int]]
) -> tuple[list[_Box], list[tuple[int, int]]]:
    """Return the boxes, and the arrows between them as pairs of indices.

    A blob that layers of several phases produce has an arrow from each of them.
    """
    boxes: list[_Box] = []
    edges: dict[tuple[int, int], None] = {}
    makers: dict[str, list[int]] = {}
    for layer in layers:
        in_place = bool(layer.top) and list(layer.top) == list(layer.bottom) and layer.bottom[0] in makers
        number = makers[layer.bottom[0]][-1] if in_place else len(boxes)
        if not in_place:
            boxes.append(_Box())
        boxes[number].add(layer, display_lrm, shapes)
        for blob in layer.bottom:
            edges.update(((maker, number), None) for maker in makers.get(blob, ()) if maker != number)
        for blob in layer.top:
            if blob not in layer.bottom:
                makers.setdefault(blob, []).append(number)
            elif not in_place:
                makers[blob] = [number]
    return boxes, [edge for edge in edges if edge[0] < edge[1]]


def _facts(layer: Any) -> str:
    """Return the most important options of a layer: `64, 7x7, stride 2, pad 3`."""
    outputs = labels.get_edge_label(layer)
    if layer.type == "Input":
        return ", ".join(" x ".join(map(str, shape.dim)) for shape in layer.input_param.shape)
    if layer.type == "Eltwise":
        return type(layer.eltwise_param).EltwiseOp.Name(layer.eltwise_param.operation).lower()
    if layer.type not in (*labels.CONVOLUTIONS, "Pooling"):
        return outputs
    opt = layer.pooling_param if layer.type == "Pooling" else layer.convolution_param
    parts = [labels.get_pooling_types_dict()[opt.pool].lower() if layer.type == "Pooling" else outputs]
    if layer.type == "Pooling" and opt.global_pooling:
        return f"{parts[0]}, global"
    kernel, stride, pad = (labels.window_sizes(opt, name, 0) for name in ("kernel", "stride", "pad"))
    parts.append(kernel if "x" in kernel else f"{kernel}x{kernel}")
    parts += [f"stride {stride}"] if stride not in "01" else []
    parts += [f"pad {pad}"] if pad != "0" else []
    if layer.type != "Pooling" and opt.group > 1:
        parts.append(f"group {opt.group}")
    return ", ".join(parts)


def _page(boxes: Sequence[_Box], points: Sequence[tuple[float, float]], title: str) -> tuple[Figure, Any]:
    """Create an empty page around boxes at these points. Its unit is a point."""
    width, height = (max((box.size[i] for box in boxes), default=0.0) for i in (0, 1))
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    left, right = min(xs) - width / 2 - 12, max(xs) + width / 2 + 12
    low, high = min(ys) - height / 2 - 12, max(ys) + height / 2 + (30 if title else 12)
    page = Figure(figsize=((right - left) / 72, (high - low) / 72))
    axes = page.add_axes((0, 0, 1, 1))
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.set_axis_off()
    if title:
        axes.text(left + 12, high - 10, title, fontsize=12, fontweight="bold", va="top")
    return page, axes


def _draw_box(axes: Any, box: _Box, centre: tuple[float, float]) -> None:
    width, height = box.size
    left, top = centre[0] - width / 2, centre[1] + height / 2
    for index, (text, colour) in enumerate(zip(box.lines, box.colours, strict=True)):
        low = top - (index + 1) * _LINE
        axes.add_patch(Rectangle((left, low), width, _LINE, facecolor=colour, edgecolor="white", linewidth=0.5))
        axes.text(left + _MARGIN / 2, low + _LINE / 2, text, fontsize=_FONT, va="center_baseline")
    axes.add_patch(Rectangle((left, top - height), width, height, facecolor="none", edgecolor="#475569", linewidth=0.8))


def _draw_edges(axes: Any, paths: Sequence[Sequence[Node]], point: Any) -> None:
    """Draw arrows as smooth curves from border to border, over the bends."""
    curves, heads = [], []
    for path in paths:
        vertices: list[tuple[float, float]] = []
        codes: list[Any] = []
        for one, other in itertools.pairwise(path):
            (a, x), (b, y) = (one.at + one.along / 2, one.x), (other.at - other.along / 2, other.x)
            middle = (a + b) / 2
            vertices += [point(*at) for at in ((a, x), (middle, x), (middle, y), (b, y))]
            codes += [Curve.LINETO if codes else Curve.MOVETO, *[Curve.CURVE4] * 3]
        curves.append(Curve(vertices, codes))
        tip, x = path[-1].at - path[-1].along / 2, path[-1].x
        heads.append(Polygon([point(tip, x), point(tip - 6, x - 2.5), point(tip - 6, x + 2.5)]))
    axes.add_collection(PathCollection(curves, facecolor="none", edgecolor="#64748b", linewidth=1.0))
    axes.add_collection(PatchCollection(heads, facecolor="#64748b", edgecolor="none"))
