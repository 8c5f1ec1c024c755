"""Several processes give the same training as one process with the batches of all."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from caffe.data.pipeline.pool import cores
from caffe.parallel.launch import launch
from tests.conftest import ROOT
from tests.parallel import cases, divided_cases

SIZES = (2, pytest.param(3, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.long))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the data of the cases."""
    folder = tmp_path_factory.mktemp("parallel")
    cases.write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def found(place):
    """The results of the cases by case, number of processes, and rank. Each number of processes runs once."""
    known = {}

    def run(name, size, rank=0):
        if (name, size, rank) not in known and size == 1:
            known[name, 1, 0] = {**cases.CASES, **divided_cases.CASES}[name](1)
        elif (name, size, rank) not in known:
            more = ["brief"] if size == 2 else []  # of divided nets, in the same processes
            assert launch(["-m", "tests.parallel.divided_cases", str(place), *cases.CASES, *more], size, cores()) == 0
            for case in (*cases.CASES, *more):
                for number in range(size):
                    with np.load(place / f"{case}_{size}_{number}.npz") as file:
                        known[case, size, number] = dict(file)
        return known[name, size, rank]

    return run


def near(found, expected):
    """Whether arrays are equal up to the order of a few float32 additions."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = np.abs(value).max(initial=1e-3)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=3e-5 * scale, err_msg=name)


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def chosen(numbers, *starts):
    return {name: value for name, value in numbers.items() if name.startswith(starts)}


@pytest.mark.parametrize("size", SIZES)
def test_each_process_reads_its_part_of_the_whole_batch(found, size):
    whole = chosen(found("every_source", 1), "read")
    for rank in range(size):
        part = chosen(found("every_source", size, rank), "read")
        same(part, {name: value[rank::size] for name, value in whole.items()})


@pytest.mark.parametrize("size", SIZES)
def test_weights_and_losses_are_those_of_one_process(found, size):
    cases = dict.fromkeys(("every_source", "overlapped", "over_all"), ("weight", "losses"))
    for name, parts in {**cases, "rules": ("SGD", "Adam", "LARS", "LAMB")}.items():
        expected = chosen(found(name, 1), *parts)
        for rank in range(size):
            near(chosen(found(name, size, rank), *parts), expected)
            same(chosen(found(name, size, rank), *parts), chosen(found(name, size), *parts))


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_sent_while_backward_runs(found, size):
    assert found("overlapped", size)["sent early"] >= 2


@pytest.mark.parametrize("size", SIZES)
def test_tests_score_to_the_digit_what_one_process_scores(found, size):
    for rank in range(size):
        same(chosen(found("every_source", size, rank), "test"), chosen(found("every_source", 1), "test"))


@pytest.mark.parametrize("size", SIZES)
def test_a_run_resumed_from_a_snapshot_equals_an_uninterrupted_run(found, size, caplog):
    for rank in range(size):
        numbers = found("resumed", size, rank)
        same(
            {key.removeprefix("second "): value for key, value in chosen(numbers, "second").items()},
            {key.removeprefix("whole "): value for key, value in chosen(numbers, "whole").items()},
        )
    alone = chosen(cases.go_on(f"snap_{size}_iter_3.solverstate"), "read")
    assert f"the state is of {size} process(es), this run has 1" in caplog.text
    for rank in range(size):
        same(
            {f"second {name}": value[rank::size] for name, value in alone.items()},
            chosen(found("resumed", size, rank), "second read"),
        )


def test_steps_of_divided_nets_are_those_of_one_process(found):
    for rank in range(2):
        numbers = found("brief", 2, rank)
        for mode, losses in found("brief", 1).items():
            scale = np.abs(losses).max(initial=1e-3)
            np.testing.assert_allclose(numbers[mode], losses, rtol=0, atol=1e-6 * scale, err_msg=f"{mode} of {rank}")
            assert numbers[f"{mode} refuses"].all()
            assert numbers[f"{mode} shares"].any(), "a test net has the blobs of the train net"
            assert numbers[f"{mode} shares"].all()


@pytest.mark.long
def test_the_flow_of_caffe_s_train_script(place):
    flat = 'layer { name: "flow" type: "InnerProduct" bottom: "rows" top: "flow" inner_product_param { num_output: 2 '
    text = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 4 display: 0 net_param { layer { name: "h" type: "HDF5Data" '
    text += f'top: "rows" hdf5_data_param {{ source: "files.txt" batch_size: 6 }} }} {flat} '
    text += 'weight_filler { type: "xavier" } } } layer { name: "loss" type: "Reduction" bottom: "flow" top: "loss" '
    text += "loss_weight: 1 reduction_param { operation: SUMSQ } } }"
    (place / "flow.prototxt").write_text(text)
    done = subprocess.run([sys.executable, "-m", "tests.parallel.train_flow", "flow.prototxt", "flow"], timeout=120)
    assert done.returncode == 0
    first, second = (dict(np.load(place / f"flow_{rank}.npz")) for rank in range(2))
    same(second, first)
    assert np.abs(first["flow"]).max() > 0
