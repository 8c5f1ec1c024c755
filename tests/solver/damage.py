"""Damaged solver states: mutations of binary and HDF5 files, and the state that a failed `restore` must not change."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from caffe.proto import caffe_pb2, wire
from caffe.solver import kept

_GARBAGE = (b"", b"\0", b"\xff\xfe\xff", b"{}", b'{"row": "x"}', b"snap", b"\x08\x96\x01", bytes(range(256)))
_NUMBERS = (0, 1, 7, 1 << 31, (1 << 63) + 5, (1 << 64) - 1, (1 << 64) - 3, 1 << 40)


def fingerprint(solver: Any) -> dict[str, Any]:
    """Return all parts of a solver that a restore can change, as numbers and bytes."""

    def raw(tensor: torch.Tensor | None) -> Any:
        return None if tensor is None else (tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes())

    scale = solver.net.loss_scale
    return {
        "iter": (solver.iter, solver.current_step, solver.lr),
        "weights": [raw(entry.tensor) for entry in solver.net.learnable],
        "diffs": [blob.diff.tobytes() for blobs in solver.net.params.values() for blob in blobs],
        "history": [raw(tensor) for tensor in solver.history],
        "average": [raw(tensor) for tensor in solver.average.tensors or []],
        "generator": torch.get_rng_state().numpy().tobytes(),
        "policy": dict(vars(solver.policy)),
        "rule": {name: raw(tensor) for name, tensor in solver.rule.memory().items()},
        "known": id(getattr(solver.rule, "_known", None)),
        "scale": None if scale is None else scale.memory(),
        "positions": [source.position() for _, source in kept.sources(solver.nets)],
        "buffers": [(name, id(value), raw(value)) for _, _, name, value in kept.buffers(solver.nets)],
    }


# -- binary --------------------------------------------------------------------------------------------------------


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a state with one fault."""
    kind = rng.randrange(8)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return _flipped(data, rng)
    return _edited(data, caffe_pb2.SolverState.DESCRIPTOR, rng)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    """Change a byte; in half of the cases near the beginning of a field, where the effect is largest."""
    ends = [0, *(field.end for field in wire.fields(memoryview(data)))]
    at = rng.choice(ends) + rng.randrange(12) if rng.random() < 0.5 else rng.randrange(len(data))
    at = min(at, len(data) - 1)
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def _edited(data: bytes, message: Any, rng: random.Random) -> bytes:
    """Remove, repeat or replace a field, or change its wire type; or make such a change inside the field."""
    pieces, start = [], 0
    for field in wire.fields(memoryview(data)):
        pieces.append((field, data[start : field.end]))
        start = field.end
    if not pieces:
        return data + _varint_field(rng.choice((1, 2, 7)), rng.choice(_NUMBERS))
    numbers = sorted({field.number for field, _ in pieces})
    number = rng.choice(numbers)
    index = rng.choice([index for index, (field, _) in enumerate(pieces) if field.number == number])
    field, piece = pieces[index]
    known = message.fields_by_number.get(number) if message is not None else None
    inner = known.message_type if known is not None else None
    if inner is not None and rng.random() < 0.7:
        content = _edited(bytes(field.view), inner, rng)
        new = wire.key(number, len(content)) + content
    else:
        new = _other(field, piece, rng)
    return b"".join([*(other for _, other in pieces[:index]), new, *(other for _, other in pieces[index + 1 :])])


def _other(field: wire.Field, piece: bytes, rng: random.Random) -> bytes:
    """Return the replacement of a field."""
    choice, number = rng.randrange(6), field.number
    if choice == 0:
        return b""
    if choice == 1:
        return piece * 2
    if choice == 2:
        return _varint_field(number, rng.choice(_NUMBERS))
    if choice == 3:
        return wire.varint(number << 3 | rng.choice((wire.FIXED32, wire.FIXED64, 3, 4))) + bytes(rng.randbytes(8))
    content = rng.choice(_GARBAGE) if choice == 4 else rng.randbytes(rng.choice((1, 3, 100)))
    if field.kind == wire.BYTES and rng.random() < 0.4:
        content = bytes(field.view)[: rng.randrange(len(field.view) + 1)]
    elif field.kind == wire.BYTES and field.view and rng.random() < 0.5:
        at = rng.randrange(len(field.view))
        content = bytes(field.view[:at]) + rng.choice(b'0123456789-.eE"x').to_bytes() + bytes(field.view[at + 1 :])
    return wire.key(number, len(content)) + content


def _varint_field(number: int, value: int) -> bytes:
    return wire.varint(number << 3 | wire.VARINT) + wire.varint(value)


# -- HDF5 ----------------------------------------------------------------------------------------------------------


def mutate_hdf5(source: Path, target: Path, rng: random.Random) -> None:
    """Write a copy of an HDF5 state with one fault."""
    data = source.read_bytes()
    kind = rng.randrange(6)
    if kind == 0:
        target.write_bytes(data[: rng.randrange(len(data))])
    elif kind == 1:
        at = rng.randrange(len(data))
        target.write_bytes(data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :])
    else:
        target.write_bytes(data)
        with h5py.File(target, "r+") as file:
            _edit_hdf5(file, rng, kind)


def _edit_hdf5(file: Any, rng: random.Random, kind: int) -> None:
    if kind == 2 and "cafetiere" in file:
        stored = mutated(file["cafetiere"][()].tobytes(), rng)
        del file["cafetiere"]
        file["cafetiere"] = np.frombuffer(stored, np.uint8)
        return
    names = ["iter", "learned_net", "current_step", "history", "cafetiere", *(f"history/{n}" for n in file["history"])]
    name = rng.choice([name for name in names if name in file])
    del file[name]
    if kind > 3:
        values = list(_odd_values(rng))
        value = rng.choice(values)
        if value is not None:
            file[name] = value
        else:
            file.create_group(name)


def _odd_values(rng: random.Random) -> Iterator[Any]:
    yield None
    yield from (np.array([], np.int32), np.array([-4], np.int32), np.array([1 << 40]), np.float32(2.5), 3)
    yield from (np.array(b"text"), b"", np.bytes_(b"\xff\xfe\0"), "a text", np.bytes_(rng.randbytes(30)))
    yield from (h5py.Empty("f"), np.zeros((3, 2), np.float64), np.array([1 + 2j]), np.array([True]))
    yield from (np.zeros(4, [("a", "f4"), ("b", "i4")]), np.array([os.fsencode("x")] * 2, dtype="S4"))
