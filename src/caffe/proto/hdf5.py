"""Weights and solver states in HDF5, in Caffe's layout."""

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
"""Exceptions that h5py and numpy raise while reading a damaged file or one with another layout."""
_SPARSE = 2000  # array bytes per byte in the file: gzip's limit is 1,032
_SMALL = 1 << 26  # array bytes that are always accepted
_MOST_BLOBS = 1000  # per layer
_LINKS = 16  # consecutive soft links

Blobs = Mapping[str, Sequence[np.ndarray | None]]


@contextlib.contextmanager
def reading(path: PathLike, wanted: str, member: str) -> Iterator[Any]:
    """Open the HDF5 file at `path`. Raises a `FileError` that says what the file is if it lacks `member`."""
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
    """Return the top level of an HDF5 file: the shape of each dataset, None for a group. Raises `FileError`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return {name: getattr(file[name], "shape", None) for name in file}
    except DAMAGE as error:
        raise FileError(f"{path}: the HDF5 file is damaged or cut off ({error}); copy or download it again") from error


@contextlib.contextmanager
def writing(path: PathLike) -> Iterator[Any]:
    """Create an HDF5 file that replaces `path` when it is complete."""
    import h5py

    with files.atomic(path) as target:
        try:
            with h5py.File(target.name, "w", locking=False) as file:  # `atomic` holds the lock
                yield file
        except (OSError, RuntimeError) as error:
            raise OSError(getattr(error, "errno", None) or _errno(error), str(error)) from error


def read_weights(path: PathLike, group: str) -> dict[str, list[np.ndarray]]:
    """Read the arrays of /`group`/<layer>/<index> by layer name. A missing index before another one gives None."""
    import h5py

    with reading(path, "net", group) as file:
        layers = member(file, group)
        if not isinstance(layers, h5py.Group):
            raise ValueError(f"/{group} is not a group, expected one with a group for each layer")
        return dict(_layers(layers, "", set()))


def check_names(path: PathLike, data: Mapping[str, Sequence[Any]]) -> None:
    """Raise a `FileError` for a layer with blobs whose name HDF5 cannot store, or not together with the others."""
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
    """Return the path of each blob in the file, with the name of its layer."""
    return {f"{name}/{index}": name for name, blobs in data.items() for index in range(len(blobs))}


def _obstacle(name: str, taken: Mapping[str, str]) -> str:
    """Return why a layer's name cannot be an HDF5 group, where "/" separates nested groups; an empty string if it
    can.
    """
    parts = name.split("/")
    if "" in parts or "." in parts:
        return 'is not a valid HDF5 path: the parts between "/" must not be empty or "."'
    groups = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    owner = next((taken[group] for group in groups if group in taken), None)
    return "" if owner is None else f'is the HDF5 path of a blob of layer "{owner}"'


def write_weights(path: PathLike, data: Blobs, diffs: Blobs | None) -> None:
    """Write /data/<layer>/<index>, and /diff likewise. A blob that is None is omitted.

    A layer without blobs gets an empty group, unless its name is not a valid group name. For other layers see
    `check_names`.
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
    """Store a float array under `name`. float64 is kept; other types become float32."""
    group.create_dataset(name, data=np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32))


def _layers(group: Any, prefix: str, above: set[Any]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield every layer below `group`. A layer name can contain "/", which HDF5 turns into nested groups.

    `above` holds the enclosing groups: a group that contains itself is an error.
    """
    import h5py

    if group in above:
        raise ValueError(f"{group.name} is a group that contains itself")
    for name in group:
        layer = member(group, name)
        if not isinstance(layer, h5py.Group):
            continue
        indices = sorted(int(key) for key in layer if key.isdecimal() and isinstance(member(layer, key), h5py.Dataset))
        if indices or len(layer) == 0:
            stored = set(indices)
            count = indices[-1] + 1 if indices else 0
            if count > _MOST_BLOBS:
                raise ValueError(f"{layer.name} has a blob with index {indices[-1]}, expected less than {_MOST_BLOBS}")
            yield prefix + name, [numbers(layer, i) if i in stored else None for i in range(count)]  # type: ignore[misc]
        yield from _layers(layer, f"{prefix}{name}/", above | {group})


def member(group: Any, name: str) -> Any:
    """Return the member `name` of a group. Raises ValueError for a link to another file."""
    return _followed(group, name, _LINKS)


def _followed(group: Any, path: str, links: int) -> Any:
    """Resolve a path, through hard links and at most `links` soft links."""
    import h5py

    found = group.file if path.startswith("/") else group
    for name in filter(None, path.split("/")):
        link = found.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f'{group.name} has a link "{name}" to the file "{link.filename}", which is not allowed')
        if isinstance(link, h5py.SoftLink):
            if not links:
                raise ValueError(f'{group.name} has a circular link "{name}"')
            found = _followed(found, link.path, links - 1)
        else:
            found = found[name]
    return found


def dataset(group: Any, name: str, kinds: str) -> np.ndarray:
    """Return the dataset `name` of a group, of one of numpy's dtype `kinds`.

    Raises the exceptions that `reading` expects.
    """
    import h5py

    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{found.name} is a group, expected a dataset")
    if found.is_virtual or found.external:
        raise ValueError(f"{found.name} stores its numbers in other files, which are not read")
    if found.dtype.kind not in kinds or found.shape is None:
        wanted = "a text" if "S" in kinds else f"numbers of kind {kinds}"
        raise ValueError(f"{found.name} holds {found.dtype} of shape {found.shape}, expected {wanted}")
    stored = found.id.get_storage_size()
    if found.nbytes > stored and (found.chunks is None or found.nbytes > _SPARSE * stored + _SMALL):
        raise ValueError(f"{found.name} says it holds {found.nbytes} bytes, but has {stored}")
    return np.asarray(found[()])


def text(group: Any, name: str) -> str:
    """Return the string in a dataset, of fixed or variable length. Raises the exceptions that `reading` expects."""
    values = dataset(group, name, "SO")
    value = values.item() if values.size == 1 else values
    if not isinstance(value, bytes):
        raise ValueError(f"{name} holds {type(value).__name__}, expected a text")
    return value.rstrip(b"\0").decode()


def numbers(group: Any, index: int) -> np.ndarray:
    """Return the array of the blob with this index in a group. float64 is kept; other numbers become float32."""
    values = dataset(group, str(index), "fiu")
    return values if values.dtype == np.float64 else values.astype(np.float32)


def _errno(error: Exception) -> int:
    """Return the system's error number, which h5py includes only in the message."""
    _, _, rest = str(error).partition("errno = ")
    digits = rest.partition(",")[0]
    return int(digits) if digits.isdigit() else 0
