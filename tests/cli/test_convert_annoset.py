"""`caffe convert_annoset`, and `caffe db` and `caffe preview` with the databases that it writes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from caffe.cli import main
from caffe.data import open_source
from caffe.data.databases.annotated import AnnotatedReader
from caffe.proto.caffe_pb2 import AnnotatedDatum
from tests.data.helpers import images, write_png

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
VOC = "<annotation><size><width>60</width><height>40</height></size>{}</annotation>"
CAT = "<object><name>cat</name><difficult>1</difficult>" + BOX.format(6, 10, 30, 20) + "</object>"
DOG = "<object><name>dog</name>" + BOX.format(0, 0, 60, 40) + "</object>"
EXPECTED = [[1, 0, 0.1, 0.25, 0.5, 0.5, 1], [1, 1, 0.1, 0.25, 0.5, 0.5, 1], [2, 0, 0, 0, 1, 1, 0]]


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, image in enumerate(images(3, (3, 40, 60))):
        write_png(tmp_path / f"{index}.png", image)
        (tmp_path / f"{index}.xml").write_text(VOC.format(CAT + DOG + CAT if index else ""))
    (tmp_path / "list.txt").write_text("".join(f"{index}.png {index}.xml\n" for index in range(3)))
    (tmp_path / "map").write_text('item { name: "cat" label: 1 display_name: "Katze" } item { name: "dog" label: 2 }')
    return tmp_path


def convert(*flags, listed="list.txt", kind="xml"):
    return main(
        [
            "convert_annoset",
            "-anno_type=detection",
            f"-label_type={kind}",
            "-label_map_file=map",
            *flags,
            "./",
            listed,
            "db",
        ]
    )


def records(backend="LMDB"):
    return [bytes(value) for _, value in open_source(backend, "db").scan()]


def boxes():
    return [AnnotatedReader()(value)[1].tolist() for value in records()]


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_voc(backend):
    assert convert(f"-backend={backend}") == 0
    values = records(backend.upper())
    pixels, rows = AnnotatedReader()(values[1])
    np.testing.assert_array_equal(pixels, images(3, (3, 40, 60))[1])
    np.testing.assert_allclose(rows, EXPECTED, rtol=1e-6)
    assert len(AnnotatedReader()(values[0])[1]) == 0
    assert AnnotatedDatum.FromString(values[0]).type == AnnotatedDatum.BBOX


def test_encoded_images_are_the_files(work):
    assert convert("-encoded") == 0
    assert AnnotatedDatum.FromString(records()[2]).datum.data == (work / "2.png").read_bytes()
    assert convert("-encode_type=jpg") == 1  # the database exists


@pytest.mark.parametrize(
    ("flags", "logged"),
    [([], False), (["-encoded"], False), (["-encoded", "-encode_type=png"], False), (["-encode_type=png"], True)],
)
def test_encode_type_implies_encoded(capsys, flags, logged):
    assert convert(*flags) == 0
    assert AnnotatedDatum.FromString(records()[0]).datum.encoded == bool(flags)
    assert ("encode_type specified, assuming encoded=true." in capsys.readouterr().err) == logged


@pytest.mark.parametrize(
    ("flags", "shape"),
    [
        (["-min_dim=80"], (80, 120)),
        (["-min_dim=80", "-max_dim=90"], (60, 90)),
        (["-max_dim=30"], (20, 30)),
        (["-min_dim=20"], (40, 60)),
        (["-resize_height=10", "-resize_width=20"], (10, 20)),
    ],
)
def test_sizes(flags, shape):
    assert convert(*flags) == 0
    pixels, rows = AnnotatedReader()(records()[1])
    assert pixels.shape[1:] == shape
    np.testing.assert_allclose(rows, EXPECTED, rtol=1e-6)


def test_coco_a_file_an_image_and_a_file_for_all(work):
    content = {
        "image": {"height": 40, "width": 60},
        "annotation": [
            {"category_id": 17, "bbox": [6, 10, 24, 10], "iscrowd": 1},
            {"category_id": 18, "bbox": [0, 0, 60, 40]},
            {"category_id": 17, "bbox": [6, 10, 24, 10], "iscrowd": 1},
        ],
    }
    (work / "1.json").write_text(json.dumps(content))
    (work / "json.txt").write_text("1.png 1.json\n")
    (work / "map").write_text('item { name: "17" label: 1 } item { name: "18" label: 2 }')
    assert convert(kind="json", listed="json.txt") == 0
    np.testing.assert_allclose(boxes()[0], EXPECTED, rtol=1e-6)
    whole = {
        "images": [
            {"id": 7, "file_name": "1.png", "height": 40, "width": 60},
            {"id": 8, "file_name": "0.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [{**each, "image_id": 7} for each in content["annotation"]],
    }
    (work / "all.json").write_text(json.dumps(whole))
    (work / "map").write_text('item { name: "cat" label: 1 } item { name: "dog" label: 2 }')
    import shutil

    shutil.rmtree("db")
    assert convert(kind="json", listed="all.json") == 0
    np.testing.assert_allclose(boxes()[0], EXPECTED, rtol=1e-6)
    assert boxes()[1] == []


def test_classification(work):
    (work / "labels.txt").write_text("0.png 3\n1.png 5\n")
    assert main(["convert_annoset", "./", "labels.txt", "db"]) == 0
    found = [AnnotatedDatum.FromString(value) for value in records()]
    assert [each.datum.label for each in found] == [3, 5]
    assert not any(each.HasField("type") for each in found)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (VOC.format(CAT.replace("cat", "cats")), 'name "cats"'),
        (VOC.format("<object><name>cat</name></object>"), "no bndbox"),
        (VOC.format(CAT.replace("<xmax>30</xmax>", "")), "incomplete"),
        ("<annotation>", "not a file of VOC annotations"),
    ],
)
def test_files_that_cannot_be_used(work, capsys, content, says):
    (work / "1.xml").write_text(content)
    assert convert() == 1
    err = capsys.readouterr().err
    assert says in err
    assert "1.xml" in err
    assert not (work / "db").exists()


def test_flags_that_cannot_be_followed(work, capsys):
    for flags, says in [
        (["-anno_type=detect"], "expected classification or detection"),
        (["-label_type=xlm"], 'did you mean "xml"'),
        (["-label_map_file="], "needs -label_map_file"),
        (["-min_dim=-1"], "-min_dim -1"),
        (["-resize_width=20"], "-resize_width is given without -resize_height"),
    ]:
        assert convert(*flags) == 1
        assert says in capsys.readouterr().err
    (work / "map").write_text('item { name: "cat" label: 1 } item { name: "cat" label: 2 }')
    assert convert("-check_label") == 1
    assert '"cat" occurs twice' in capsys.readouterr().err


def test_db_tells_shows_and_exports_boxes(work, capsys):
    assert convert("-encoded") == 0
    capsys.readouterr()
    assert main(["db", "info", "db"]) == 0
    out = capsys.readouterr().out
    assert "stored   png (3)" in out
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [["1", "4"], ["2", "2"]]
    assert main(["db", "verify", "db"]) == 0
    assert main(["db", "show", "db", "-o", "out.png"]) == 0
    assert ((cv2.imread("out.png") == (60, 200, 60)).all(2)).sum() > 200  # the colour of label 1
    assert main(["db", "export", "db", "-o", "out"]) == 0
    before = boxes()
    import shutil

    shutil.rmtree("db")
    flags = ["-anno_type=detection", "-label_type=txt"]
    assert main(["convert_annoset", *flags, "out/", "out/list.txt", "db"]) == 0
    for one, other in zip(before, boxes(), strict=True):
        np.testing.assert_allclose(np.array(one)[..., :6], np.array(other)[..., :6], rtol=1e-6)


def test_preview_draws_the_boxes_with_their_names(work):
    assert convert() == 0
    (work / "net.prototxt").write_text(
        'layer { name: "d" type: "AnnotatedData" top: "x" top: "y" data_param { source: "db" batch_size: 3 '
        'backend: LMDB } annotated_data_param { label_map_file: "map" } }'
    )
    assert main(["preview", "net.prototxt", "-count", "3", "-o", "out.png"]) == 0
    picture = cv2.imread("out.png")
    assert ((picture == (60, 200, 60)).all(2)).sum() > 200


def test_data_says_what_reads_such_a_database(work, capsys):
    assert convert() == 0
    (work / "net.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "x" top: "y" data_param { source: "db" batch_size: 3 backend: LMDB } }'
    )
    assert main(["preview", "net.prototxt"]) == 1
    assert "which the layer AnnotatedData reads" in capsys.readouterr().err
