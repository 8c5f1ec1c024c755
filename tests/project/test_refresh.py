"""Settings that depend on the number of records, after some records are removed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from caffe.cli import main
from caffe.project.refresh import refresh
from caffe.proto import upgrade


@pytest.fixture
def project(pictures, monkeypatch):
    pictures.classes(("a b", "c"), 20)
    words = ["-net", "lenet", "-size", "16", "-batch", "8", "-epochs", "4", "-val", "50"]
    assert main(["new", "p", "-images", "images", *words]) == 0
    monkeypatch.chdir("p")


def counts(train, val):
    return {"train": Counter(train), "val": Counter(val)}


BEFORE = counts({"a b": 10, "c": 10}, {"a b": 10, "c": 10})


def test_batches_iterations_and_counts_follow(project):
    told = refresh(Path(), BEFORE, counts({"a b": 10, "c": 2}, {"a b": 10, "c": 1}))
    assert told == [
        "solver.prototxt: test_interval: 3 -> 2",
        "solver.prototxt: max_iter: 12 -> 8",
        "solver.prototxt: snapshot: 3 -> 2",
    ]
    solver = upgrade.read_solver("solver.prototxt")
    assert (solver.test_iter[0], solver.test_interval, solver.max_iter, solver.snapshot) == (1, 2, 8, 2)
    text = Path("solver.prototxt").read_text()
    for part in ("all 11 validation pictures", "(12 pictures / 8 a batch)", "4 epochs of 2 iterations"):
        assert part in text
    net = Path("train_val.prototxt").read_text()
    assert [layer.data_param.batch_size for layer in upgrade.read_net("train_val.prototxt").layer[:2]] == [8, 11]
    for part in ("# 12 pictures, in random order", "# 2 batches are all pictures", "# 11 pictures, never trained on"):
        assert part in net
    assert "| a b | 10 | 10 |\n| c | 2 | 1 |" in Path("README.md").read_text()


def test_numbers_that_people_have_set_stay(project):
    solver, net = Path("solver.prototxt"), Path("train_val.prototxt")
    solver.write_text(
        solver.read_text().replace("max_iter: 12", "max_iter: 100").replace("test_iter: 1 ", "test_iter: 9 ")
    )
    net.write_text(net.read_text().replace("batch_size: 20", "batch_size: 3"))
    refresh(Path(), BEFORE, counts({"a b": 10, "c": 2}, {"a b": 10, "c": 1}))
    read = upgrade.read_solver("solver.prototxt")
    assert (read.max_iter, read.test_iter[0], read.test_interval) == (100, 9, 2)
    assert upgrade.read_net("train_val.prototxt").layer[1].data_param.batch_size == 3


def test_a_test_of_several_batches_gets_others(project):
    before, after = counts({"c": 20}, {"c": 1000}), counts({"c": 20}, {"c": 900})
    for path, old, new in (
        ("solver.prototxt", "test_iter: 1", "test_iter: 10"),
        ("train_val.prototxt", "batch_size: 20", "batch_size: 100"),
    ):
        Path(path).write_text(Path(path).read_text().replace(old, new))
    assert refresh(Path(), before, after) == ["solver.prototxt: test_iter: 10 -> 9"]


def test_a_class_without_pictures_is_told(project):
    told = refresh(Path(), BEFORE, counts({"a b": 10}, {"a b": 10, "c": 10}))
    assert told[-1] == "c: no pictures are left to train on"
