"""Damaged or malicious HDF5 files: one error for each, and no access to other files."""

import h5py
import numpy as np
import pytest

from caffe.data.streams.hdf5 import read_arrays
from caffe.errors import CaffeError, FileError
from caffe.proto import hdf5, state, weights


def external(file, name):
    (path := file.filename + ".other")
    with open(path, "wb") as other:
        other.write(np.ones(4, np.float32).tobytes())
    file.create_dataset(name, (4,), "f4", external=[(path, 0, 16)])


def linked(file, name):
    with h5py.File(file.filename + ".h5", "w") as other:
        other["x"] = np.ones(4, np.float32)
    file[name] = h5py.ExternalLink(file.filename + ".h5", "/x")


def linked_softly(file, name):
    linked(file, "out")
    file[name] = h5py.SoftLink("/out")


def virtual(file, name):
    with h5py.File(file.filename + ".v", "w") as other:
        other["x"] = np.ones(4, np.float32)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[...] = h5py.VirtualSource(file.filename + ".v", "x", (4,))
    file.create_virtual_dataset(name, layout)


def round_links(file, name):
    file[name] = h5py.SoftLink("/" + name)


def huge(file, name):
    file.create_dataset(name, (1 << 20, 1 << 20), "f4", chunks=(16, 16))


def group(file, name):
    file.create_group(name)


def value(what):
    return lambda file, name: file.__setitem__(name, what)


ODD = [
    pytest.param(value("a text"), id="string"),
    pytest.param(value(np.zeros(2, [("a", "f4"), ("b", "i4")])), id="compound"),
    pytest.param(value(h5py.Empty("f4")), id="null"),
    pytest.param(value(np.array([1 + 2j])), id="complex"),
    *(group, huge, external, linked, linked_softly, virtual, round_links),
]


@pytest.mark.parametrize("put", ODD)
def test_weights(put, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        put(file, "data/ip/0")
    if put is group:  # a layer of this name without blobs, which gives a warning
        assert weights.read(tmp_path / "w.h5") == {"ip/0": []}
        return
    with pytest.raises(FileError, match=r"w\.h5: the HDF5 file is damaged"):
        weights.read(tmp_path / "w.h5")


@pytest.mark.parametrize("put", ODD)
@pytest.mark.parametrize("name", ["iter", "learned_net", "current_step", "history", "history/0", "cafetiere"])
def test_states(put, name, tmp_path):
    path = tmp_path / "s.solverstate.h5"
    state.write_hdf5(path, state.caffe_pb2.SolverState(iter=3, learned_net="n", current_step=1), [np.ones(3)])
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        put(file, name)
    if (name, put) in {("history", group), ("learned_net", ODD[0].values[0])}:
        state.read(path)  # no history, another name
        return
    with pytest.raises(FileError, match=r"s\.solverstate\.h5: "):
        state.read(path)


@pytest.mark.parametrize("put", ODD)
def test_data(put, tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        put(file, "data")
    with pytest.raises(CaffeError, match=r"d\.h5"):
        read_arrays(str(tmp_path / "d.h5"), ["data"])


def test_a_group_in_itself_ends(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        layer = file.create_group("data/ip")
        layer["again"] = file["data"]
    with pytest.raises(FileError, match="is a group that contains itself"):
        weights.read(tmp_path / "w.h5")


def test_links_within_the_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["other/0"] = np.arange(3, dtype=np.float32)
        file["data/ip"] = h5py.SoftLink("/other")
    assert weights.read(tmp_path / "w.h5")["ip"][0].tolist() == [0, 1, 2]


def test_an_array_that_says_to_be_larger_than_its_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        huge(file, "huge")
        file.create_dataset("contiguous", (5,), "f4")  # no number is stored
        file.create_dataset("compressed", (1000,), "f4", chunks=(10,))
        for name in ("huge", "contiguous"):
            with pytest.raises(ValueError, match=r"says it holds .* bytes, but has 0"):
                hdf5.dataset(file, name, "f")
        assert not hdf5.dataset(file, "compressed", "f").any()
