"""Findings in the data and weights of a run: duplicates, implausible labels, layers without input."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

import caffe
from caffe.doctor import diagnose
from caffe.doctor.range_test import read_rates
from caffe.doctor.trial import Outcome
from tests.doctor import faults
from tests.doctor.faults import BUDGET


@pytest.fixture(autouse=True)
def data(tmp_path):
    faults.write_data(tmp_path)


def alarms(path, weights=""):
    return [finding.code for finding in diagnose(path, weights, budget=BUDGET).alarms]


def rewrite(folder, name, change):
    """Change the arrays of a data set."""
    with np.load(folder / f"{name}.npz") as file:
        arrays = change(dict(file))
    np.savez(folder / f"{name}.npz", **arrays)


def test_copies_in_the_training_data(tmp_path):
    rewrite(
        tmp_path,
        "train",
        lambda arrays: {key: np.tile(a[:100], (10, *[1] * (a.ndim - 1))) for key, a in arrays.items()},
    )
    assert alarms(faults.write(tmp_path)) == ["duplicate-records"]


def test_a_test_on_training_data(tmp_path):
    shutil.copy(tmp_path / "train.npz", tmp_path / "test.npz")
    path = faults.write(tmp_path, solver=[("test_iter: 4", "test_iter: 20")])
    assert alarms(path) == ["train-test-overlap"]


def test_a_test_of_few_classes(tmp_path):
    rewrite(
        tmp_path,
        "test",
        lambda arrays: {key: np.tile(a[arrays["label"] < 2], (5, *[1] * (a.ndim - 1))) for key, a in arrays.items()},
    )
    assert alarms(faults.write(tmp_path)) == ["validation-too-good"]


def test_labels_that_have_nothing_to_do_with_the_items(tmp_path):
    faults.write_data(tmp_path, labels=np.random.default_rng(1).permutation)
    report = diagnose(faults.write(tmp_path, solver=[("base_lr: 0.1", "base_lr: 0.03")]), budget=BUDGET)
    assert report.alarms[0].code == "labels-unrelated"
    assert "20 items" in report.alarms[0].evidence


def trained(path, weights):
    solver = caffe.get_solver(str(path))
    solver.step(60)
    solver.net.save(str(weights))
    return str(weights)


@pytest.mark.long
def test_weights_of_layers_with_other_names(tmp_path):
    weights = trained(faults.write(tmp_path), tmp_path / "w.caffemodel")
    assert alarms(tmp_path / "solver.prototxt", weights) == []
    slow = [("base_lr: 0.1", "base_lr: 0.001")]
    report = diagnose(faults.write(tmp_path, changes=[('"h1"', '"fc1"')], solver=slow), weights, budget=BUDGET)
    assert report.alarms[0].code == "weights-not-loaded"
    everything = [('name: "(h1|h2|out)"', 'name: "new_\\1"')]
    report = diagnose(faults.write(tmp_path, changes=everything), weights, budget=BUDGET)
    assert [(f.code, f.severity.word) for f in report.alarms] == [("weights-not-loaded", "error")]


@pytest.mark.long
def test_a_new_last_layer_is_no_mistake(tmp_path):
    weights = trained(faults.write(tmp_path), tmp_path / "w.caffemodel")
    assert alarms(faults.write(tmp_path, changes=[('name: "out"', 'name: "new"')]), weights) == []


@pytest.mark.long
def test_frozen_layers_need_weights_of_their_own(tmp_path):
    frozen = [(r'(name: "h1".*\n  param \{) lr_mult: 1', r"\1 lr_mult: 0")]
    weights = trained(faults.write(tmp_path), tmp_path / "w.caffemodel")
    assert alarms(faults.write(tmp_path, changes=frozen), weights) == []
    assert "frozen-layers" in alarms(faults.write(tmp_path, changes=frozen))


def test_figures_of_babysitting(tmp_path):
    report = diagnose(faults.write(tmp_path), budget=BUDGET)
    lines = {line.name: line for line in report.lines}
    assert "a guess among 10 has 2.3" in lines["first loss"].figure
    assert lines["overfitting a few items"].data["learned"]
    rates = lines["rates"].data
    assert rates["low"] <= rates["suggested"] <= rates["high"]
    assert 0.003 < rates["suggested"] < 1


@pytest.mark.parametrize("spike", [0, 2, 30])
def test_a_range_is_found_in_spite_of_spikes(spike):
    steps = np.arange(100)
    rates = 1e-6 * 1e6 ** (steps / 99)
    losses = 2.3 - 2 / (1 + (1e-2 / rates) ** 2)
    losses[90:] = np.nan
    losses[spike] = 50.0
    found = read_rates(Outcome(losses[:91], failed=90), 1e-6, 1.0, 100, 0.01)
    assert found is not None
    assert 1e-4 < found.low < found.suggested < found.high < 0.3


def test_there_is_always_a_range():
    found = read_rates(Outcome(np.full(60, 2.3)), 1e-6, 1.0, 60, 0.01)
    assert found is not None
    assert found.low < found.suggested < found.high


SEQUENCE = """layer {{ name: "data" type: "ArrayData" top: "data" top: "label"
  array_data_param {{ source: "{folder}/words.npz" batch_size: 16 }} }}
layer {{ name: "embed" type: "Embed" bottom: "data" top: "embed"
  embed_param {{ input_dim: 40 num_output: 16 weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "embed" top: "out"
  inner_product_param {{ axis: 2 num_output: 40 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" softmax_param {{ axis: 2 }} }}
"""


def test_classes_along_the_last_axis_and_symbols_as_inputs(tmp_path):
    words = np.random.default_rng(2).integers(40, size=(500, 8))
    np.savez(tmp_path / "words.npz", data=words.astype(np.float32), label=((7 * words) % 40).astype(np.float32))
    tests = [("test_iter: 4\ntest_interval: 500\n", ""), ("base_lr: 0.1", "base_lr: 1")]
    report = diagnose(faults.write(tmp_path, SEQUENCE, solver=tests), budget=BUDGET)
    assert report.alarms == []
    assert "% correct" in next(line.figure for line in report.lines if line.name == "the unchanged run")


IMAGES = """layer {{ name: "data" type: "ImageData" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 }}
  image_data_param {{ source: "{folder}/list.txt" batch_size: 8 new_height: 8 new_width: 8 }} }}
"""


@pytest.mark.long
def test_training_that_waits_for_large_images(tmp_path):
    rng = np.random.default_rng(3)
    rows = []
    for number in range(16):
        picture = np.kron(rng.integers(256, size=(8, 8, 3)), np.ones((60, 60, 1))).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        rows.append(f"{tmp_path / f'{number}.png'} {number % 2}\n")
    (tmp_path / "list.txt").write_text("".join(rows))
    text = IMAGES + faults.dense("h1", "data", 10) + faults.over("ReLU", "h1") + faults.dense("out", "h1", 2)
    text += faults.LOSS[faults.LOSS.index('layer {{ name: "loss"') :]
    tests = [("test_iter: 4\ntest_interval: 500\n", ""), ("base_lr: 0.1", "base_lr: 0.01")]
    report = diagnose(faults.write(tmp_path, text, solver=tests), budget=BUDGET)
    assert [finding.code for finding in report.alarms] == ["input-starved"]
    assert "batch in memory" in report.alarms[0].proof.text
