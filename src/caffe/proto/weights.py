"""Weight files: .caffemodel in all formats of Caffe and its forks, HDF5 weights, and mean files.

These functions read only the names and blobs of layers. The type and options of a layer come from the user's prototxt,
so a weight file can contain unknown layer types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from caffe import log
from caffe.errors import FileError
from caffe.proto import blobs, caffe_pb2, detect, files, hdf5, wire
from caffe.proto.blobs import blob_from_proto, blob_to_proto, fits
from caffe.proto.files import PathLike

__all__ = [
    "blob_from_proto",
    "blob_to_proto",
    "fits",
    "opened",
    "read",
    "read_diffs",
    "read_mean",
    "skeleton",
    "write",
    "write_hdf5",
    "write_mean",
]


def read(path: PathLike) -> dict[str, list[np.ndarray]]:
    """Read the blobs of each layer in a .caffemodel or HDF5 weight file, by layer name, in the order of the file.

    Layers without blobs have an empty list. Values are float32, or float64 if the file stores doubles. Shapes in files
    of 2014 are padded to four axes; compare them with `fits`. An HDF5 file stores a shared blob only under its owner;
    in other layers such a blob is None if another blob follows it. Raises `FileError`.
    """
    return _read(path, diff=False)


def read_diffs(path: PathLike) -> dict[str, list[np.ndarray]]:
    """Like `read`, for the diffs that `snapshot_diff` adds. Layers without diffs have an empty list."""
    return _read(path, diff=True)


def skeleton(path: PathLike) -> caffe_pb2.NetParameter:
    """Return the net that a weight file describes, without its blobs, for `write`.

    Files of older formats and HDF5 files only provide the layers' names. Raises `FileError`.
    """
    net = caffe_pb2.NetParameter()
    if not detect.is_hdf5(path):
        with detect.binary(path, "net") as view:
            rest = b"".join(_without_blobs(view))
        net = detect.parse_net(rest, path, "the description of its layers is damaged")
    if not net.layer:
        for name in read(path):
            net.layer.add(name=name)
    return net


def write(
    path: PathLike,
    net: caffe_pb2.NetParameter,
    data: Mapping[str, Sequence[np.ndarray]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None = None,
    double: bool | None = None,
) -> None:
    """Write a .caffemodel: the layers of `net`, each with the arrays that `data` has under its name.

    `diffs` adds the gradients. `double` selects float64 storage; the default is the dtype of the arrays. The file
    appears complete or not at all. Raises `FileError`.
    """
    rest = caffe_pb2.NetParameter()
    rest.CopyFrom(net)
    rest.ClearField("layer")
    with files.atomic(path) as file:
        file.write(rest.SerializeToString())
        for layer in net.layer:
            arrays = data.get(layer.name, ())
            gradients = diffs.get(layer.name, ()) if diffs is not None else [None] * len(arrays)
            _write_layer(file, layer, [blobs.encode(a, d, double) for a, d in zip(arrays, gradients, strict=True)])


def write_hdf5(
    path: PathLike,
    data: Mapping[str, Sequence[np.ndarray | None]],
    diffs: Mapping[str, Sequence[np.ndarray | None]] | None = None,
) -> None:
    """Write HDF5 weights as Caffe does: /data/<layer>/<index>, and /diff/<layer>/<index> for `diffs`.

    A blob that is None (owned by another layer) is omitted. Raises `FileError`.
    """
    hdf5.write_weights(path, data, diffs)


def read_mean(path: PathLike) -> np.ndarray:
    """Return the array of a mean file (.binaryproto) as stored: (1, C, H, W) if a tool of Caffe wrote it."""
    with detect.binary(path, "blob") as view:
        return blobs.decode(view, str(path))


def write_mean(path: PathLike, mean: np.ndarray) -> None:
    """Write a mean file with the four legacy dimensions, as compute_image_mean does. `mean` has up to 4 axes."""
    sizes = (1,) * (4 - mean.ndim) + mean.shape
    head = caffe_pb2.BlobProto(num=sizes[0], channels=sizes[1], height=sizes[2], width=sizes[3])
    with files.atomic(path) as file:
        file.write(head.SerializeToString())
        file.writelines(blobs.encode(np.ravel(mean).astype(np.float32))[:2])


@contextmanager
def opened(path: PathLike) -> Iterator[dict[str, list[np.ndarray]]]:
    """Like `read`, but where possible the arrays are views of the file, which are valid only within the block."""
    if detect.is_hdf5(path):
        yield read(path)
        return
    with detect.binary(path, "net") as view:
        layers = _found(_layers(view, path, diff=False, copy=False), path)
        yield layers


def _read(path: PathLike, diff: bool) -> dict[str, list[np.ndarray]]:
    if detect.is_hdf5(path):
        return hdf5.read_weights(path, "diff" if diff else "data")
    with detect.binary(path, "net") as view:
        return _found(_layers(view, path, diff), path)


def _found(layers: Iterator[tuple[str, list[np.ndarray]]], path: PathLike) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for name, arrays in layers:
        if arrays and found.get(name):
            log.warning("net.cpp", f'{path}: has weights for two layers "{name}": the weights of the second are used')
        if arrays or name not in found:
            found[name] = arrays
    if not found:
        raise FileError(f"{path}: contains no layers; expected the weights of a solver's snapshot")
    return found


def _layers(view: memoryview, path: PathLike, diff: bool, copy: bool = True) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield name and arrays of each `layer` (field 100) and each V1 `layers` (field 2) of a NetParameter."""
    for field in wire.fields(view):
        if field.kind != wire.BYTES or field.number not in (2, 100):
            continue
        name, protos = _layer(field.view, name=1, blob=7) if field.number == 100 else _v1_layer(field.view)
        if name is None:
            continue
        if diff:
            protos = [proto for proto in protos if blobs.has_diff(proto)]
        what = f'{path}: layer "{name}": blob'
        yield name, [blobs.decode(proto, f"{what} {index}", diff, copy) for index, proto in enumerate(protos)]


def _without_blobs(view: memoryview) -> Iterator[bytes]:
    """Yield the name (field 1) of a NetParameter and each `layer` (field 100) without its blobs (field 7)."""
    start = 0
    for field in wire.fields(view):
        if field.kind == wire.BYTES and field.number == 1:
            yield bytes(view[start : field.end])
        elif field.kind == wire.BYTES and field.number == 100:
            ends = [0, *(inner.end for inner in wire.fields(field.view))]
            inners = zip(wire.fields(field.view), ends, strict=False)
            kept = [bytes(field.view[at : inner.end]) for inner, at in inners if inner.number != 7]
            yield wire.key(100, sum(map(len, kept)))
            yield from kept
        start = field.end


def _v1_layer(view: memoryview) -> tuple[str | None, list[memoryview]]:
    """Like `_layer`, for V1 layers and V0 layers.

    The name of a V0 padding layer is None, as it is merged into another layer.
    """
    for field in wire.fields(view):
        if field.number == 1 and field.kind == wire.BYTES:
            kinds = [bytes(inner.view) for inner in wire.fields(field.view) if inner.number == 2]
            name, protos = _layer(field.view, name=1, blob=50)
            return (None if kinds == [b"padding"] else name), protos
    return _layer(view, name=4, blob=6)


def _layer(view: memoryview, name: int, blob: int) -> tuple[str | None, list[memoryview]]:
    """Return the name and the BlobProtos of a layer; its fields have the given numbers."""
    text, protos = "", []
    for field in wire.fields(view):
        if field.kind == wire.BYTES and field.number == name:
            text = bytes(field.view).decode("utf-8", "replace")
        elif field.kind == wire.BYTES and field.number == blob:
            protos.append(field.view)
    return text, protos


def _write_layer(file: BinaryIO, layer: caffe_pb2.LayerParameter, protos: list[list[bytes | memoryview]]) -> None:
    """Write one `layer` field. The blobs (field 7) are inserted in the order of field numbers, as Caffe does."""
    rest = caffe_pb2.LayerParameter()
    rest.CopyFrom(layer)
    rest.ClearField("blobs")
    text = rest.SerializeToString()
    middle = max((field.end for field in wire.fields(memoryview(text)) if field.number < 7), default=0)
    pieces: list[bytes | memoryview] = [text[:middle]]
    for proto in protos:
        pieces += [wire.key(7, sum(map(len, proto))), *proto]
    pieces.append(text[middle:])
    file.write(wire.key(100, sum(map(len, pieces))))
    file.writelines(pieces)
