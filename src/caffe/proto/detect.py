"""Detects the kind of a file, and creates the error if another kind was expected."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from caffe.errors import FileError
from caffe.proto import caffe_pb2, files, wire
from caffe.proto.files import PathLike

__all__ = ["HDF5_MAGIC", "binary", "is_hdf5", "kind", "parse_net", "reject"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_LFS_POINTER = b"version https://git-lfs"
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\r\f\v")
_LARGEST_FIRST = 1000  # the NetParameter of every fork begins with a field number up to this
_NAMES = {
    "empty": "an empty file",
    "text": "a text file",
    "pointer": "only a pointer to a file in Git LFS; fetch the file itself with: git lfs pull",
    "archive": "an archive or a PyTorch file",
    "hdf5": "a HDF5 file",
    "blob": "a single blob, such as a mean file (.binaryproto)",
    "state": "a solver state (.solverstate)",
    "net": "a binary net or its weights (.caffemodel)",
    "unknown": "not a file that Caffe writes, or a damaged one",
}
_WANTED = {
    "net": "weights (.caffemodel, or HDF5)",
    "state": "a solver state (.solverstate, or HDF5)",
    "blob": "a mean file (.binaryproto)",
    "text": "a text file (.prototxt)",
    "any": "a prototxt, caffemodel, solverstate, mean, HDF5 or ONNX file, or the folder of a database",
}
_WAYS_OUT = {
    ("net", "state"): "to continue training from it use -snapshot; the weights are in the .caffemodel beside it",
    ("state", "net"): "to start from these weights use -weights; -snapshot takes the .solverstate beside it",
    ("net", "text"): "a net's definition is given as -model (-model_def of classify and detect)",
    ("text", "net"): "give the net's definition here; train and test take weights as -weights, classify and detect as "
    "-pretrained_model",
}


def kind(view: memoryview) -> str:
    """Return the kind of a file, a key of the table of names above, from the beginning of its content."""
    start = bytes(view[:512])
    if not start:
        return "empty"
    if start.startswith(HDF5_MAGIC):
        return "hdf5"
    if start.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\x80\x02")):
        return "archive"
    if not _CONTROL.intersection(start):
        return "pointer" if start.startswith(_LFS_POINTER) else "text"
    return _message_kind(view)


def reject(path: PathLike, found: str, wanted: str) -> FileError:
    """Create the error for a file of kind `found` where `wanted` was expected."""
    way_out = _WAYS_OUT.get((wanted, found))
    hint = f"; {way_out}" if way_out else ""
    return FileError(f"{path}: is {_NAMES[found]}; expected {_WANTED[wanted]}{hint}")


def is_hdf5(path: PathLike) -> bool:
    """Whether a file is HDF5, by its content. Raises FileError for a missing file."""
    with files.opened(path) as file:
        return file.read(len(HDF5_MAGIC)) == HDF5_MAGIC


@contextlib.contextmanager
def binary(path: PathLike, wanted: str) -> Iterator[memoryview]:
    """Open a binary message file of the kind `wanted`, as bytes that are read from disk on access.

    Raises `FileError` if the file is of another kind, or if the block finds it truncated or damaged.
    """
    with files.opened(path) as file:
        try:
            content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # for example a pipe or an empty file
            content = file.read()
    view = memoryview(content)
    found = kind(view)
    if found != wanted:
        raise reject(path, found, wanted)
    try:
        yield view
    except wire.WireError as error:
        if error.missing:
            fact = f"is cut off: it has {len(view)} bytes and lacks at least {error.missing} more"
        else:
            fact = f"is damaged ({error})"
        raise FileError(f"{path}: {fact}; expected {_WANTED[wanted]}; copy or download it again") from error


def parse_net(data: bytes, path: PathLike, fact: str = "is damaged or cut off") -> caffe_pb2.NetParameter:
    """Parse a NetParameter from the bytes of a file. Raises a `FileError` with the text `fact` if it is not one.

    Text that is not UTF-8 is treated as damage.
    """
    try:
        net = caffe_pb2.NetParameter.FromString(data)
        _read_texts(net)
    except (DecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: {fact} ({error}); copy or download it again") from error
    return net


def _read_texts(message: Message) -> None:
    """Raise UnicodeDecodeError for a string of a message that is not UTF-8; protobuf returns such strings as bytes."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):
                    text.decode()
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                _read_texts(inner)


def _message_kind(view: memoryview) -> str:
    """Distinguish NetParameter, SolverState and BlobProto by their first fields."""
    head = []
    try:
        for field in wire.fields(view):
            head.append((field.number, field.kind))
            if len(head) == 2:
                break
    except wire.WireError as error:
        if not error.missing and not head:
            return "unknown"
    first = head[0] if head else (0, wire.BYTES)
    if first == (1, wire.VARINT):
        return "blob" if (2, wire.VARINT) in head or (5, wire.BYTES) in head else "state"
    if first in ((5, wire.BYTES), (7, wire.BYTES)):
        return "blob"
    return "net" if first[0] <= _LARGEST_FIRST else "unknown"
