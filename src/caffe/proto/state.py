"""Solver states: .solverstate files and their HDF5 form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from caffe.errors import FileError
from caffe.proto import blobs, caffe_pb2, detect, files, hdf5, wire
from caffe.proto.files import PathLike

__all__ = ["arrays", "find_weights", "read", "write", "write_hdf5"]

_STATE = caffe_pb2.SolverState.DESCRIPTOR
_AGAIN = "copy the file again, or continue from another snapshot"
_HISTORY = 3  # field number in SolverState
_OURS = 20000  # field numbers from here on are additions of this package
_EXTRA = "cafetiere"  # HDF5: dataset with the bytes of a SolverState that holds this package's additional fields


def read(path: PathLike) -> tuple[caffe_pb2.SolverState, list[np.ndarray]]:
    """Read a state without its history, and the arrays of the history. All known fields are checked to be decodable.

    Raises `FileError`. The content of `average`, `buffer` and `memory` is decoded by `arrays`.
    """
    if detect.is_hdf5(path):
        return _read_hdf5(path)
    rest: list[bytes] = []
    history: list[np.ndarray] = []
    with detect.binary(path, "state") as view:
        start = 0
        for field in wire.fields(view):
            _check(field, _STATE, path)
            if field.number == _HISTORY:
                history.append(blobs.decode(field.view, f"{path}: history {len(history)}"))
            else:
                rest.append(bytes(view[start : field.end]))
            start = field.end
    return _parse(b"".join(rest), path), history


def arrays(entries: Iterable[Any], kind: str, path: PathLike) -> dict[tuple[int, str, str], np.ndarray]:
    """Decode the arrays of a state's `average`, `buffer` or `memory`, selected by `kind`, by net, layer and name."""
    found = {}
    for entry in entries:
        what = f'{path}: {kind} "{entry.name}" of "{entry.layer}"'
        try:
            view = memoryview(entry.value.SerializeToString())
            found[entry.net, entry.layer, entry.name] = blobs.decode(view, what)
        except wire.WireError as error:
            raise _damaged(what, str(error)) from error
    return found


def write(path: PathLike, state: caffe_pb2.SolverState, history: Sequence[np.ndarray]) -> None:
    """Write a .solverstate with the arrays as history. The file appears complete or not at all."""
    text = state.SerializeToString()
    middle = max((field.end for field in wire.fields(memoryview(text)) if field.number < _HISTORY), default=0)
    with files.atomic(path) as file:
        file.write(text[:middle])
        for array in history:
            proto = blobs.encode(array)
            file.write(wire.key(_HISTORY, sum(map(len, proto))))
            file.writelines(proto)
        file.write(text[middle:])


def write_hdf5(path: PathLike, state: caffe_pb2.SolverState, history: Sequence[np.ndarray]) -> None:
    """Write the HDF5 form: /iter, /learned_net, /current_step, /history/<index>, and one dataset for additional
    fields.
    """
    extra = caffe_pb2.SolverState()
    extra.CopyFrom(state)
    for field, _ in state.ListFields():
        if field.number < _OURS:
            extra.ClearField(field.name)
    learned_net = state.learned_net.encode() + b"\0"
    with hdf5.writing(path) as file:
        file.create_dataset("iter", data=np.array([state.iter], np.int32))
        file.create_dataset("learned_net", data=np.array(learned_net, dtype=f"S{len(learned_net)}"))
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        group = file.create_group("history")
        for index, array in enumerate(history):
            hdf5.save_array(group, str(index), array)
        if extra.ByteSize():
            file.create_dataset(_EXTRA, data=np.frombuffer(extra.SerializeToString(), np.uint8))


def find_weights(learned_net: str, state_path: PathLike) -> Path:
    """Find the weights of a state: at the path in the state, or beside the state. Raises `FileError`."""
    if not learned_net or "\0" in learned_net:
        raise FileError(f"{state_path}: learned_net is {learned_net!r}, expected the path of the weights; {_AGAIN}")
    candidates = [Path(learned_net), Path(state_path).parent / Path(learned_net).name]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    places = " nor ".join(f'"{os.path.abspath(candidate)}"' for candidate in dict.fromkeys(candidates))
    raise FileError(f"{state_path}: its weights are neither at {places}; put {Path(learned_net).name} beside it")


def _read_hdf5(path: PathLike) -> tuple[caffe_pb2.SolverState, list[np.ndarray]]:
    with hdf5.reading(path, "state", "history") as file:
        names = set(file)
        stored = hdf5.dataset(file, _EXTRA, "u").tobytes() if _EXTRA in names else b""
        try:
            for field in wire.fields(memoryview(stored)):
                _check(field, _STATE, path, first=_OURS)
        except wire.WireError as error:
            raise _damaged(f"{path}: {_EXTRA}", str(error)) from error
        state = _parse(stored, path)
        state.iter = _integer(file, "iter")
        if "learned_net" in names:
            state.learned_net = hdf5.text(file, "learned_net")
        if "current_step" in names:
            state.current_step = _integer(file, "current_step")
        history = hdf5.member(file, "history")
        return state, [hdf5.numbers(history, index) for index in range(len(history))]


def _integer(file: Any, name: str) -> int:
    """Return the single 32-bit integer in a dataset."""
    values = hdf5.dataset(file, name, "iu").ravel()
    if values.size != 1 or not -(1 << 31) <= int(values[0]) < 1 << 31:
        raise ValueError(f"{name} holds {values[:5].tolist()}, expected one whole number of 32 bits")
    return int(values[0])


def _parse(stored: bytes, path: PathLike) -> caffe_pb2.SolverState:
    """Parse a state from bytes that `_check` has accepted."""
    try:
        return caffe_pb2.SolverState.FromString(stored)
    except DecodeError as error:
        raise _damaged(str(path), str(error)) from error


def _check(field: wire.Field, message: Descriptor, path: PathLike, first: int = 0) -> None:
    """Raise a `FileError` for a field that protobuf would ignore, truncate, or return as bytes.

    Unknown fields and the content of BlobProto are not checked.
    """
    known = message.fields_by_number.get(field.number)
    if known is None:
        return
    if field.number < first:
        raise _damaged(f"{path}: {_EXTRA}", f"{known.name} does not belong in it")
    whole = known.type == FieldDescriptor.TYPE_INT32
    if field.kind != (wire.VARINT if whole else wire.BYTES):
        raise _damaged(str(path), f"{known.name} has wire type {field.kind}")
    if (whole and (1 << 31) <= field.integer < (1 << 64) - (1 << 31)) or field.integer >= 1 << 64:
        raise _damaged(str(path), f"{known.name} is {field.integer}, which has more than 32 bits")
    if known.type == FieldDescriptor.TYPE_STRING:
        try:
            bytes(field.view).decode()
        except UnicodeDecodeError as error:
            raise _damaged(str(path), f"{known.name} is not UTF-8 text: {bytes(field.view[:50])!r}") from error
    if known.message_type is not None and known.message_type.name != "BlobProto":
        for inner in wire.fields(field.view):
            _check(inner, known.message_type, path)


def _damaged(what: str, fact: str) -> FileError:
    return FileError(f"{what}: is damaged ({fact}); {_AGAIN}")
