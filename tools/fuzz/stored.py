"""Weight files and solver states, binary and HDF5."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import caffe
from tools.fuzz.kinds import Case, LeftOut, kind
from tools.fuzz.mutation import damaged, damaged_message

_NETS = ("small", "branched", "recurrent")
_MARK = 7.25


class _Heard(logging.Handler):
    """Counts warnings."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno >= logging.WARNING


_HEARD = _Heard()
logging.getLogger("caffe").addHandler(_HEARD)


@functools.cache
def _net(path: Path) -> Any:
    return caffe.Net(str(path), caffe.TRAIN)


@functools.cache
def _solver(path: Path) -> Any:
    return caffe.get_solver(str(path))


@functools.cache
def _content(path: Path) -> bytes:
    return path.read_bytes()


@kind
def weights(case: Case) -> None:
    """A damaged .caffemodel."""
    name = case.rng.choice(_NETS)
    content = damaged_message(_content(case.seeds / f"{name}.caffemodel"), case.rng)
    _load(case, name, case.write("w.caffemodel", content))


@kind
def weights_hdf5(case: Case) -> None:
    """Damaged weights in HDF5."""
    name = case.rng.choice(_NETS)
    path = case.scratch / "w.h5"
    damage_hdf5(_content(case.seeds / f"{name}.h5"), path, case)
    _load(case, name, path)


def _load(case: Case, name: str, path: Path) -> None:
    """Load the file. An error must leave all weights unchanged; success must change all weights or warn."""
    net = _net(case.seeds / f"{name}.prototxt")
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = _MARK
    before = _HEARD.count
    try:
        net.copy_from(str(path))
    except caffe.CaffeError:
        if not all((blob.data == _MARK).all() for blobs in net.params.values() for blob in blobs):
            raise LeftOut("an error after a part of the weights was changed") from None
        raise
    kept = {
        f"{layer}/{index}"
        for layer, blobs in net.params.items()
        for index, blob in enumerate(blobs)
        if blob.data.size and (blob.data == _MARK).all()
    }
    if kept and _HEARD.count == before:
        raise LeftOut(f"{name}: no error, no warning, unchanged: {', '.join(sorted(kept))}")


@kind
def state(case: Case) -> None:
    """A damaged .solverstate."""
    content = damaged_message(_content(case.seeds / "state0_iter_2.solverstate"), case.rng)
    _solver(case.seeds / "state0.prototxt").restore(str(case.write("s.solverstate", content)))


@kind
def state_hdf5(case: Case) -> None:
    """A damaged solver state in HDF5."""
    path = case.scratch / "s.solverstate.h5"
    damage_hdf5(_content(case.seeds / "state1_iter_2.solverstate.h5"), path, case)
    _solver(case.seeds / "state1.prototxt").restore(str(path))


def damage_hdf5(content: bytes, path: Path, case: Case) -> None:
    """Write an HDF5 file with bytes or with members changed."""
    import h5py

    if case.rng.random() < 0.6:
        path.write_bytes(damaged(content, case.rng))
        return
    path.write_bytes(content)
    with warnings.catch_warnings(), h5py.File(path, "r+") as file:
        warnings.simplefilter("ignore")
        names: list[str] = []
        file.visit(names.append)
        for _ in range(case.rng.choice((1, 1, 2))):
            name = case.rng.choice(names)
            with contextlib.suppress(KeyError, RuntimeError):  # the last change truncated it
                old = file[name]
                del file[name]
                _put(file, name, old, case)


def _put(file: Any, name: str, old: Any, case: Case) -> None:
    """Replace a member by something else."""
    import h5py

    rng = case.rng
    link = rng.randrange(12)
    if link == 0:
        file[name] = h5py.SoftLink(rng.choice(("/", "/none", "/data", name)))
    elif link == 1:
        file[name] = h5py.ExternalLink(
            rng.choice((str(case.seeds / "data.h5"), "none.h5", ".")), rng.choice(("/", "/data"))
        )
    elif link == 2:
        file.create_group(name)
    elif link == 3:
        external = [(str(case.seeds / "0.png"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, (2, 3), "f4", external=external)
    elif link == 4:
        side = rng.choice((1 << 10, 1 << 20, 1 << 40))
        file.create_dataset(name, (side, side), "f4", chunks=(16, 16))
    elif link == 5:
        layout = h5py.VirtualLayout((4, 6), "f4")
        layout[...] = h5py.VirtualSource(str(case.seeds / "data.h5"), "data", (4, 6))
        file.create_virtual_dataset(name, layout)
    elif link > 6:
        whole = isinstance(old, h5py.Dataset) and (old.size or 0) < 1000
        file[name] = old[()] if link == 11 and whole else _odd(rng)


def _odd(rng: random.Random) -> Any:
    import h5py

    values = [np.array([], np.int32), np.array([-4], np.int32), np.array([1 << 40]), np.float32(2.5), 3, b"", "text"]
    values += [np.bytes_(b"\xff\xfe\0"), h5py.Empty("f"), np.zeros((3, 2)), np.array([1 + 2j]), np.array([True])]
    values += [np.zeros(4, [("a", "f4"), ("b", "i4")]), np.array([b"x"] * 2, "S4"), np.zeros((0, 5), np.float32)]
    values += [np.zeros((1,) * 30, np.float16), np.array(["a", "b"], dtype=object), np.float64(float("nan"))]
    return rng.choice(values)
