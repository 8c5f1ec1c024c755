"""`caffe summary`: the figures of nets for which they can be computed by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import caffe
from caffe.cli import main
from caffe.inspection import inspect
from caffe.net.measure.summary import Summary
from tests.conftest import ROOT

LENET = str(ROOT / "examples" / "mnist" / "lenet.prototxt")


def rows(capsys, *argv):
    assert main(["summary", LENET, "-format", "csv", *argv]) == 0
    return {row["layer"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}


def test_figures_of_lenet(capsys):
    found = rows(capsys)
    assert found["conv1"]["parameters"] == str(20 * 25 + 20)
    assert found["conv1"]["flop"] == str(2 * 64 * 20 * 24 * 24 * 25)
    assert found["conv1"]["bytes"] == str(4 * 64 * 20 * 24 * 24)
    assert found["relu1"]["bytes"] == "0"  # in place
    fields = [found[name]["receptive_field"] for name in ("conv1", "pool1", "conv2", "pool2", "ip1")]
    assert fields == ["5", "6", "14", "16", ""]
    assert sum(int(row["parameters"]) for row in found.values()) == 431_080


@pytest.mark.parametrize(("build", "field"), [("resnet18", 435), ("vgg16", 212)])
def test_receptive_fields_of_published_nets(build, field):
    """The expected values are those of Araujo et al., "Computing receptive fields of convolutional neural networks",
    Distill 2019, table 1.
    """
    net = caffe.Net(getattr(caffe.models, build)(batch=1, size=64 if build != "vgg16" else 32), caffe.TEST)
    last = [row.field for row in Summary(net).rows if row.type == "Pooling" or row.type == "Eltwise"]
    assert str(field) in last


def test_the_three_forms(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["summary", LENET]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "LeNet (TEST): 9 layers, 431,080 parameters (1.72 MB), 0.294 GFLOP and 5.04 MB of blobs a batch"
    )
    assert lines[1].split() == ["layer", "type", "bottoms", "tops", "parameters", "MFLOP", "MB", "field"]
    assert main(["summary", LENET, "-out", "net.html"]) == 0
    assert Path("net.html").read_text().startswith("<table><caption>LeNet (TEST): 9 layers")
    assert main(["summary", LENET, "-out", "net.csv"]) == 0
    assert Path("net.csv").read_text().startswith("layer,type,bottoms,tops")
    assert main(["summary", LENET, "-format", "cvs"]) == 1
    assert '-format cvs: expected table, csv, html; did you mean "csv"?' in capsys.readouterr().err


def test_notebooks_print_and_inspect_have_the_same_table():
    net = caffe.Net(LENET, caffe.TEST)
    summary = Summary(net)
    assert net._repr_html_() == summary.html()
    report = inspect(LENET)
    assert [tuple(row) for row in report.layers.rows] == summary.table()[1:]
    assert report.text().endswith(summary.text().split("\n", 1)[1])
    assert repr(net) == Summary(net, arithmetic=False).text()
    assert "FLOP" not in repr(net)
