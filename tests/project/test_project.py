"""`caffe new`, and the commands that are used in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe.cli import command, flags, main
from caffe.data.streams.images import read_image
from caffe.proto import upgrade
from caffe.zoo import ModelFolder, Predictor


def run(*argv):
    assert main(list(argv)) == 0


@pytest.fixture
def digits(pictures, monkeypatch):
    """The working directory of the test: a trained project of small pictures."""
    pictures.classes(("above", "below"), 20)
    run("new", "project", "-images", "images", "-net", "lenet", "-size", "16", "-epochs", "4", "-batch", "8")
    monkeypatch.chdir("project")
    return pictures


def test_from_a_folder_to_an_answer_without_flags(digits, capsys):
    run("train")
    out = capsys.readouterr()
    assert "accuracy = 1" in out.err
    assert "to use it elsewhere: deploy.prototxt, snapshots/project_best.caffemodel, labels.txt, README.md" in out.err
    run("test")
    assert "accuracy = 1" in capsys.readouterr().err
    run("classify", "../images/below/3.png")
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "below"
    run("classify", "../images/above", "-ext", "png", "-model", ".")
    assert capsys.readouterr().out.count("above\n") >= 20
    folder = ModelFolder.open(".")
    assert folder.weights.name == "project_best.caffemodel"


def test_pictures_are_prepared_as_in_training(digits):
    run("train")
    net = caffe.Net("train_val.prototxt", caffe.TEST)
    net.forward()
    with open("examples.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    preparation = ModelFolder.open(".").preparation()
    for row, stored in zip(rows, net.blobs["data"].data, strict=True):
        np.testing.assert_allclose(preparation.apply(read_image("../" + row["file"])), stored, atol=1e-5)


def test_before_training_the_way_is_told(digits, capsys):
    assert main(["classify", "../images/above/3.png"]) == 1
    assert "train first: cd ." in capsys.readouterr().err
    assert main(["test"]) == 1
    assert "train first: cd ." in capsys.readouterr().err


def test_crops_are_those_of_the_data_layer(pictures):
    pictures.classes(("a", "b"), 6)
    run("new", "project", "-images", "images", "-net", "cifar_quick")
    text = Path("project/train_val.prototxt").read_text(encoding="utf-8")
    assert "crop_size: 32  # of 36 pixels" in text
    assert "mirror: true" in text
    with caffe_folder("project"):
        net = caffe.Net("train_val.prototxt", caffe.TEST)
        net.forward()
        with open("examples.csv", newline="") as file:
            (row, *_) = (row for row in csv.DictReader(file) if row["split"] == "val")
        made = ModelFolder.open(".").preparation().apply(read_image("../" + row["file"]))
        np.testing.assert_allclose(made, net.blobs["data"].data[0], atol=1e-5)


class caffe_folder:  # noqa: N801
    def __init__(self, path):
        import contextlib

        self.inner = contextlib.chdir(path)

    def __enter__(self):
        return self.inner.__enter__()

    def __exit__(self, *problem):
        return self.inner.__exit__(*problem)


def test_every_line_of_the_solver_says_why(digits):
    lines = Path("solver.prototxt").read_text(encoding="utf-8").splitlines()
    assert all("  # " in line for line in lines)
    assert upgrade.read_solver("solver.prototxt").max_iter == 16


def test_the_commands_of_the_readme_are_known_with_their_arguments(digits):
    text = Path("README.md").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line.startswith("caffe ")]
    assert len(lines) == 5
    for line in lines:
        words, given = flags.parse(line[1:])
        entry = command.find(words[0])
        entry.check(words[1:])
        assert entry.unread(given) == []


def test_finetuning_renames_the_last_layer(pictures):
    pictures.classes(("a", "b"), 6)
    param = caffe.models.squeezenet(classes=5, size=48, batch=1)
    net = caffe.Net(param, caffe.TEST)
    net.save("w.caffemodel")
    run("new", "p", "-images", "images", "-net", "squeezenet", "-size", "48", "-finetune", "w.caffemodel")
    text = Path("p/train_val.prototxt").read_text(encoding="utf-8")
    assert 'name: "conv10_p"' in text
    assert "mean_value: 104" in text
    assert 'weights: "../w.caffemodel"' in Path("p/solver.prototxt").read_text(encoding="utf-8")
    with caffe_folder("p"):
        solver = caffe.get_solver("solver.prototxt")
        np.testing.assert_array_equal(solver.net.params["conv1"][0].data, net.params["conv1"][0].data)
        assert solver.net.params["conv10_p"][0].shape[0] == 2


def test_weights_of_another_net_are_refused(pictures, capsys):
    pictures.classes(("a", "b"), 6)
    caffe.Net(caffe.models.lenet(), caffe.TEST).save("w.caffemodel")
    assert main(["new", "p", "-images", "images", "-net", "squeezenet", "-finetune", "w.caffemodel"]) == 1
    text = capsys.readouterr().err
    assert '../w.caffemodel: weights of layer "conv1" have the shape (20, 1, 5, 5), the net needs (96, 3, 7, 7)' in text
    assert main(["new", "p", "-images", "images", "-finetune", "w.caffemodel"]) == 1
    assert "-finetune needs the net" in capsys.readouterr().err


def test_a_table_of_files(pictures, capsys):
    pictures.classes(("x",), 8)
    rows = [f"x/{index}.png;{'odd' if index % 2 else 'even'};{'val' if index > 5 else 'train'}" for index in range(8)]
    (pictures.top / "list.csv").write_text("image;class;split\n" + "\n".join(rows) + "\n")
    run("new", "p", "-csv", "images/list.csv")
    assert "6 to train on, 2 to validate with" in capsys.readouterr().out
    assert Path("p/labels.txt").read_text(encoding="utf-8") == "even\nodd\n"
    (pictures.top / "list.csv").write_text("x/0.png,a\nx/1.png,\n")
    assert main(["new", "q", "-csv", "images/list.csv"]) == 1
    assert "images/list.csv:2: the label is empty" in capsys.readouterr().err


def test_a_list_as_convert_imageset_takes_it(pictures, capsys):
    pictures.classes(("a b",), 8)
    lines = [f"a b/{index}.png {index % 2}" for index in range(8)]
    (pictures.top / "list.txt").write_text("\n".join(lines) + "\n")
    run("new", "p", "-csv", "images/list.txt")
    assert "8 pictures of 2 classes: 0, 1" in capsys.readouterr().out


def test_arrays(pictures, capsys):
    rng = np.random.default_rng(3)
    np.savez("data.npz", x=rng.integers(0, 255, (20, 9, 9), np.uint8), y=np.arange(20) % 2 + 9)
    run("new", "p", "-arrays", "data.npz")
    assert Path("p/labels.txt").read_text(encoding="utf-8") == "09\n10\n"
    assert "lenet with pictures of 28 pixels" in capsys.readouterr().out


def test_unknown_net_and_missing_data(pictures, capsys):
    assert main(["new", "p"]) == 1
    assert "Need the data: give one of -images FOLDER" in capsys.readouterr().err
    assert main(["new", "p", "-images", "images", "-net", "resnet"]) == 1
    assert "has no pictures in folders" in capsys.readouterr().err
    pictures.classes()
    assert main(["new", "p", "-images", "images", "-net", "resnet81"]) == 1
    assert '-net "resnet81": unknown' in capsys.readouterr().err


def test_classify_with_flags_of_both_kinds(digits, capsys):
    assert main(["classify", "x.png", "-model", ".", "-raw_scale", "1"]) == 1
    assert "-model defines how images are prepared: remove -raw_scale" in capsys.readouterr().err
    assert main(["classify", "x.png", "-model", "nowhere"]) == 1
    assert 'there is no model "nowhere"' in capsys.readouterr().err


def test_a_model_folder_of_caffe_is_read(tmp_path):
    (tmp_path / "readme.md").write_text("---\nname: N\ncaffemodel: n.caffemodel\ncolor: gray\nmean: 3\nscale: 2\n---\n")
    (tmp_path / "deploy.prototxt").write_text(str(caffe.models.lenet(batch=1)))
    caffe.Net(caffe.models.lenet(batch=1), caffe.TEST).save(tmp_path / "n.caffemodel")
    predictor = Predictor(tmp_path)
    assert predictor.predict([np.zeros((28, 28), np.uint8)]).shape == (1, 10)
    assert predictor.preparation.apply(np.full((28, 28), 4, np.uint8)).max() == 2
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 5), np.uint8))
