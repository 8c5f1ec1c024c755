"""Data sets that are written as folders of pictures, from files, archives, a package or a download."""

from __future__ import annotations

import hashlib
import importlib.util
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from caffe import project
from caffe.cli import main
from caffe.data.tools import picture_sets
from caffe.errors import MissingExtra
from tests.data.test_download import Handler, server  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path, size=(9, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 255, (*size, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())


def imagenette(top, size=(9, 12)):
    """Two classes with three pictures to train on and one to validate with."""
    for label in ("n01440764", "n03888257"):
        for part, count in (("train", 3), ("val", 1)):
            for index in range(count):
                picture(top / part / label / f"{part}_{index}.JPEG", size)
    return top


def pets(top):
    """Four pictures of two breeds, and the lists that divide them."""
    for breed in ("Abyssinian", "great_pyrenees"):
        for index in (1, 23):
            picture(top / "images" / f"{breed}_{index}.jpg")
    lists = top / "annotations"
    lists.mkdir()
    (lists / "trainval.txt").write_text("#Image CLASS-ID\nAbyssinian_1 1 1 1\ngreat_pyrenees_1 2 2 1\n")
    (lists / "test.txt").write_text("Abyssinian_23 1 1 1\ngreat_pyrenees_23 2 2 1\n")
    return top


def packed(path, top, *names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(top / name, name)


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).glob("*/*/*"))


def test_imagenette_from_a_folder_and_from_its_archive(capsys):
    imagenette(Path("imagenette2-160"))
    assert main(["data", "imagenette", "-folder", "imagenette2-160", "-o", "a"]) == 0
    out = capsys.readouterr().out
    assert "wrote a/imagenette: 6 pictures to train on, 2 to validate with" in out
    assert "next: caffe new PROJECT -images a/imagenette" in out
    found = pictures("a/imagenette")
    assert found[0] == "train/parachute/train_0.JPEG"
    assert {each.split("/")[1] for each in found} == {"tench", "parachute"}
    Path("files").mkdir()
    packed("files/imagenette2-320.tgz", Path(), "imagenette2-160")
    assert main(["data", "imagenette", "-folder", "files", "-o", "b"]) == 0
    assert pictures("b/imagenette") == found
    assert sorted(path.name for path in Path("b").iterdir()) == ["imagenette"]
    assert main(["data", "imagenette", "-folder", "files", "-o", "b"]) == 1
    assert 'b/imagenette": already exists; give -overwrite' in capsys.readouterr().err
    assert main(["data", "imagenette", "-folder", "nowhere", "-o", "b", "-overwrite"]) == 1
    assert pictures("b/imagenette") == found  # an error leaves what was there
    assert main(["data", "imagenette", "-folder", "files", "-o", "b", "-overwrite"]) == 0
    source = project.FolderSource("b/imagenette")
    assert {(each.label, each.part) for each in source.examples} == {
        (label, part) for label in ("tench", "parachute") for part in ("train", "val")
    }


def test_pets_from_their_archives(capsys):
    pets(Path("originals"))
    Path("files").mkdir()
    for name in ("images", "annotations"):
        packed(f"files/{name}.tar.gz", Path("originals"), name)
    assert main(["data", "pets", "-folder", "files"]) == 0
    assert pictures("pets") == [
        "train/abyssinian/Abyssinian_1.jpg",
        "train/great_pyrenees/great_pyrenees_1.jpg",
        "val/abyssinian/Abyssinian_23.jpg",
        "val/great_pyrenees/great_pyrenees_23.jpg",
    ]
    Path("originals/annotations/test.txt").write_text("no name here\n")
    assert main(["data", "pets", "-folder", "originals", "-o", "x"]) == 1
    assert 'test.txt:1: "no"; expected the name of a picture' in capsys.readouterr().err
    assert not Path("x/pets").exists()


def test_a_download_that_breaks_off_becomes_a_project(server, monkeypatch, capsys):  # noqa: F811
    imagenette(Path("imagenette2-160"), (140, 160))
    packed("i.tgz", Path(), "imagenette2-160")
    content = Path("i.tgz").read_bytes()
    assert len(content) > 100_000
    monkeypatch.setattr("tests.data.test_download.CONTENT", content)
    known = picture_sets.PICTURE_SETS["imagenette"]
    monkeypatch.setitem(
        picture_sets.PICTURE_SETS, "imagenette", replace(known, files=((f"{server}/breaks", "0" * 32),))
    )
    assert main(["new", "p", "-data", "imagenette"]) == 1
    assert "returned another file: its md5 is" in capsys.readouterr().err
    places = ((f"{server}/breaks", hashlib.md5(content).hexdigest()),)
    monkeypatch.setitem(picture_sets.PICTURE_SETS, "imagenette", replace(known, files=places))
    Handler.asked.clear()
    assert main(["new", "p", "-data", "imagenette", "-epochs", "1"]) == 0
    assert len(Handler.asked) > 1
    assert "8 pictures of 2 classes: parachute, tench" in capsys.readouterr().out
    Handler.asked.clear()
    assert main(["new", "q", "-data", "imagenette", "-epochs", "1"]) == 0
    assert Handler.asked == []


@pytest.mark.parametrize(
    ("name", "text"), [("pets", "has no images, annotations; expected"), ("imagenette", "has no train, val")]
)
def test_a_folder_without_the_originals(name, text, capsys):
    Path("files").mkdir()
    assert main(["data", name, "-folder", "files"]) == 1
    assert text in capsys.readouterr().err
    assert main(["data", name, "-folder", "nowhere"]) == 1
    assert "cannot read the folder" in capsys.readouterr().err
    Path("files/damaged.tgz").write_bytes(b"no archive")
    assert main(["data", name, "-folder", "files"]) == 1
    assert "cannot unpack files/damaged.tgz" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["files"]


def test_materials_do_not_overlap(tmp_path, monkeypatch, capsys):
    for number, name in enumerate(("brick", "grass", "gravel")):
        pixels = np.tile(np.arange(512, dtype=np.uint16) // 2, (512, 1)).astype(np.uint8)  # the value gives the column
        cv2.imwrite(f"{name}.png", pixels + np.uint8(number))
    assert main(["data", "materials", "-folder", ".", "-o", "out"]) == 0
    assert "480 pictures to train on, 120 to validate with" in capsys.readouterr().out
    highest = max(cv2.imread(str(path), 0).max() for path in Path("out/materials/train/brick").iterdir())
    lowest = min(cv2.imread(str(path), 0).min() for path in Path("out/materials/val/brick").iterdir())
    assert highest < lowest
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["data", "materials"]) == 1
    assert "pip install scikit-image" in capsys.readouterr().err


@pytest.mark.parametrize("places", [["/site/skimage"], [], None])
def test_where_the_photographs_are(monkeypatch, places):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=places))
    if places:
        assert picture_sets._skimage() == Path("/site/skimage/data")
    else:
        with pytest.raises(MissingExtra, match="pip install scikit-image"):
            picture_sets._skimage()


def test_svhn(capsys):
    scipy = pytest.importorskip("scipy.io")
    Path("files").mkdir()
    images = np.zeros((32, 32, 3, 12), np.uint8)
    images[:, :, 0] = 200  # red
    labels = np.arange(1, 13).reshape(-1, 1) % 11
    labels[labels == 0] = 10
    for part in ("train", "test"):
        scipy.savemat(f"files/{part}_32x32.mat", {"X": images, "y": labels.astype(np.uint8)})
    assert main(["data", "svhn", "-folder", "files", "-o", "out"]) == 0
    assert "wrote out/svhn_train_lmdb: 12 pictures" in capsys.readouterr().out
    Path("files/test_32x32.mat").write_bytes(b"nothing")
    assert main(["data", "svhn", "-folder", "files", "-o", "other"]) == 1
    assert "test_32x32.mat: " in capsys.readouterr().err


def test_svhn_without_scipy_or_files(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    assert main(["data", "svhn", "-folder", "."]) == 1
    assert "pip install 'cafetiere[datasets]'" in capsys.readouterr().err
