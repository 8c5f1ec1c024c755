"""`caffe test` with a report, and the loop of worst mistakes and corrected labels."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from caffe.cli import main
from caffe.data import open_source
from caffe.data.tools.statistics import images
from tests.project.conftest import Pictures


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A trained project with two wrong labels: one in the training data, one in the validation data."""
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    pictures = Pictures(tmp_path / "images")
    for part, count in (("train", 16), ("val", 7)):
        pictures.classes(("above", "below"), count, f"{part}/")
        pictures.write(f"{part}/above/wrong.png", kind=1)
    flags = ["-images", "images", "-net", "lenet", "-size", "16", "-epochs", "6", "-batch", "8"]
    assert main(["new", "project", *flags]) == 0
    monkeypatch.chdir("project")
    assert main(["train"]) == 0
    return tmp_path


def labels(part):
    source = open_source("LMDB", f"{part}_lmdb")
    try:
        return {key.decode(): label for key, _, label in images(source)}
    finally:
        source.close()


def test_the_report(project, capsys):
    capsys.readouterr()
    assert main(["test", "-confusion", "c.csv", "-calibration", "c.png"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("accuracy 0.9333 (14 of 15; 95 % interval 0.7018 to 0.9881)")
    assert "above      8   0.875" in out
    assert "most confused: above taken for below (1)" in out
    assert Path("c.csv").read_text().splitlines()[1:] == ["above,7,1", "below,0,7"]
    assert Path("c.png").exists()
    net = ["-model", "train_val.prototxt", "-weights", "snapshots/project_best.caffemodel"]
    assert main(["test", *net, "-report", "-iterations", "3"]) == 0
    assert "(14 of 15;" in capsys.readouterr().out  # items that are read again are not counted twice


def test_the_given_number_of_iterations_is_run(project, capsys):
    for words, count in (([], 1), (["-iterations", "50"], 50)):
        capsys.readouterr()
        assert main(["test", *words]) == 0
        assert f"Running for {count} iterations." in capsys.readouterr().err


def test_worst_mistakes_become_right_labels(project, capsys):
    assert main(["test", "-worst", "3", "-out", "worst"]) == 0
    assert "move wrong pictures into the folder of their class" in capsys.readouterr().out
    with open("worst/index.csv") as file:
        first, second, _ = csv.DictReader(file)
    assert first["key"].endswith("_wrong.png")
    assert first["picture"] == "0001_looks_like_below.png"
    assert Path("worst/worst.png").exists()
    before = labels("val")
    shutil.move(f"worst/above/{first['picture']}", "worst/below")
    next(Path("worst").glob(f"*/{second['picture']}")).unlink()
    assert main(["relabel", "worst"]) == 0
    out = capsys.readouterr().out
    assert "val_lmdb: 1 relabelled, 1 removed, 14 left" in out
    assert "next: caffe train -weights snapshots/project_best.caffemodel" in out
    after = labels("val")
    assert set(before) - set(after) == {second["key"]}
    assert {key for key in after if after[key] != before[key]} == {first["key"]}
    assert re.search(r"\| above \| 17 \| [67] \|\n\| below \| 16 \| [78] \|", Path("README.md").read_text())
    assert "# 14 pictures, never trained on" in Path("train_val.prototxt").read_text()
    assert "batch_size: 14  # 1 batches are all pictures" in Path("train_val.prototxt").read_text()
    assert "batches of a test: all 14 validation pictures" in Path("solver.prototxt").read_text()
    with open("changes.csv") as file:
        assert {row["new"] for row in csv.DictReader(file)} == {"below", ""}
    with open("examples.csv") as file:
        assert sum(row["split"] == "val" for row in csv.DictReader(file)) == 14


def test_the_training_data_can_be_looked_at_too(project, capsys):
    assert main(["test", "-part", "train", "-worst", "1", "-out", "worst"]) == 0
    with open("worst/index.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["key"].endswith("_wrong.png")
    assert row["database"] == "train_lmdb"
    assert main(["relabel", "worst"]) == 0
    assert "nothing to change" in capsys.readouterr().out
    (picture,) = Path("worst").glob("*/*_looks_like_*.png")
    Path("worst/bird").mkdir()
    shutil.move(picture, "worst/bird")
    assert main(["relabel", "worst"]) == 1
    assert '"bird" is not a class' in capsys.readouterr().err


def test_errors_name_the_fault(project, capsys):
    wrong = [
        (["test", "-worst", "3"], "give both, or neither"),
        (["test", "-worst", "3", "-out", "snapshots"], '"snapshots": already exists'),
        (["test", "-part", "tain"], "-part tain: expected train or val"),
        (["test", "-report", "-mc", "3"], "-report: the report describes one net and one run"),
        (["test", "-confusion", "x.doc"], "x.doc"),
        (["relabel", "snapshots"], "has no index.csv"),
    ]
    for argv, text in wrong:
        assert main(argv) == 1
        assert text in capsys.readouterr().err
