"""`caffe new` from a table of numbers and words, and the commands that are used in its folder."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffe.cli import main
from caffe.net import Net
from caffe.project import tabular
from caffe.project.tabular.columns import number_of


def run(*argv):
    assert main(list(argv)) == 0


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, heads, rows, mark=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=mark).writerows([heads, *rows])


def kinds(count=90, mark=";"):
    """Leaves of three kinds, with lengths in German notation."""
    rng = np.random.default_rng(1)
    names = ["Ahorn", "Buche", "Eiche"]
    rows = [
        [f"{rng.normal(2 + 3 * (i % 3), 0.3):.2f}".replace(".", ","), ["grün", "rot"][i % 2], names[i % 3]]
        for i in range(count)
    ]
    write("kinds.csv", ["länge", "farbe", "Art"], rows, mark)


def houses(count=80):
    rng = np.random.default_rng(2)
    rows = []
    for i in range(count):
        area, town = rng.uniform(40, 200), "AB"[i % 2]
        rows.append([i, f"{area:.1f}" if i % 9 else "", town if i % 7 else "NA", round(1000 * (area + 50 * (i % 2)))])
    write("houses.csv", ["id", "area", "town", "price"], rows)


def test_a_class_is_learned_and_told_without_flags(capsys, monkeypatch):
    kinds()
    run("new", "leaves", "-csv", "kinds.csv", "-label", "Art", "-epochs", "60")
    assert "90 rows; Art is 3 classes: Ahorn, Buche, Eiche" in capsys.readouterr().out
    monkeypatch.chdir("leaves")
    run("train")
    told = capsys.readouterr().err
    assert "to use it elsewhere: deploy.prototxt, snapshots/leaves_best.caffemodel, labels.txt, columns.json" in told
    run("test")
    assert "accuracy 1.0000 (" in capsys.readouterr().out
    run("classify", "../kinds.csv", "out.csv")
    with open("out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["Art"] == row["Art (predicted)"] for row in rows)
    assert sum(float(rows[0][f"Art={name}"]) for name in ("Ahorn", "Buche", "Eiche")) == pytest.approx(1, abs=1e-5)
    write("blue.csv", ["farbe", "länge"], [["blau", "2.0"]])
    run("classify", "blue.csv")
    assert "note: farbe: blau not in the training rows" in capsys.readouterr().out
    assert main(["try"]) == 1
    assert "is a project for tables, not for pictures" in capsys.readouterr().err
    assert main(["classify", "blue.csv", "out.txt"]) == 1
    assert "must end in .csv" in capsys.readouterr().err
    write("short.csv", ["farbe", "x"], [["rot", "1"]])
    assert main(["classify", "short.csv"]) == 1
    assert "has no column länge, which the net was trained with" in capsys.readouterr().err


@pytest.mark.long
def test_a_number_is_learned_and_told_in_its_own_unit(capsys, monkeypatch):
    houses()
    run("new", "p", "-csv", "houses.csv", "-label", "price", "-epochs", "120")
    out = capsys.readouterr().out
    assert "price is a number" in out
    assert "id: numbers the rows, so it is left out" in out
    assert "training rows; the mean replaces it, and an extra input marks these rows" in out
    monkeypatch.chdir("p")
    run("train")
    capsys.readouterr()
    run("test")
    out = capsys.readouterr().out
    error, plain = (float(word.strip("):")) for word in (out.split()[3], out.splitlines()[0].split()[-1]))
    assert error < 0.7 * plain
    run("classify", "../houses.csv", "out.csv")
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    far = [abs(float(row["price"]) - float(row["price (predicted)"])) for row in rows if row["area"]]
    assert np.mean(far) == pytest.approx(error, rel=1)
    assert main(["test", "-report"]) == 1
    assert "price is a number: -report" in capsys.readouterr().err


def test_the_report_on_a_number_runs_an_optimized_net(capsys, monkeypatch):
    houses(40)
    run("new", "p", "-csv", "houses.csv", "-label", "price", "-epochs", "1")
    monkeypatch.chdir("p")
    run("train")
    capsys.readouterr()
    settings = []
    optimize = Net.optimize
    monkeypatch.setattr(Net, "optimize", lambda self, **given: (settings.append(given), optimize(self, **given))[1])
    run("test", "--verbose")
    out, err = capsys.readouterr()
    assert out.startswith("price: ")
    found, right = map(float, re.search(r"worst: (\S+) for (\S+) \(row", out).groups())
    with open("../houses.csv", newline="") as file:
        prices = [float(row["price"]) for row in csv.DictReader(file)]
    assert any(right == pytest.approx(price, rel=1e-4) for price in prices)
    assert 0.5 * min(prices) < found < 1.5 * max(prices)
    assert re.search(r"Running for 1 iterations\.\n.*Loss: [\d.]+", err, re.S)
    assert [sorted(given) for given in settings] == [["compile", "engine", "keep"]]
    assert len(settings[0]["keep"]) == 2


def test_statistics_are_those_of_the_training_rows():
    rows = [[1, "a", "x", "train"], [3, "b", "y", "train"], [3, "a", "y", "train"], ["", "b", "x", "train"]]
    rows += [[100, "c", "x", "val"], ["?", "", "y", "val"]]
    write("t.csv", ["n", "w", "label", "split"], rows)
    run("new", "p", "-csv", "t.csv")
    kept = json.loads(Path("p/columns.json").read_text())
    n, w = kept["columns"]
    assert (n["mean"], n["std"], n["missing"]) == (pytest.approx(7 / 3), pytest.approx(np.std([1, 3, 3])), True)
    assert w["values"] == ["a", "b"]
    with h5py.File("p/val.h5") as file:
        data, labels = file["data"][:], file["label"][:]
    np.testing.assert_allclose(data, [[(100 - n["mean"]) / n["std"], 0, 0, 0], [0, 1, 0, 0]], rtol=1e-6)
    assert labels.tolist() == [0, 1]
    with h5py.File("p/train.h5") as file:
        assert abs(file["data"][:, 0].sum()) < 1e-6


def test_arrays_of_rows(capsys):
    rng = np.random.default_rng(3)
    np.savez("rows.npz", x=rng.normal(size=(40, 3)), y=np.arange(40) % 2)
    run("new", "p", "-arrays", "rows.npz")
    assert "40 rows; y is 2 classes: 0, 1" in capsys.readouterr().out
    np.savez("rows.npz", x=rng.normal(size=(40, 3)), y=rng.normal(size=40))
    run("new", "q", "-arrays", "rows.npz")
    assert "y is a number" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "value"), [("1,5", 1.5), (" 2e3 ", 2000), ("NA", np.nan), ("?", np.nan), ("", np.nan)]
)
def test_cells_are_read_as_people_write_them(cell, value):
    np.testing.assert_equal(number_of(cell, "", ""), value)


def table(text, *flags):
    Path("t.csv").write_text(text)
    return main(["new", "p", "-csv", "t.csv", *flags])


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("a,b,c\n1,2,3\n", (), "which column is to be predicted? Give it with -label NAME (columns: a, b, c)"),
        ("a,b,c\n1,2,3\n", ("-label", "d"), '-label "d": t.csv has no such column'),
        ("a,b,y\n1,2\n", (), "t.csv:2: has 2 cells, the first line has 3"),
        ("a,a,y\n1,2,3\n", (), 'two columns are called "a"'),
        ("1,2,3\n4,5,6\n", (), "is a line of numbers; expected the names of the columns"),
        ("a,b,y\n", (), "has no rows below the names"),
        ("a,b,y\n1,2,k\n1,3,k\n2,2,k\n3,3,k\n", (), 'there is one class, "k"'),
        ("id,b,y\n1,1,k\n2,1,l\n3,1,k\n4,1,l\n5,1,\n", (), "no column is left to learn from"),
        (
            "a,b,y\n" + "1,2,k\n2,3,l\n" * 15 + "x,2,k\n",
            (),
            't.csv:32: "x" in the column a, whose other cells are numbers',
        ),
        ("a,b,y\ninf,2,k\n2,3,l\n3,4,k\n4,4,l\n5,5,k\n", (), '"inf" in the column a is infinite'),
        ("a,b,y\n1,2,k\n2,3,l\n3,4,k\n4,4,l\n", ("-net", "lenet"), "-net: applies to pictures, but t.csv is a table"),
        ("a,b,y\n1,2,k\n2,3,l\n3,4,k\n4,4,l\n", ("-task", "x"), "-task x: expected classification or regression"),
        ("a,b,y\n1,2,k\n2,3,l\n3,4,k\n4,4,l\n", ("-drop", "c"), '-drop "c": t.csv has no such column'),
        ("a,b,y\n1,2,k\n2,3,l\n3,4,k\n4,4,l\n", ("-val", "95"), "-val 95: expected the percentage"),
        ("a,b,y\n1,2,k\n", (), "1 rows have a y; expected 4 or more"),
    ],
)
def test_what_cannot_be_learned_is_told(text, flags, message, capsys):
    assert table(text, *flags) == 1
    assert message in capsys.readouterr().err
    assert not Path("p").exists()


def test_flags_of_tables_beside_pictures(capsys, pictures):
    pictures.classes()
    assert main(["new", "p", "-images", "images", "-label", "x"]) == 1
    assert "-label: applies to a table of numbers and words" in capsys.readouterr().err


def test_lists_of_pictures_are_no_tables():
    for text, found in (
        ("file,label\na.png,x\n", False),
        ("a.png,x\n", False),
        ("image;class;split\na;b;train\n", False),
    ):
        Path("t.csv").write_text(text)
        assert tabular.is_table("t.csv") == found
    Path("t.csv").write_text("a,b,y\n1,2,3\n")
    assert tabular.is_table("t.csv")


def test_columns_that_are_damaged(capsys, monkeypatch):
    kinds(30)
    run("new", "p", "-csv", "kinds.csv", "-label", "Art", "-epochs", "2")
    monkeypatch.chdir("p")
    run("train")
    Path("columns.json").write_text('{"label": 1}')
    capsys.readouterr()
    assert main(["classify", "../kinds.csv"]) == 1
    assert "columns.json: is not a file that `caffe new` wrote" in capsys.readouterr().err
