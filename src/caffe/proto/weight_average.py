"""Averages several weight files. Imports neither torch nor a net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caffe.errors import FileError, NetError
from caffe.proto import blobs, caffe_pb2, state, weights
from caffe.proto.files import PathLike

__all__ = ["average", "read", "save"]

Blobs = dict[str, list[np.ndarray | None]]
"""Blobs as returned by `weights.read`: None for a blob that an HDF5 file stores under its owner only."""


def average(paths: Sequence[PathLike]) -> tuple[caffe_pb2.NetParameter, Blobs]:
    """Return the mean, summed in float64, of the blobs in weight files of one net, and the net they describe.

    For a solver state, the moving average in it is used. Raises `FileError`, and `NetError` if files do not match.
    """
    net, first = read(paths[0])
    sums = {name: [None if a is None else a.astype(np.float64) for a in arrays] for name, arrays in first.items()}
    for path in paths[1:]:
        _, other = read(path)
        _check_alike(first, other, paths[0], path)
        for name, arrays in sums.items():
            for total, array in zip(arrays, other[name], strict=True):
                if total is not None and array is not None:
                    total += array.reshape(total.shape)
    means: Blobs = {}
    for name, arrays in sums.items():
        pairs = zip(arrays, first[name], strict=True)
        means[name] = [None if t is None or a is None else (t / len(paths)).astype(a.dtype) for t, a in pairs]
    return net, means


def read(path: PathLike) -> tuple[caffe_pb2.NetParameter, Blobs]:
    """Read the net and the blobs of a weight file, or of the moving average in a solver state."""
    if not _is_state(path):
        return weights.skeleton(path), {name: [*own] for name, own in weights.read(path).items()}
    head, _ = state.read(path)
    if not head.average:
        raise FileError(f"{path}: holds no moving average; set ema_decay in the solver, or give its .caffemodel")
    model = state.find_weights(head.learned_net, path)
    net, arrays = read(model)
    for (_, layer, name), array in state.arrays(head.average, "moving average", path).items():
        own = arrays.get(layer, [])
        index = int(name) if name.isascii() and name.isdigit() else len(own)
        if index >= len(own):
            raise FileError(f'{path}: has a moving average of blob "{name}" of layer "{layer}", missing in {model}')
        own[index] = array
    _share(net, arrays)
    return net, arrays


def save(path: PathLike, net: caffe_pb2.NetParameter, arrays: Blobs) -> None:
    """Write a .caffemodel, or HDF5 if the name ends in .h5."""
    if str(path).endswith(".h5"):
        weights.write_hdf5(path, arrays)
        return
    whole = {name: [array for array in own if array is not None] for name, own in arrays.items()}
    if any(len(whole[name]) < len(own) for name, own in arrays.items()):
        raise FileError(f"{path}: shared blobs came from HDF5, which keeps them once; let the name end in .h5")
    weights.write(path, net, whole)


def _share(net: caffe_pb2.NetParameter, arrays: Blobs) -> None:
    """Give blobs with the same name (`param { name }`) the values of the first of them, which owns the memory."""
    owners: dict[str, np.ndarray] = {}
    for layer in net.layer:
        own = arrays.get(layer.name, [])
        for index, (array, param) in enumerate(zip(own, layer.param, strict=False)):
            if param.name and array is not None:
                own[index] = owners.setdefault(param.name, array).reshape(array.shape)


def _is_state(path: PathLike) -> bool:
    """Whether the file name is that of a solver state. The content is checked when it is read."""
    return ".solverstate" in Path(path).name


def _check_alike(first: Blobs, other: Blobs, first_path: PathLike, path: PathLike) -> None:
    """Raise a `NetError` unless two files have the same layers with blobs of the same shapes."""
    for name in dict.fromkeys([*first, *other]):
        mine, theirs = _shapes(first.get(name)), _shapes(other.get(name))
        if mine is None or theirs is None or len(mine) != len(theirs) or not all(map(_fits, theirs, mine)):
            raise NetError(
                f'layer "{name}": {first_path} has {_text(mine)}, {path} has {_text(theirs)}; average files of one net'
            )


def _shapes(arrays: Sequence[np.ndarray | None] | None) -> list[tuple[int, ...] | None] | None:
    return None if arrays is None else [None if array is None else array.shape for array in arrays]


def _fits(stored: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> bool:
    return stored == wanted or (stored is not None and wanted is not None and blobs.fits(stored, wanted))


def _text(shapes: list[tuple[int, ...] | None] | None) -> str:
    return "no such layer" if shapes is None else f"blobs of the shapes {', '.join(map(str, shapes)) or '(none)'}"
