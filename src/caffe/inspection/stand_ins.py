"""Replaces what a net's definition reads from elsewhere, so that the net can be built without its data.

Data layers that read files become constants of the shapes that their options state; a label whose shape depends on
the data gets the shape that its reader expects. Layers that run Python code are left out, with all that needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from caffe import log
from caffe.errors import CaffeError, NetError
from caffe.layers import Source, is_a, layer_class
from caffe.layers.convolution import Convolution
from caffe.layers.data_absent import is_absent
from caffe.layers.data_memory import DummyData
from caffe.layers.dense import InnerProduct
from caffe.layers.python import Python
from caffe.net import Net
from caffe.net.graph.rules import filter_net
from caffe.proto import caffe_pb2

__all__ = ["READERS", "build", "phases", "without_data", "without_python"]

READERS = (
    *("data_param", "image_data_param", "window_data_param", "dense_image_data_param", "annotated_data_param"),
    *("video_data_param", "seg_data_param", "pose_image_data_param"),
)
"""Options of the layers that read images from files. HDF5Data is not included, because its options state no shape."""
_TRIES = 12
_BOXES = 8
"""Boxes of an image in YOLO's labels, whose number depends on the data."""


def without_data(param: Any) -> tuple[Any, list[str]]:
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


def without_python(param: Any) -> tuple[Any, list[str]]:
    """Return the net without its Python layers and the layers that need their tops, and what was left out."""
    if not any(is_a(layer.type, Python) for layer in param.layer):
        return param, []
    missing: set[str] = set()
    kept, left = [], []
    for layer in param.layer:
        if is_a(layer.type, Python) or missing & set(layer.bottom):
            missing.update(layer.top)
            left.append(layer.name)
        else:
            missing -= set(layer.top)
            kept.append(layer)
    rest = param.__class__()
    rest.CopyFrom(param)
    del rest.layer[:]
    rest.layer.extend(kept)
    return rest, [f"not measured, because it depends on Python code: {', '.join(left)}"]


def phases(param: Any, first: int) -> list[int]:
    """Return the phases in which a layer produces every bottom, `first` before the other; both if there is none."""
    order = (first, caffe_pb2.TRAIN + caffe_pb2.TEST - first)
    return [phase for phase in order if _is_complete(param, phase)] or list(order)


def build(standing: Any, phase: int, assumed: list[str]) -> Net:
    """Build a net of constants on meta tensors. Labels get other shapes, which `assumed` then says, where needed.

    Raises the `CaffeError` of the original net if no shape of a label helps.
    """
    param = standing.__class__()
    param.CopyFrom(standing)
    reason: CaffeError | None = None
    for _ in range(_TRIES):
        try:
            return _built(param, phase)
        except CaffeError as error:
            reason = reason or error
            fitted = _fit(param, phase, str(error))
            if fitted is None:
                break
            param, said = fitted
            assumed.append(said)
    assert reason is not None
    raise reason


def _built(param: Any, phase: int) -> Net:
    with log.quiet():
        return Net(param, phase, device="meta", python_layers=False)


def _fit(param: Any, phase: int, error: str) -> tuple[Any, str] | None:
    """Return the net in which the layer that an error names gets a label that it accepts, and what was assumed."""
    named = re.search(r'layer "([^"]*)" \(', error)
    kept = _filtered(param, phase)[0].layer
    reader = next((layer for layer in kept if named and layer.name == named[1]), None)
    if reader is None:
        return None
    labels = [blob for blob in reader.bottom if _maker(param, phase, blob) is not None]
    others = [blob for blob in reader.bottom if blob not in labels]
    if not labels or not others or is_a(reader.type, Convolution, InnerProduct):
        return None
    shape = _shape_before(param, phase, reader.name, others[0])
    for candidate in _candidates(shape):
        changed = _with_label(param, phase, labels[-1], candidate)
        try:
            with closing(_built(changed, phase)):
                pass
        except CaffeError as again:
            if f'layer "{reader.name}" (' in str(again):
                continue
        size = " x ".join(map(str, candidate))
        return changed, f'"{labels[-1]}": a shape of {size} is assumed, which "{reader.name}" accepts'
    return None


def _candidates(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield shapes of labels for predictions of a shape: a class of each cell, the same shape, YOLO's rows."""
    if len(shape) > 1:
        yield (shape[0], 1, *shape[2:])
    yield tuple(shape)
    if shape:
        yield (shape[0], 5 * _BOXES)


def _maker(param: Any, phase: int, blob: str) -> Any:
    """Return the stand-in of a data layer that has a blob as a label in this phase, or None."""
    kept = _filtered(param, phase)[1]
    for index in kept:
        layer = param.layer[index]
        several = len(layer.dummy_data_param.shape) == len(layer.top)  # else it is a layer of the net itself
        if is_a(layer.type, DummyData) and several and blob in layer.top[1:]:
            return layer
    return None


def _with_label(param: Any, phase: int, blob: str, shape: Sequence[int]) -> Any:
    changed = param.__class__()
    changed.CopyFrom(param)
    layer = _maker(changed, phase, blob)
    layer.dummy_data_param.shape[list(layer.top).index(blob)].dim[:] = shape
    return changed


def _shape_before(param: Any, phase: int, reader: str, blob: str) -> tuple[int, ...]:
    """Return the shape of a blob in the net that ends before the reader; empty if that cannot be built either."""
    part = param.__class__()
    part.CopyFrom(param)
    end = next(i for i, layer in enumerate(part.layer) if layer.name == reader)
    del part.layer[end:]
    try:
        with closing(_built(part, phase)) as built:
            return tuple(built.blobs[blob].shape) if blob in built.blobs else ()
    except CaffeError:
        return ()


def _filtered(param: Any, phase: int) -> tuple[Any, list[int]]:
    """Return the layers of a phase, as a net, and their indices in the whole."""
    net = param.__class__()
    net.CopyFrom(param)
    net.state.phase = phase
    with log.quiet():
        return filter_net(net)


def _is_complete(param: Any, phase: int) -> bool:
    """Whether the net has a layer in this phase, and an earlier maker for every bottom."""
    made = set(param.input)
    kept = _filtered(param, phase)[0].layer
    for layer in kept:
        if not set(layer.bottom) <= made:
            return False
        made.update(layer.top)
    return bool(kept)


def _data_shape(layer: Any) -> tuple[int, int, int, int] | None:
    """Return the shape of a file-based data layer from its options, else 224 x 224; None for other layers."""
    if layer.bottom or not any(layer.HasField(name) for name in READERS):
        return None
    try:
        kind = layer_class(layer.type)
    except NetError:
        return None
    if not issubclass(kind, Source) or (is_absent(kind) and _states_sizes(layer)):
        return None
    batch = next(_batch_sizes(layer), 1)
    images, transform = layer.image_data_param, layer.transform_param
    size = transform.crop_size
    if size:
        return batch, 3, size, size
    height = transform.resize_param.height or images.new_height or 224
    return batch, 3, height, transform.resize_param.width or images.new_width or height


def _states_sizes(layer: Any) -> bool:
    """Whether the options of a layer without data give its shapes."""
    try:
        _built(caffe_pb2.NetParameter(layer=[layer]), layer.include[0].phase if layer.include else caffe_pb2.TEST)
    except CaffeError:
        return False
    return True


def _batch_sizes(layer: Any) -> Iterator[int]:
    for name in READERS:
        batch = getattr(getattr(layer, name), "batch_size", 0)
        if batch:
            yield batch
