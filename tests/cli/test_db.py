"""`caffe db`: the description of a database, and the files that are exported from it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe.cli import main
from caffe.data import create_database, open_source
from caffe.data.databases.datum import encode_datum
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images, write_lmdb


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_info(work, capsys):
    pixels = images(4, (3, 5, 7))
    jpeg = cv2.imencode(".jpg", images(1, (9, 6, 3))[0])[1].tobytes()
    with create_database("leveldb", "db") as writer:
        for index, image in enumerate(pixels):
            writer.put(b"%03d" % index, encode_datum(image, index // 3))
        writer.put(b"004", Datum(data=jpeg, encoded=True, label=17).SerializeToString())
        writer.put(b"005", Datum(channels=2, height=1, width=1, float_data=[1, 2]).SerializeToString())
    assert main(["db", "info", "db"]) == 0
    out = capsys.readouterr().out
    assert "LEVELDB, 6 records" in out
    assert 'keys     "000" to "005"' in out
    assert "stored   raw (4), jpg (1), float (1)" in out
    assert "shapes   3 x 5 x 7 (4), 3 x 9 x 6 (1), 2 x 1 x 1 (1)" in out
    assert [line.split()[:2] for line in out.splitlines()[-3:]] == [["0", "4"], ["1", "1"], ["17", "1"]]


def test_show(work, capsys):
    pixels = np.zeros((5, 3, 50, 60), np.uint8)
    pixels[:, 2] = 200
    write_lmdb(work / "db", pixels)
    assert main(["db", "show", "db", "-count", "3", "-o", "out.png"]) == 0
    picture = cv2.imread("out.png")
    assert (picture == (0, 0, 200)).all(axis=2).sum() == 3 * 50 * 60
    assert main(["db", "show", "db", "-o", "out.xyz"]) == 1
    assert ".png or .jpg" in capsys.readouterr().err


def test_export_can_be_converted_again(work, capsys):
    pixels = images(3, (3, 5, 7))
    with create_database("lmdb", "db") as writer:
        for index, image in enumerate(pixels):
            writer.put(b"../a b/%d.jpg" % index, encode_datum(image, 9 - index))
        writer.put(b"../a_b/0.jpg", encode_datum(pixels[0], 0))
    assert main(["db", "export", "db", "-o", "out"]) == 0
    assert len(list((work / "out").iterdir())) == 5
    assert main(["convert_imageset", "out/", "out/list.txt", "again"]) == 0
    got = [Datum.FromString(bytes(value)) for _, value in open_source("LMDB", "again").scan()]
    assert [datum.label for datum in got] == [9, 8, 7, 0]
    assert [datum.data for datum in got[:3]] == [image.tobytes() for image in pixels]
    assert main(["db", "export", "db", "-o", "out"]) == 1
    assert "choose a new folder" in capsys.readouterr().err


def test_verify_names_the_damaged_records(work, capsys):
    write_lmdb(work / "good", images(3))
    assert main(["db", "verify", "good"]) == 0
    with create_database("lmdb", "bad") as writer:
        writer.put(b"fine", encode_datum(images(1)[0], 1))
        writer.put(b"short", encode_datum(images(1)[0], 1)[:-40])
        writer.put(b"text", Datum(data=b"no image", encoded=True).SerializeToString())
    capsys.readouterr()
    assert main(["db", "verify", "bad"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out[:2]] == [["record", '"short"'], ["record", '"text"']]
    assert out[2].endswith("3 records, 2 damaged, 1 different shapes")
    assert main(["db", "info", "bad"]) == 0
    assert "damaged  2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "part"),
    [(["inof", "x"], 'did you mean "info"'), (["info", "x"], "not found"), (["export", "db"], "-out FOLDER")],
)
def test_what_does_not_fit_is_one_error(given, part, work, capsys):
    write_lmdb(work / "db", images(2))
    assert main(["db", *given]) == 1
    assert part in capsys.readouterr().err
