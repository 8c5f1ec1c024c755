"""Exercises: each has a different planted fault, and solutions are marked by running them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caffe.cli import main
from caffe.errors import CaffeError
from caffe.exercise import codes, make, mark


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def healthy(student):
    """The healthy files in the student's folder."""
    for name in ("net.prototxt", "solver.prototxt"):
        text = Path("class", "key", student, name).read_text()
        Path("class", student, name).write_text(text.replace(f"../../{student}/data", "data"))


@pytest.mark.long
def test_make_and_mark(capsys, monkeypatch):
    monkeypatch.setattr("caffe.exercise.writing.STEPS", 60)
    flags = ["exercise", "make", "-codes", "rate-too-high,snapshot-never", "-students", "3", "-o", "class"]
    assert main(flags) == 0
    students = ["student01", "student02", "student03"]
    texts = {(Path("class", each) / "solver.prototxt").read_text() for each in students}
    assert len(texts) == 3
    keys = [json.loads(Path("class/key", each, "key.json").read_text()) for each in students]
    assert [key["codes"][0] for key in keys] == ["rate-too-high", "snapshot-never", "rate-too-high"]
    capsys.readouterr()
    assert main(["exercise", "mark", "class"]) == 0
    assert capsys.readouterr().out.endswith("0 of 6 points\n")
    Path("class/student01/answer.txt").write_text("rate-too-high\n")
    healthy("student01")
    Path("class/student02/answer.txt").write_text("dead-units")
    healthy("student02")
    net = Path("class/student03/net.prototxt")
    net.write_text(net.read_text().replace("train.npz", "test.npz"))
    found = mark("class")
    assert [(each.named, each.repaired) for each in found] == [(True, True), (False, True), (False, False)]
    assert "it was snapshot-never" in found[1].text
    assert "read other sources" in found[2].text
    Path("class/student03/net.prototxt").write_text("layer {")
    assert not mark("class")[2].repaired


def test_what_cannot_be_made(folder, capsys):
    with pytest.raises(CaffeError, match=r'no exercise for "rate-to-high"; did you mean "rate-too-high"'):
        make("class", ["rate-to-high"], 1)
    (folder / "class").mkdir()
    (folder / "class" / "x").write_text("")
    with pytest.raises(CaffeError, match="already exists"):
        make("class", ["dead-units"], 1)
    with pytest.raises(CaffeError, match="has no key"):
        mark(folder)
    for words in (["make"], ["mark"], ["mar"], ["make", "class"]):
        assert main(["exercise", *words]) == 1
    assert len(codes()) > 20
