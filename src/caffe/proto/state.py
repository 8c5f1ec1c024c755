"""Solver states: .solverstate files and their HDF5 form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from caffe.errors import FileError
from caffe.proto import blobs, caffe_pb2, detect, files, hdf5, wire
from caffe.proto.files import PathLike

__all__ = ["find_weights", "read", "write", "write_hdf5"]

_HISTORY = 3  # in SolverState
_OURS = 20000  # fields from here on are our own additions
_EXTRA = "cafetiere"  # HDF5: dataset with the bytes of a SolverState of our own fields


def read(path: PathLike) -> tuple[caffe_pb2.SolverState, list[np.ndarray]]:
    """The state without its history, and the history's arrays. Raises `FileError`."""
    if detect.is_hdf5(path):
        return _read_hdf5(path)
    rest: list[bytes] = []
    history: list[np.ndarray] = []
    with detect.binary(path, "state") as view:
        start = 0
        for field in wire.fields(view):
            if field.number == _HISTORY and field.kind == wire.BYTES:
                history.append(blobs.decode(field.view, f"{path}: history {len(history)}"))
            else:
                rest.append(bytes(view[start : field.end]))
            start = field.end
    return caffe_pb2.SolverState.FromString(b"".join(rest)), history


def write(path: PathLike, state: caffe_pb2.SolverState, history: Sequence[np.ndarray]) -> None:
    """Write a .solverstate whose history holds the arrays. The file appears whole or not at all."""
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
    """Write the HDF5 form: /iter, /learned_net, /current_step and /history/<index>; our own fields in one dataset."""
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
    """Where the weights of a state are: at the path it names, or beside it. Raises `FileError`."""
    candidates = [Path(learned_net), Path(state_path).parent / Path(learned_net).name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " nor ".join(f'"{os.path.abspath(candidate)}"' for candidate in dict.fromkeys(candidates))
    raise FileError(f"{state_path}: its weights are neither at {places}; put {Path(learned_net).name} beside it")


def _read_hdf5(path: PathLike) -> tuple[caffe_pb2.SolverState, list[np.ndarray]]:
    with hdf5.reading(path, "state", "history") as file:
        stored = file[_EXTRA][()].tobytes() if _EXTRA in file else b""
        state = caffe_pb2.SolverState.FromString(stored)
        state.iter = int(np.ravel(file["iter"][()])[0])
        if "learned_net" in file:
            state.learned_net = np.asarray(file["learned_net"][()]).tobytes().rstrip(b"\0").decode()
        if "current_step" in file:
            state.current_step = int(np.ravel(file["current_step"][()])[0])
        return state, [hdf5.load_array(file["history"][str(i)]) for i in range(len(file["history"]))]
