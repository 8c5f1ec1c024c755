"""Weights and solver states in HDF5, laid out as Caffe does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from caffe.errors import FileError
from caffe.proto import detect, files
from caffe.proto.files import PathLike

__all__ = ["check_names", "load_array", "read_weights", "reading", "save_array", "write_weights", "writing"]

Blobs = Mapping[str, Sequence[np.ndarray | None]]


@contextlib.contextmanager
def reading(path: PathLike, wanted: str, member: str) -> Iterator[Any]:
    """The open h5py file at `path`, which must have `member`; else a `FileError` that tells what the file is."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if member not in file:
                found = "state" if "history" in file else "net" if "data" in file else "hdf5"
                raise detect.reject(path, found, wanted)
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: the HDF5 file is damaged or cut off ({error}); copy or download it again") from error


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[Any]:
    """A new h5py file that takes the place of `path` when it is complete."""
    import h5py

    with files.atomic(path) as target:
        try:
            with h5py.File(target.name, "w", locking=False) as file:  # `atomic` holds the lock, which HDF5 would want
                yield file
        except (OSError, RuntimeError) as error:
            raise OSError(getattr(error, "errno", None) or _errno(error), str(error)) from error


def read_weights(path: PathLike, group: str) -> dict[str, list[np.ndarray]]:
    """The arrays of /`group`/<layer>/<index> by layer name; None for an index that is left out before another."""
    with reading(path, "net", group) as file:
        return dict(_layers(file[group], ""))


def check_names(path: PathLike, data: Mapping[str, Sequence[Any]]) -> None:
    """Raise a `FileError` for a layer with blobs whose name HDF5 cannot hold beside the others."""
    taken = _blob_places(data)
    for name, blobs in data.items():
        if _has_blobs(blobs) and (fact := _obstacle(name, taken)):
            raise FileError(
                f'{path}: the name of layer "{name}" {fact}; rename the layer, or write a .caffemodel '
                "(snapshot_format: BINARYPROTO)"
            )


def _has_blobs(blobs: Sequence[Any]) -> bool:
    return any(blob is not None for blob in blobs)


def _blob_places(data: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """The path of each blob in the file, with its layer's name."""
    return {f"{name}/{index}": name for name, blobs in data.items() for index in range(len(blobs))}


def _obstacle(name: str, taken: Mapping[str, str]) -> str:
    """Why a layer's name cannot be a group of the file, where "/" leads from group to group; empty if it can."""
    parts = name.split("/")
    if "" in parts or "." in parts:
        return 'is no path in HDF5, whose parts between "/" must not be empty or "."'
    groups = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    owner = next((taken[group] for group in groups if group in taken), None)
    return "" if owner is None else f'is the place of a blob of layer "{owner}" in HDF5'


def write_weights(path: PathLike, data: Blobs, diffs: Blobs | None) -> None:
    """Write /data/<layer>/<index>, and /diff likewise; a layer's blob that is None is left out.

    A layer without blobs has an empty group, but none if its name cannot be one. See `check_names` for the others.
    """
    check_names(path, data)
    taken = _blob_places(data)
    with writing(path) as file:
        for member, layers in (("data", data), ("diff", diffs)):
            if layers is None:
                continue
            group = file.create_group(member)
            for name, arrays in layers.items():
                if not _has_blobs(arrays) and _obstacle(name, taken):
                    continue
                layer = group.require_group(name)
                for index, array in enumerate(arrays):
                    if array is not None:
                        save_array(layer, str(index), array)


def save_array(group: Any, name: str, array: np.ndarray) -> None:
    """Store a float array under `name`: float64 stays, anything else becomes float32."""
    group.create_dataset(name, data=np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32))


def _layers(group: Any, prefix: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Every layer below `group`. A layer's name may contain "/", which HDF5 turns into nested groups."""
    import h5py

    for name, layer in group.items():
        if not isinstance(layer, h5py.Group):
            continue
        indices = sorted(int(key) for key, item in layer.items() if key.isdigit() and isinstance(item, h5py.Dataset))
        if indices or len(layer) == 0:
            stored = set(indices)
            count = indices[-1] + 1 if indices else 0
            yield prefix + name, [load_array(layer[str(i)]) if i in stored else None for i in range(count)]  # type: ignore[misc]
        yield from _layers(layer, f"{prefix}{name}/")


def load_array(dataset: Any) -> np.ndarray:
    values = np.asarray(dataset[()])
    return values if values.dtype == np.float64 else values.astype(np.float32)


def _errno(error: Exception) -> int:
    """The system's error number, which h5py gives only in the text."""
    _, _, rest = str(error).partition("errno = ")
    digits = rest.partition(",")[0]
    return int(digits) if digits.isdigit() else 0
