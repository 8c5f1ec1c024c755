"""Irregular folders of pictures: each becomes a correct project, or gives one clear error."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe import project
from caffe.data import open_source
from caffe.data.tools.statistics import images
from caffe.errors import CaffeError, DataError, FileError


def made(folder="images", group="", **settings):
    """Return the plan, the findings, and the labels of the records of each part."""
    source = project.FolderSource(folder, group)
    plan, looked = project.make("made", source, project.Settings(net="lenet", size=16, **settings), lambda *_: None)
    return plan, looked, {part: records(part) for part in ("train", "val")}


def records(part):
    source = open_source("LMDB", f"made/{part}_lmdb")
    try:
        return [(key.decode("utf-8", "surrogateescape"), image, label) for key, image, label in images(source)]
    finally:
        source.close()


def notes(looked):
    return "\n".join(looked.notes)


def test_one_class(pictures):
    pictures.classes(("cat",))
    with pytest.raises(DataError, match='there is one class, "cat"; a classifier needs two or more'):
        made()
    assert not os.path.exists("made")
    assert os.listdir(".") == ["images"]


def test_an_empty_class(pictures):
    pictures.classes()
    (pictures.top / "bird").mkdir()
    plan, looked, _ = made()
    assert plan.classes == ("cat", "dog")
    assert "bird: has no pictures, so it is not a class" in notes(looked)


def test_one_pixel(pictures):
    pictures.classes()
    pictures.write("cat/tiny.png", pictures.pixels(size=(1, 1)))
    plan, looked, parts = made()
    assert plan.train + plan.val == 11
    assert "1 pictures are smaller than 8 pixels" in notes(looked)
    assert {image.shape for part in parts.values() for _, image, _ in part} == {(3, 16, 16)}


def cmyk_jpeg():
    pil = pytest.importorskip("PIL.Image")
    import io

    file = io.BytesIO()
    pil.new("CMYK", (12, 10), (0, 200, 200, 0)).save(file, "JPEG")
    return file.getvalue()


def test_cmyk(pictures):
    pictures.classes()
    (pictures.top / "cat" / "print.jpg").write_bytes(cmyk_jpeg())
    _, _, parts = made()
    (image,) = (image for part in parts.values() for key, image, _ in part if "print" in key)
    assert image[2].mean() > image[0].mean() + 50  # red


def test_16_bits_alpha_and_grey(pictures):
    pictures.classes()
    deep = np.full((9, 9, 3), 200 * 257, np.uint16)
    pictures.write("cat/deep.png", deep)
    pictures.write("cat/alpha.png", np.full((9, 9, 4), 200, np.uint8))
    pictures.write("dog/grey.png", pictures.pixels(channels=1))
    _, looked, parts = made()
    every = {key[9:]: image for part in parts.values() for key, image, _ in part}
    assert abs(int(every["deep.png"].max()) - 200) <= 1
    assert every["alpha.png"].shape == every["grey.png"].shape == (3, 16, 16)
    assert "3 of 13 pictures are grey, the others have colours" in notes(looked)


def test_all_grey_makes_a_net_of_one_channel(pictures):
    for index in range(4):
        pictures.write(f"a/{index}.png", pictures.pixels(channels=1))
        pictures.write(f"b/{index}.png", pictures.pixels(1, channels=1))
    plan, _, parts = made()
    assert plan.channels == 1
    assert parts["train"][0][1].shape == (1, 16, 16)


def test_rotation_of_exif(pictures):
    pictures.classes()
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 255  # bright on the left; turned by 90 degrees: bright above
    data = cv2.imencode(".jpg", wide)[1].tobytes()
    orientation = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    block = b"Exif\0\0" + orientation
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    (pictures.top / "cat" / "turned.jpg").write_bytes(turned)
    _, _, parts = made()
    (image,) = (image for part in parts.values() for key, image, _ in part if "turned" in key)
    assert image[:, :6].mean() > 240
    assert image[:, 10:].mean() < 15


def test_gif(pictures):
    pil = pytest.importorskip("PIL.Image")
    pictures.classes()
    pil.fromarray(pictures.pixels()).save(pictures.top / "cat" / "moving.gif")
    plan, looked, _ = made()
    assert plan.train + plan.val == 11
    assert looked.unusable == []


def test_broken_pictures_are_left_out(pictures):
    pictures.classes()
    whole = cv2.imencode(".jpg", pictures.pixels(size=(64, 64)))[1].tobytes()
    (pictures.top / "cat" / "cut.jpg").write_bytes(whole[:-40])
    (pictures.top / "cat" / "text.jpg").write_bytes(b"not a picture")
    (pictures.top / "cat" / "empty.png").write_bytes(b"")
    (pictures.top / "dog" / "cut.png").write_bytes((pictures.top / "dog" / "0.png").read_bytes()[:-20])
    plan, looked, _ = made()
    assert plan.train + plan.val == 10
    assert len(looked.unusable) == 4
    assert "4 pictures are left out, such as " in notes(looked)
    left = Path("made/left_out.txt").read_text(encoding="utf-8")
    assert "cut.jpg: " in left
    assert "text.jpg: cannot be decoded as an image" in left


def test_no_picture_can_be_read(pictures):
    for name in ("a", "b"):
        (pictures.top / name).mkdir()
        (pictures.top / name / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 2 pictures can be used; the first cannot be decoded"):
        made()


def test_text_files_and_hidden_ones(pictures):
    pictures.classes()
    for name in ("cat/readme.txt", "cat/.DS_Store", "cat/Thumbs.db", "notes.txt", "__MACOSX/cat/0.png"):
        file = pictures.top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    plan, looked, _ = made()
    assert plan.train + plan.val == 10
    assert "1 files that are not pictures are left out" in notes(looked)


def test_names_with_spaces_umlauts_and_bytes(pictures):
    pictures.classes(("gelber Käfer", "Nähnadel spitz"), 4)
    pictures.write("gelber Käfer/ein Käfer mit sehr langem Namen " + "x" * 150 + ".png")
    odd = os.fsencode(pictures.top) + b"/N\xc3\xa4hnadel spitz/\xff\xfe.png"
    with open(odd, "wb") as file:
        file.write(cv2.imencode(".png", pictures.pixels(1))[1].tobytes())
    plan, _, _ = made()
    assert plan.classes == ("Nähnadel spitz", "gelber Käfer")
    assert plan.train + plan.val == 10
    assert Path("made/labels.txt").read_text(encoding="utf-8") == "Nähnadel spitz\ngelber Käfer\n"


def test_links(pictures):
    pictures.classes()
    os.symlink("../cat/0.png", pictures.top / "cat" / "loop.png")
    os.symlink("nowhere.png", pictures.top / "dog" / "lost.png")
    os.symlink(".", pictures.top / "dog" / "again")
    _, looked, _ = made()
    assert [name.endswith("lost.png") for name, _ in looked.unusable] == [True]
    assert 'are copies of others, such as "images/cat/0.png" and "images/cat/loop.png"' in notes(looked)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_rights(pictures):
    pictures.classes()
    os.chmod(pictures.top / "cat" / "0.png", 0)
    assert len(made()[1].unusable) == 1
    os.chmod(pictures.top / "dog", 0)
    try:
        with pytest.raises(FileError, match=r"cannot read the folder .*Permission denied"):
            project.FolderSource("images")
    finally:
        os.chmod(pictures.top / "dog", 0o700)


def refusing(real, end):
    """Return a function that raises PermissionError for paths with an ending, as the system does without permission."""

    def call(path=".", *more, **options):
        if str(path).endswith(end):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *more, **options)

    return call


def test_no_rights_as_root_sees_them(pictures, monkeypatch):
    pictures.classes()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refusing(open, "images/cat/0.png"))
        assert made()[1].unusable == [("images/cat/0.png", f"cannot be read: Permission denied (from {os.getcwd()})")]
    for refused in ("images", "images/dog"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", refusing(os.scandir, refused))
            with pytest.raises(FileError, match=rf'cannot read the folder "{refused}": Permission denied'):
                project.FolderSource("images")


def test_names_that_look_alike_are_one_class(pictures):
    pictures.classes(("Ka\u0308fer", "Maus"), 3, "train/")
    pictures.classes(("K\u00e4fer", "Maus"), 2, "val/")
    plan, looked, _ = made()
    assert plan.classes == ("K\u00e4fer", "Maus")
    assert looked.notes == []


def test_endings_in_capitals_and_pictures_of_millions_of_pixels(pictures):
    pictures.classes()
    pictures.write("cat/photo.JPG".replace("JPG", "jpg"), pictures.pixels(size=(40, 30)))
    os.rename("images/cat/photo.jpg", "images/cat/PHOTO.JPG")
    chunk = b"IHDR" + struct.pack(">II5B", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"IEND"
    (pictures.top / "cat" / "bomb.png").write_bytes(bomb)
    plan, looked, _ = made()
    assert plan.train + plan.val == 11
    assert [name for name, _ in looked.unusable] == ["images/cat/bomb.png"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Test"])
def test_given_parts_are_matched_by_name(pictures, name):
    pictures.classes(("ant", "bee", "cow"), 3, "train/")
    pictures.classes(("bee", "cow", "dog"), 2, f"{name}/")
    plan, looked, parts = made()
    assert plan.classes == ("ant", "bee", "cow")
    assert sorted(label for _, _, label in parts["val"]) == [1, 1, 2, 2]
    assert sorted(label for _, _, label in parts["train"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "ant: has no validation pictures" in notes(looked)
    assert "dog: only in the validation data, so its 2 pictures are left out" in notes(looked)


def test_a_part_beside_a_class(pictures):
    pictures.classes(("cat", "dog"), 3, "train/")
    pictures.classes(("bird",), 3)
    with pytest.raises(FileError, match='has the folder "train" and beside it "bird"'):
        made()


def test_train_alone_is_divided(pictures):
    pictures.classes(("cat", "dog"), 5, "train/")
    plan, _, _ = made()
    assert (plan.train, plan.val) == (8, 2)


def test_nested_folders_belong_to_the_class(pictures):
    pictures.classes()
    pictures.write("cat/summer/1.png")
    pictures.write("cat/summer/south/2.png")
    plan, _, _ = made()
    assert plan.classes == ("cat", "dog")
    assert plan.train + plan.val == 12


def test_a_folder_around_it_all(pictures):
    pictures.classes(under="photos/animals/")
    assert made()[0].classes == ("cat", "dog")


def test_pictures_without_folders(pictures):
    pictures.write("1.png")
    with pytest.raises(FileError, match="has 1 pictures and no folders; expected a folder for each class"):
        made()


def test_no_folder_and_a_file():
    with pytest.raises(FileError, match="no such folder"):
        project.FolderSource("nowhere/at/all")
    with pytest.raises(FileError, match="is a file"):
        project.FolderSource(__file__)


def test_a_project_is_not_overwritten(pictures):
    pictures.classes()
    made()
    before = Path("made/solver.prototxt").read_text(encoding="utf-8")
    with pytest.raises(FileError, match='"made": already exists; give a folder that is new or empty'):
        made()
    assert Path("made/solver.prototxt").read_text(encoding="utf-8") == before


def test_copies_and_leaks_are_told(pictures):
    pictures.classes(under="train/")
    pictures.classes(count=3, under="val/")
    same = pictures.pixels(size=(9, 9))
    pictures.write("train/cat/copy.png", same)
    pictures.write("val/dog/copy.png", same)
    text = notes(made()[1])
    assert "1 pictures are copies of others" in text
    assert "1 pictures are in two classes" in text
    assert "1 pictures are in the training and in the validation data" in text


def test_copies_stay_in_one_part(pictures):
    for index in range(6):
        same = pictures.pixels(size=(9, 9))
        for copy in "abc":
            pictures.write(f"cat/{index}{copy}.png", same)
    pictures.classes(("dog",), 6)
    _, _, parts = made(val=30)
    of = {part: {key[9:10] for key, _, label in each if label == 0} for part, each in parts.items()}
    assert of["train"] & of["val"] == set()
    assert of["val"]


@pytest.mark.parametrize("rule", ["folder", r"(object\d)"])
def test_a_series_stays_in_one_part(pictures, rule):
    for kind, name in enumerate(("cup", "pot")):
        for series in range(5):
            for index in range(4):
                pictures.write(f"{name}/{name}object{series}/{index}.png", kind=kind)
    source = project.FolderSource("images", rule if rule == "folder" else r"(\w+object\d)")
    project.make("made", source, project.Settings(net="lenet", size=16), lambda *_: None)
    import csv

    with open("made/examples.csv") as file:
        rows = list(csv.DictReader(file))
    series = {part: {row["file"].split("/")[2] for row in rows if row["split"] == part} for part in ("train", "val")}
    assert series["train"] & series["val"] == set()
    assert len(series["val"]) == 2


def test_the_division_is_stratified_and_repeatable(pictures):
    pictures.classes(("a", "b"), 10)
    pictures.classes(("rare",), 2)
    _, looked, parts = made()
    first = [(key, label) for key, _, label in parts["val"]]
    assert sorted(label for _, label in first) == [0, 0, 1, 1, 2]
    assert "classes are unequal: 10 pictures of a, 2 of rare" in notes(looked)
    os.rename("made", "first")
    assert [(key, label) for key, _, label in made()[2]["val"]] == first
    os.rename("made", "second")
    assert [(key, label) for key, _, label in made(seed=2)[2]["val"]] != first


def test_a_class_of_one_picture_trains(pictures):
    pictures.classes()
    pictures.write("owl/1.png")
    _, looked, parts = made()
    assert [label for _, _, label in parts["train"]].count(2) == 1
    assert "owl: too few pictures or groups for validation" in notes(looked)


@pytest.mark.long
def test_100000_small_files(pictures):
    data = [cv2.imencode(".png", pictures.pixels(kind, (9, 9)))[1].tobytes() for kind in range(2)]
    for kind in range(2):
        (pictures.top / f"c{kind}").mkdir()
        for index in range(50_000):
            (pictures.top / f"c{kind}" / f"{index}.png").write_bytes(data[kind])
    pictures.classes(("c0", "c1"))
    assert made()[0].train > 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"val": 0}, "-val 0: expected the percentage"),
        ({"finetune": "no.caffemodel"}, "no.caffemodel"),
        ({"batch": -1}, "-batch -1"),
    ],
)
def test_wrong_settings(pictures, settings, text):
    pictures.classes()
    with pytest.raises(CaffeError, match=text):
        made(**settings)
    assert not os.path.exists("made")
