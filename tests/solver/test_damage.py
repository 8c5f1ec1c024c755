"""Damaged solver states: each is restored, or rejected with one error that leaves the solver unchanged."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.errors import CaffeError, DataError, FileError, SolverError
from caffe.net.plan.loss_scale import LossScale
from caffe.proto import caffe_pb2, state, text, weights
from caffe.proto import weight_average as average
from caffe.solver import get_solver
from tests.data import helpers
from tests.solver import damage, small

TESTED = "test_iter: 2 test_interval: 2 "
RECURRENT = """
layer { name: "x" type: "DummyData" top: "x" top: "cont" dummy_data_param {
  shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "h" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "l" type: "Reduction" bottom: "h" top: "l" loss_weight: 1 }
"""
RECORDS = """
layer { name: "data" type: "Data" top: "data" top: "label"
  data_param { source: "records" backend: LMDB batch_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
VALLEY = """
layer { name: "a" type: "Parameter" top: "a" parameter_param { shape { dim: 2 } } }
layer { name: "b" type: "Power" bottom: "a" top: "b" power_param { shift: -1 scale: 0.5 } }
layer { name: "c" type: "Power" bottom: "b" top: "c" power_param { power: 4 } }
layer { name: "l" type: "Reduction" bottom: "c" top: "l" loss_weight: 1 reduction_param { operation: SUM } }
"""
SOLVERS = {
    "sgd": TESTED,
    "adam": 'type: "Adam" base_lr: 0.01 lr_policy: "multistep" stepvalue: 2',
    "plateau": f'{TESTED} lr_policy: "plateau" patience: 0',
    "average": "ema_decay: 0.5",
    "scale": "",
    "lstm": RECURRENT,
    "records": RECORDS,
    "lbfgs": VALLEY,
    "bfgs": VALLEY,
}
FORMS = ("BINARYPROTO", "HDF5")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.write(tmp_path)
    return tmp_path


def make(name, form="BINARYPROTO"):
    """Return a solver that continued after a snapshot, and the path of the snapshot's state."""
    param = small.param("" if SOLVERS[name].startswith("\n") else SOLVERS[name])
    param.snapshot_format = caffe_pb2.SolverParameter.SnapshotFormat.Value(form)
    if SOLVERS[name].startswith("\n"):
        param.ClearField("net")
        text.parse(SOLVERS[name], param.net_param)
    if name == "records":
        helpers.write_lmdb(Path("records"), helpers.images(7))
    if name in ("lbfgs", "bfgs"):
        param.type, param.momentum, param.base_lr, param.weight_decay = name.upper(), 0, 1, 0
    solver = get_solver(param)
    if name == "scale":
        solver.net.loss_scale = LossScale()  # as for FLOAT16, which needs a GPU
    solver.step(3)
    path = solver.snapshot()
    solver.step(2)
    return solver, Path(path)


def put_to_the_test(solver, path):
    """Restore a state. Assert that this works, or raises one error and changes nothing. Return whether it worked."""
    before, error = damage.fingerprint(solver), None
    try:
        solver.restore(path)
    except CaffeError as raised:
        error = raised
    if error is None:
        return True
    after = damage.fingerprint(solver)
    assert {name for name in before if before[name] != after[name]} == set(), error
    assert isinstance(error, FileError | SolverError)
    assert str(error).startswith(f"{path}: ")
    return False


def run(name, form, count, seed):
    """Restore `count` damaged states; return the number of rejected states."""
    solver, path = make(name, form)
    whole, rng, refused = path.read_bytes(), random.Random(f"{name} {form} {seed}"), 0
    target = Path("damaged.solverstate")
    for number in range(count):
        if form == "HDF5":
            damage.mutate_hdf5(path, target, rng)
        else:
            target.write_bytes(damage.mutated(whole, rng))
        if not put_to_the_test(solver, target):
            refused += 1
        elif number % 3 == 0:
            solver.step(1)
    solver.restore(path)
    solver.step(2)
    return refused


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_damaged_states(name, form):
    assert run(name, form, 8, 0) > 1


@pytest.mark.parametrize("form", FORMS)
def test_damaged_weights(form):
    """The weight file is checked before the net is changed, and the state is not restored without its weights."""
    solver, path = make("sgd", form)
    model = Path(state.read(path)[0].learned_net)
    whole, rng, refused = model.read_bytes(), random.Random(form), 0
    for _ in range(40):
        at = rng.randrange(len(whole))
        end = at if rng.random() < 0.3 else len(whole)
        model.write_bytes((whole[:at] + rng.randbytes(1) + whole[at + 1 :])[:end])
        refused += not put_to_the_test(solver, path)
    assert refused > 10


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_many_damaged_states(name, form):
    assert run(name, form, 800 if form == "BINARYPROTO" else 400, 1) > 100


# -- what the errors say -------------------------------------------------------------------------------------------


def altered(path, form, change):
    """Return a copy of a state after `change` was applied to its message."""
    head, history = state.read(path)
    change(head)
    (state.write_hdf5 if form == "HDF5" else state.write)("altered.solverstate", head, history)
    return Path("altered.solverstate")


def fill(entries, name, *values):
    """Replace the numbers of the entry of this name, or of the first entry."""
    found = next(each for each in entries if name in (each.name, ""))
    found.value.CopyFrom(weights.blob_to_proto(np.array(values, np.float64)))


def move(head, old, new):
    """Replace the text of the position of the train net's data."""
    assert old in head.source[0].position
    head.source[0].position = head.source[0].position.replace(old, new)


def rename(entries, old, new):
    next(each for each in entries if each.name == old).name = new


CHANGES = {
    "cut generator": ("sgd", lambda head: setattr(head, "random_state", b"\1" * 100), "random_state has 100 bytes"),
    "no generator": (
        "sgd",
        lambda head: setattr(head, "random_state", b"\1" * 5056),
        "is not a state of torch's",
    ),
    "empty generator": ("sgd", lambda head: setattr(head, "random_state", b""), "random_state has 0 bytes"),
    "no weights": ("sgd", lambda head: setattr(head, "learned_net", ""), "learned_net is '', expected the path"),
    "iter": ("sgd", lambda head: setattr(head, "iter", -3), "iter is -3, expected 0 or more"),
    "step": ("sgd", lambda head: setattr(head, "current_step", -1), "current_step is -1, expected 0 or more"),
    "position": ("sgd", lambda head: setattr(head.source[0], "position", b"\xff{"), "cannot go to position"),
    "row": ("sgd", lambda head: move(head, b'"row": ', b'"row": 999999'), 'row is 99999.*, but "data.h5" has 17 rows'),
    "file": ("sgd", lambda head: move(head, b'"file": 0', b'"file": 3'), "file is 3, but there are 1 files"),
    "pass": ("sgd", lambda head: move(head, b'"pass": 0', b'"pass": -1'), "pass is -1, expected a whole number"),
    "key": ("records", lambda head: move(head, b'"key": "', b'"key": "x'), "key is x.*, expected hexadecimal digits"),
    "policy": ("plateau", lambda head: fill(head.memory, "best", 1, 2), "holds 2 numbers, expected 1"),
    "waited": (
        "plateau",
        lambda head: fill(head.memory, "waited", 0.5),
        "waited of its memory is 0.5, expected",
    ),
    "best": ("plateau", lambda head: fill(head.memory, "best", np.nan), "best of its memory is nan, expected a loss"),
    "names": ("plateau", lambda head: rename(head.memory, "best", "bust"), r"but not \['best'\]"),
    "owner": (
        "plateau",
        lambda head: setattr(head.memory[0], "layer", "police"),
        'memory of "police", expected',
    ),
    "pairs": ("lbfgs", lambda head: fill(head.memory, "s0", 1, 2, 3), "its memory has the shapes"),
    "curvature": ("lbfgs", lambda head: fill(head.memory, "s0", 0, 0), "y's = 0, expected above 0"),
    "inverse": ("bfgs", lambda head: fill(head.memory, "", 1, 2, 3), "its memory has the shapes"),
    "scale": ("scale", lambda head: fill(head.memory, "value", -1), "its loss scale is .*-1"),
    "buffer": ("lstm", lambda head: fill(head.buffer, "", 1, 2, 3), 'buffer "state" of layer "h" has shape'),
    "average": ("average", lambda head: fill(head.average, "", 1, 2), "moving average does not fit"),
    "shape": ("average", lambda head: head.average[0].value.shape.dim.append(1 << 62), "no array has the shape"),
}


@pytest.mark.parametrize(
    ("what", "form"),
    [
        pytest.param(what, form, marks=[pytest.mark.long] * (form == "HDF5" and number % 4 > 0))
        for number, what in enumerate(CHANGES)
        for form in FORMS
    ],
)
def test_what_does_not_fit_is_named(what, form):
    name, change, message = CHANGES[what]
    solver, path = make(name, form)
    path, before = altered(path, form, change), damage.fingerprint(solver)
    with pytest.raises((FileError, SolverError), match=f"(?s)altered.solverstate: .*({message})"):
        solver.restore(path)
    assert damage.fingerprint(solver) == before


def test_a_name_that_is_no_text():
    solver, path = make("sgd")
    path.write_bytes(path.read_bytes().replace(b"snap_iter", b"\xff\xfep_iter"))
    with pytest.raises(FileError, match=r"is damaged \(learned_net is not UTF-8 text"):
        state.read(path)
    assert not put_to_the_test(solver, path)


def test_a_state_without_weights_does_not_change_the_net():
    """As in Caffe, learned_net is optional."""
    solver, path = make("sgd")
    own = solver.net.params["ip1"][0].data.copy()
    solver.restore(altered(path, "BINARYPROTO", lambda head: head.ClearField("learned_net")))
    assert solver.iter == 3
    np.testing.assert_array_equal(solver.net.params["ip1"][0].data, own)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("iter", np.array([], np.int32), r"iter holds \[\], expected one whole number of 32 bits"),
        ("iter", np.array([2.5]), "/iter holds float64"),
        ("learned_net", np.array([1, 2]), r"learned_net holds int64 of shape \(2,\), expected a text"),
        ("learned_net", np.bytes_(b"\xff\xfe"), "the HDF5 file is damaged"),
        ("history/1", np.bytes_(b"text"), "/history/1 holds |S4"),
        ("history", np.array([1, 2]), "the HDF5 file is damaged"),
        ("cafetiere", np.arange(9, dtype=np.uint8), "is damaged"),
    ],
)
def test_an_hdf5_state_with_odd_datasets(name, value, message):
    solver, path = make("sgd", "HDF5")
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    before = damage.fingerprint(solver)
    with pytest.raises(FileError, match=f"{path}: .*{message}"):
        solver.restore(path)
    assert damage.fingerprint(solver) == before


def test_weights_in_a_dataset_in_place_of_a_group():
    solver, path = make("sgd", "HDF5")
    path = altered(path, "HDF5", lambda head: setattr(head, "learned_net", "data.h5"))
    assert not put_to_the_test(solver, path)


def test_a_data_source_of_the_user_that_refuses_its_position():
    """The valid positions of such a source are not known, so its position is set first; after an error, the others are
    reset.
    """
    solver, path = make("sgd")

    def seek(position):
        raise DataError("no such place")

    solver.test_nets[0].sources["data"].seek = seek
    solver.test_nets[0].sources["data"].check_position = lambda position: None
    before = damage.fingerprint(solver)
    with pytest.raises(SolverError, match=r"snap_iter_3.solverstate: no such place"):
        solver.restore(path)
    del solver.test_nets[0].sources["data"].seek
    assert damage.fingerprint(solver) == before


@pytest.mark.parametrize("part", ["policy", "rule"])
def test_a_policy_or_rule_of_the_user_that_refuses_its_memory(part, monkeypatch):
    solver, path = make("plateau")
    own = getattr(solver, part)

    def recall(*memory):
        own.waited = 99
        raise SolverError("too little memory")

    monkeypatch.setattr(type(own), "recall", lambda self, *memory: recall())
    before = damage.fingerprint(solver)
    with pytest.raises(SolverError, match=r"snap_iter_3.solverstate: too little memory"):
        solver.restore(path)
    assert damage.fingerprint(solver) == before
    assert vars(own).get("waited") != 99


@pytest.mark.parametrize("form", FORMS)
def test_the_average_of_a_damaged_state(form):
    _, path = make("average", form)
    for name in ("x", "7", "²"):
        broken = altered(path, form, lambda head, name=name: setattr(head.average[0], "name", name))
        missing = f'has a moving average of blob "{name}" of layer "ip1", missing in snap_iter_3'
        with pytest.raises(FileError, match=missing):
            average.read(broken)
