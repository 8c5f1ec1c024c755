"""`caffe convert`: weights as safetensors and torch's state dictionaries, and back, matched by name and shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import caffe
import caffe.torch
from caffe import convert, models
from caffe.cli import main
from caffe.errors import DataError, FileError
from caffe.proto import weights

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 9, 9] } } }
layer { name: "first" type: "Convolution" bottom: "data" top: "first"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "first" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "second" type: "Convolution" bottom: "norm" top: "second"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "third" type: "Convolution" bottom: "second" top: "third"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "third" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""


class Theirs(nn.Module):
    """The same net, written as is usual in torch."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 5, 3), nn.Conv2d(5, 5, 3)
        )
        self.classifier = nn.Linear(45, 4)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


@pytest.fixture
def theirs():
    torch.manual_seed(1)
    made = Theirs()
    with torch.no_grad():
        for value in made.features[1].state_dict().values():
            if value.dtype == torch.float32:
                value.uniform_(0.5, 2)
    return made.eval()


def run(*argv):
    assert main(["convert", *argv]) == 0


def forms():
    return ["w.pt", pytest.param("w.safetensors", marks=pytest.mark.skipif(not _safe(), reason="needs safetensors"))]


def _safe():
    import importlib.util

    return importlib.util.find_spec("safetensors") is not None


@pytest.mark.parametrize("out", forms())
@pytest.mark.parametrize("model", [(), ("-model", "net.prototxt")])
def test_there_and_back_is_the_same(out, model):
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["norm"][0].data[...] = [1, 2, 3, 4, 5]
    net.save("w.caffemodel")
    run("w.caffemodel", out, *model)
    module = caffe.torch.load("net.prototxt")
    module.load_state_dict(convert.read_tensors(out))
    torch.testing.assert_close(module.first.weight.data, torch.from_numpy(net.params["first"][0].data.copy()))
    run(out, "back.caffemodel", "-model", "net.prototxt")
    before, after = weights.read("w.caffemodel"), weights.read("back.caffemodel")
    for name, arrays in before.items():
        for one, other in zip(arrays, after.get(name, []), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("out", forms())
def test_a_module_of_torch_gives_the_same_answers(theirs, out, capsys):
    convert.write_tensors(out, theirs.state_dict())
    run(out, "w.caffemodel", "-model", "net.prototxt", "-by_order")
    told = " ".join(capsys.readouterr().out.split())
    assert "first.weight <- features.0.weight (shape)" in told
    assert "scale.weight <- features.1.weight (shape)" in told
    assert "norm.mean <- features.1.running_mean (shape)" in told
    assert "second.weight <- features.3.weight (order)" in told
    assert "first.bias is 0, because the file does not contain it" in told
    images = torch.rand(2, 3, 9, 9)
    net = caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
    found = net.forward(data=images.numpy())["ip"]
    np.testing.assert_allclose(found, theirs(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_safetensors_file_has_its_modules_in_the_order_of_their_numbers():
    pytest.importorskip("safetensors")
    names = [f"features.{number}.weight" for number in (0, 2, 10, 11, 100)]
    convert.write_tensors("w.safetensors", {name: torch.ones(1) for name in reversed(names)})
    assert list(convert.read_tensors("w.safetensors")) == names


def test_same_shapes_are_not_guessed_but_listed(theirs, capsys):
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.state_dict().items()}}, "w.pth")
    run("w.pth", "w.caffemodel", "-model", "net.prototxt")
    told = " ".join(capsys.readouterr().out.split())
    assert "same shapes: the layers second, third and the modules features.3, features.4; name the pairs" in told
    assert "not in the file: second.weight, second.bias, third.weight, third.bias" in told
    assert "second" not in weights.read("w.caffemodel")
    Path("pairs.txt").write_text("# layer module\nsecond features.4\n")
    run("w.pth", "w.caffemodel", "-model", "net.prototxt", "-map", "pairs.txt")
    told = " ".join(capsys.readouterr().out.split())
    assert "second.weight <- features.4.weight (list)" in told
    assert "third.weight <- features.3.weight (shape)" in told
    for text, message in (
        ("fourth features.4", 'names the layer "fourth", which the net does not have'),
        ("second features.9", 'names the module "features.9", which the file does not have'),
        ("second features.0", "features.0.weight has the shape (5, 3, 3, 3), and second.weight (5, 5, 3, 3)"),
        ("second", 'pairs.txt:1: "second"; expected LAYER MODULE'),
    ):
        Path("pairs.txt").write_text(text)
        assert main(["convert", "w.pth", "x.caffemodel", "-model", "net.prototxt", "-map", "pairs.txt"]) == 1
        assert message in capsys.readouterr().err
    assert not Path("x.caffemodel").exists()


def test_names_come_before_shapes_and_outer_modules_do_not_count():
    tensors = {"backbone.third.weight": torch.ones(5, 5, 3, 3), "backbone.Second.weight": torch.zeros(5, 5, 3, 3)}
    torch.save(tensors, "w.pt")
    found = convert.import_weights("w.pt", "w.caffemodel", "net.prototxt")
    assert found.found["third.weight"] == ("backbone.third.weight", "name")
    assert found.found["second.weight"] == ("backbone.Second.weight", "name")
    assert weights.read("w.caffemodel")["third"][0].min() == 1


def test_numbers_of_16_bits_and_hdf5(theirs):
    torch.save(theirs.half().state_dict(), "w.pt")
    run("w.pt", "w.caffemodel.h5", "-model", "net.prototxt", "-by_order")
    assert weights.read("w.caffemodel.h5")["second"][0].dtype == np.float32
    run("w.caffemodel.h5", "w.caffemodel")
    assert set(weights.read("w.caffemodel")) >= {"first", "second", "ip"}


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_code_in_a_file_is_not_run(capsys):
    torch.save({"weight": torch.ones(2), "evil": Evil()}, "w.pt")
    assert main(["convert", "w.pt", "w.caffemodel", "-model", "net.prototxt"]) == 1
    assert "contains objects other than tensors, which could run code" in capsys.readouterr().err
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["w.caffemodel", "w.onnx"], "w.onnx: the name must end in one of .caffemodel"),
        (["w.pt", "w.caffemodel"], "which net are the weights for? Give its prototxt with -model"),
        (["w.caffemodel", "w.pt", "-by_order"], "-map and -by_order are about tensors that become"),
        (["no.pt", "w.caffemodel", "-model", "net.prototxt"], "no.pt"),
        (["bad.pt", "w.caffemodel", "-model", "net.prototxt"], "bad.pt: "),
        (["list.pt", "w.caffemodel", "-model", "net.prototxt"], "list.pt: contains no state dictionary"),
        (["other.pt", "w.caffemodel", "-model", "net.prototxt"], "other.pt: no tensor matches a blob of net.prototxt"),
    ],
)
def test_errors_name_the_fault(words, message, capsys):
    Path("bad.pt").write_bytes(b"nothing")
    torch.save([torch.ones(3)], "list.pt")
    torch.save({"x.weight": torch.ones(3)}, "other.pt")
    assert main(["convert", *words]) == 1
    assert message in capsys.readouterr().err
    assert not Path("w.caffemodel").exists()


def test_a_damaged_file_and_a_missing_package(monkeypatch):
    Path("w.safetensors").write_bytes(b"\xff" * 40)
    if _safe():
        with pytest.raises(FileError, match="is not a safetensors file, or damaged"):
            convert.read_tensors("w.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(caffe.CaffeError, match=r"pip install 'cafetiere\[safetensors\]'"):
        convert.read_tensors("w.safetensors")


def test_half_a_layer_is_refused():
    Path("bn.prototxt").write_text(NET)
    torch.save({"norm.running_mean": torch.ones(5), "norm.weight": torch.ones(5)}, "w.pt")
    with pytest.raises(DataError, match=r"norm.variance: the file contains other blobs of the layer"):
        convert.import_weights("w.pt", "w.caffemodel", "bn.prototxt")


def test_a_net_of_the_builders_comes_back(tmp_path):
    param = models.mobilenet_v2(batch=1, size=32, classes=3)
    Path("m.prototxt").write_text(str(param))
    net = caffe.Net(param, caffe.TEST)
    net.save("m.caffemodel")
    run("m.caffemodel", "m.pt", "-model", "m.prototxt")
    found = convert.import_weights("m.pt", "back.caffemodel", "m.prototxt")
    assert not found.left_blobs
    assert not found.left_tensors
