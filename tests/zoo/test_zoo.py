"""`caffe zoo`: models that are included, added, or downloaded from a server."""

from __future__ import annotations

import hashlib
import math

import cv2
import numpy as np
import pytest

import caffe
from caffe import models
from caffe.cli import main
from caffe.errors import FileError
from caffe.proto import text
from caffe.proto.caffe_pb2 import NetParameter
from caffe.zoo import ModelFolder, Predictor, index
from tests.data.test_download import Handler, server  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_every_builder_has_an_entry_with_preparation():
    known = index.entries()
    assert set(models.__all__) <= set(known)
    for name, model in known.items():
        preparation = model.preparation()
        assert preparation.scale > 0, name
        assert model.facts["name"], name
        if builder := model.facts.get("builder"):
            assert builder in models.__all__
            assert preparation.crop in (224, 227)
            assert len(preparation.mean) == 3


def folder(tmp_path, server="", **facts):  # noqa: F811
    """A model folder of LeNet whose weights are on the server, and the bytes of the weights."""
    top = tmp_path / "my_model"
    top.mkdir()
    net = caffe.Net(models.lenet(batch=1, size=16), caffe.TEST)
    net.save(tmp_path / "w.caffemodel")
    text.write(top / "deploy.prototxt", models.lenet(batch=1, size=16))
    content = (tmp_path / "w.caffemodel").read_bytes()
    facts = {
        "name": "Mine",
        "caffemodel": "w.caffemodel",
        "color": "gray",
        "resize": "16,16",
        "gist_id": "12ab",
        **facts,
    }
    lines = "".join(f"{key}: {value}\n" for key, value in facts.items())
    (top / "readme.md").write_text(f"---\n{lines}---\n# Mine\n")
    return top, content


def test_weights_come_broken_and_are_put_together(tmp_path, server, monkeypatch, capsys):  # noqa: F811
    top, content = folder(tmp_path, caffemodel_url=f"{server}/breaks", sha1="0" * 40)
    monkeypatch.setattr("tests.data.test_download.CONTENT", content)
    assert main(["zoo", "get", "my_model"]) == 1
    assert "returned another file" in capsys.readouterr().err
    readme = (top / "readme.md").read_text().replace("0" * 40, hashlib.sha1(content).hexdigest())
    (top / "readme.md").write_text(readme)
    Handler.asked.clear()
    assert main(["zoo", "get", "my_model"]) == 0
    assert len(Handler.asked) == math.ceil(len(content) / 100_000)
    assert (top / "w.caffemodel").read_bytes() == content
    cv2.imwrite("a.png", np.zeros((20, 20), np.uint8))
    assert main(["classify", "a.png", "-model", "my_model"]) == 0


def test_mirrors_and_no_network(tmp_path, server, monkeypatch):  # noqa: F811
    top, content = folder(tmp_path, caffemodel_url="http://127.0.0.1:9/none", mirrors=f"{server}/missing {server}/good")
    monkeypatch.setattr("tests.data.test_download.CONTENT", content)
    assert index.get(str(top)).weights.read_bytes() == content
    (top / "w.caffemodel").unlink()
    (top / "readme.md").write_text((top / "readme.md").read_text().replace(f"{server}/good", ""))
    with pytest.raises(FileError, match="cannot be reached") as caught:
        index.get(str(top))
    assert f'put it at "{top}/w.caffemodel"' in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("long", ""),
        ("norange", ""),
        ("short", "returned another file: its sha1"),
        ("wrong", "returned another file: its sha1"),
    ],
)
def test_servers_that_lie_about_size_or_give_another_file(tmp_path, server, monkeypatch, capsys, name, told):  # noqa: F811
    top, content = folder(tmp_path)
    monkeypatch.setattr("tests.data.test_download.CONTENT", content)
    facts = f"caffemodel_url: {server}/{name}\nsha1: {hashlib.sha1(content).hexdigest()}\n---\n# Mine"
    (top / "readme.md").write_text((top / "readme.md").read_text().replace("---\n# Mine", facts))
    assert main(["zoo", "get", "my_model"]) == bool(told)
    assert told in capsys.readouterr().err
    found = sorted(path.name for path in top.iterdir())
    assert found == ["deploy.prototxt", "readme.md", *([] if told else ["w.caffemodel"])]
    if not told:
        assert (top / "w.caffemodel").read_bytes() == content


def test_a_model_is_added_and_found_by_name(tmp_path, capsys):
    top, content = folder(tmp_path)
    (top / "w.caffemodel").write_bytes(content)
    assert main(["zoo", "add", "my_model"]) == 0
    assert "added Mine" in capsys.readouterr().out
    assert main(["zoo", "list"]) == 0
    assert "my_model" in capsys.readouterr().out
    assert Predictor(index.find("my_model")).predict([np.zeros((5, 5), np.uint8)]).shape == (1, 10)
    assert main(["zoo", "add", "my_model"]) == 1
    assert "already exists" in capsys.readouterr().err


def test_the_net_of_a_builder_is_written(cache, server, monkeypatch):  # noqa: F811
    net = caffe.Net(models.squeezenet(batch=1), caffe.TEST)
    net.save("w.caffemodel")
    (cache / "zoo" / "squeezenet").mkdir(parents=True)
    with open("w.caffemodel", "rb") as file:
        (cache / "zoo" / "squeezenet" / "squeezenet_v1.0.caffemodel").write_bytes(file.read())
    model = index._copied(index._SHIPPED / "squeezenet", cache / "zoo" / "squeezenet")
    index._write_net(model)
    assert text.read(model.net, NetParameter()).layer[1].name == "conv1"
    assert Predictor(index.find("squeezenet")).predict([np.zeros((30, 40, 3), np.uint8)]).shape == (1, 1000)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["zoo", "show", "lenett"], 'there is no model "lenett"; did you mean "lenet"?'),
        (["zoo", "gte", "x"], 'unknown action "gte"; did you mean "get"?'),
        (["zoo", "show"], "zoo show: give the name"),
        (["zoo", "list", "x"], "zoo list takes no name"),
        (["zoo", "get", "resnet50"], "there is no address for it"),
        (["classify", "x.png", "-model", "alexnet"], "get it with: caffe zoo get alexnet"),
        (["zoo", "add", "."], "is not a model folder"),
    ],
)
def test_errors_name_the_fault(argv, message, capsys):
    assert main(argv) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# no front matter", "has no front matter"),
        ("---\nname: x\n", "the front matter has no end"),
        ("---\nname\n---\n", 'readme.md:2: "name"; expected "key: value"'),
    ],
)
def test_front_matter_that_is_none(tmp_path, content, message):
    (tmp_path / "readme.md").write_text(content)
    with pytest.raises(FileError, match=message):
        ModelFolder.open(tmp_path)


def test_the_models_that_come_along_answer_at_once(capsys):
    digit = np.zeros((28, 28), np.uint8)
    cv2.line(digit, (14, 4), (14, 23), 255, 3)
    cv2.imwrite("digit.png", digit)
    assert main(["classify", "digit.png", "-model", "lenet"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1] == "1"
    for name in ("lenet", "cifar_quick"):
        assert index.find(name).weights.stat().st_size < 2_000_000
        assert len(index.find(name).labels()) == 10
