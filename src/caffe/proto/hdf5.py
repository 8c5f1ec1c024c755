"""Weights and solver states in HDF5, laid out as Caffe does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from caffe.errors import FileError
from caffe.proto import detect, files
from caffe.proto.files import PathLike

__all__ = [
    "check_names",
    "dataset",
    "numbers",
    "read_weights",
    "reading",
    "save_array",
    "text",
    "write_weights",
    "writing",
]

_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError)
"""What h5py and numpy raise for a damaged file, or one of another layout, while it is read."""

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
    except _DAMAGE as error:
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
    import h5py

    with reading(path, "net", group) as file:
        if not isinstance(file[group], h5py.Group):
            raise ValueError(f"/{group} is no group, expected one with a group for each layer")
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
            yield prefix + name, [numbers(layer, i) if i in stored else None for i in range(count)]  # type: ignore[misc]
        yield from _layers(layer, f"{prefix}{name}/")


def dataset(group: Any, name: str, kinds: str) -> np.ndarray:
    """The dataset `name` of a group, which must be of one of numpy's `kinds` of type; raises what `reading` expects."""
    import h5py

    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{found.name} is a group, expected a dataset")
    if found.dtype.kind not in kinds or found.shape is None:
        raise ValueError(f"{found.name} holds {found.dtype} of shape {found.shape}, expected numbers of kind {kinds}")
    if found.chunks is None and found.id.get_storage_size() < found.nbytes:
        raise ValueError(f"{found.name} says it holds {found.nbytes} bytes, but has {found.id.get_storage_size()}")
    return np.asarray(found[()])


def text(group: Any, name: str) -> str:
    """The text in a dataset, of fixed or variable length; raises what `reading` expects."""
    value = group[name][()]
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if not isinstance(value, bytes):
        raise ValueError(f"{name} holds {type(value).__name__}, expected a text")
    return value.rstrip(b"\0").decode()


def numbers(group: Any, index: int) -> np.ndarray:
    """The array of the blob with this number in a group: float64 stays, any other number becomes float32."""
    values = dataset(group, str(index), "fiu")
    return values if values.dtype == np.float64 else values.astype(np.float32)


def _errno(error: Exception) -> int:
    """The system's error number, which h5py gives only in the text."""
    _, _, rest = str(error).partition("errno = ")
    digits = rest.partition(",")[0]
    return int(digits) if digits.isdigit() else 0
