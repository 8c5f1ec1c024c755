"""Weights and solver states in HDF5, laid out as Caffe does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from caffe.errors import CaffeError, FileError
from caffe.proto import detect, files
from caffe.proto.files import PathLike

__all__ = [
    "DAMAGE",
    "check_names",
    "dataset",
    "member",
    "numbers",
    "read_weights",
    "reading",
    "save_array",
    "shapes",
    "text",
    "write_weights",
    "writing",
]

DAMAGE = (
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError),
    *(AttributeError, AssertionError, SystemError),
)
"""What h5py and numpy raise for a damaged file, or one of another layout, while it is read."""
_SPARSE = 2000  # bytes of an array for each byte in the file: gzip's limit is 1,032
_SMALL = 1 << 26  # bytes that an array may have whatever the file holds
_MOST_BLOBS = 1000  # of a layer
_LINKS = 16  # soft links in a row

Blobs = Mapping[str, Sequence[np.ndarray | None]]


@contextlib.contextmanager
def reading(path: PathLike, wanted: str, member: str) -> Iterator[Any]:
    """The open h5py file at `path`, which must have `member`; else a `FileError` that tells what the file is."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if member not in file.keys():  # noqa: SIM118 - `in` alone would follow links
                found = "state" if "history" in file else "net" if "data" in file else "hdf5"
                raise detect.reject(path, found, wanted)
            yield file
    except DAMAGE as error:
        if isinstance(error, CaffeError):
            raise
        raise FileError(f"{path}: the HDF5 file is damaged or cut off ({error}); copy or download it again") from error


def shapes(path: PathLike) -> dict[str, tuple[int, ...] | None]:
    """What an HDF5 file has at its top: the shape of each dataset, None for a group. Raises `FileError`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {name: getattr(file[name], "shape", None) for name in file}
    except DAMAGE as error:
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
        layers = member(file, group)
        if not isinstance(layers, h5py.Group):
            raise ValueError(f"/{group} is no group, expected one with a group for each layer")
        return dict(_layers(layers, "", set()))


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


def _layers(group: Any, prefix: str, above: set[Any]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Every layer below `group`. A layer's name may contain "/", which HDF5 turns into nested groups.

    `above` holds the groups that this one lies in: one that holds itself is an error.
    """
    import h5py

    if group in above:
        raise ValueError(f"{group.name} is a group that lies in itself")
    for name in group:
        layer = member(group, name)
        if not isinstance(layer, h5py.Group):
            continue
        indices = sorted(int(key) for key in layer if key.isdecimal() and isinstance(member(layer, key), h5py.Dataset))
        if indices or len(layer) == 0:
            stored = set(indices)
            count = indices[-1] + 1 if indices else 0
            if count > _MOST_BLOBS:
                raise ValueError(f"{layer.name} has a blob of number {indices[-1]}, expected less than {_MOST_BLOBS}")
            yield prefix + name, [numbers(layer, i) if i in stored else None for i in range(count)]  # type: ignore[misc]
        yield from _layers(layer, f"{prefix}{name}/", above | {group})


def member(group: Any, name: str) -> Any:
    """The member `name` of a group in the same file; raises ValueError for a link that leads out of it."""
    return _followed(group, name, _LINKS)


def _followed(group: Any, path: str, links: int) -> Any:
    """What a path leads to, by hard links and at most `links` soft links."""
    import h5py

    found = group.file if path.startswith("/") else group
    for name in filter(None, path.split("/")):
        link = found.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f'{group.name} has a link "{name}" to the file "{link.filename}", which is not followed')
        if isinstance(link, h5py.SoftLink):
            if not links:
                raise ValueError(f'{group.name} has a link "{name}" that goes round')
            found = _followed(found, link.path, links - 1)
        else:
            found = found[name]
    return found


def dataset(group: Any, name: str, kinds: str) -> np.ndarray:
    """The dataset `name` of a group, which must be of one of numpy's `kinds` of type; raises what `reading` expects."""
    import h5py

    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{found.name} is a group, expected a dataset")
    if found.is_virtual or found.external:
        raise ValueError(f"{found.name} takes its numbers from other files, which are not read")
    if found.dtype.kind not in kinds or found.shape is None:
        wanted = "a text" if "S" in kinds else f"numbers of kind {kinds}"
        raise ValueError(f"{found.name} holds {found.dtype} of shape {found.shape}, expected {wanted}")
    stored = found.id.get_storage_size()
    if found.nbytes > stored and (found.chunks is None or found.nbytes > _SPARSE * stored + _SMALL):
        raise ValueError(f"{found.name} says it holds {found.nbytes} bytes, but has {stored}")
    return np.asarray(found[()])


def text(group: Any, name: str) -> str:
    """The text in a dataset, of fixed or variable length; raises what `reading` expects."""
    values = dataset(group, name, "SO")
    value = values.item() if values.size == 1 else values
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
