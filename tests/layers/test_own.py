"""Layer types of users: loaded, given options, checked, and documented by an example that runs."""

from __future__ import annotations

import importlib
import re
import sys

import numpy as np
import pytest
import torch

import caffe
from caffe.cli import imports, main
from caffe.errors import CaffeError, LayerError, NetError, ProtoError
from caffe.layers import Layer
from caffe.proto import caffe_pb2, extend, text
from tests.conftest import ROOT
from tests.devices import OneDevice
from tests.layers.cubes import CUBES

GUIDE = (ROOT / "docs" / "layers_own.md").read_text()
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 } } }\n'
QUIET = ("-minloglevel", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, own_types):
    """An empty working directory. Types and modules that the test defines in it are removed afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)(?: title=\S+)?\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [body for kind, body in fenced if kind == language]


def write(folder, name: str, options: str, body: str = "return x * self.opt.scale", module: str = "mine") -> None:
    (folder / f"{module}.py").write_text(
        "import torch\nfrom caffe.layers import Layer\n\n"
        f"class {name}(Layer, options={options}):\n    def forward(self, x):\n        {body}\n"
    )


def run_file(path) -> None:
    imports.load(str(path))


def param(layer: str) -> caffe_pb2.NetParameter:
    return text.parse(DATA + layer, caffe_pb2.NetParameter())


def block(kind: str, options: str = "") -> str:
    return f'layer {{ name: "own" type: "{kind}" bottom: "data" top: "y" {options} }}\n'


def test_the_example_of_the_guide_runs(folder, capsys):
    example, commands = blocks("python")[0], blocks("")[0]
    assert len(example.strip().splitlines()) <= 10
    (folder / "my_layers.py").write_text(example)
    (folder / "smooth.prototxt").write_text(blocks("prototxt")[0])
    for line in commands.strip().splitlines():
        assert main([*line.removeprefix("caffe ").split(), *QUIET]) == 0, line
    out = capsys.readouterr().out
    assert re.search(r"^smooth +Smooth +bottom 0 .* right$", out, re.MULTILINE)
    assert re.search(r"^  scale +float, default 2\.0$", out, re.MULTILINE)

    importlib.import_module("my_layers")
    net = caffe.Net("smooth.prototxt", caffe.TEST)
    x = net.blobs["data"].data[...] = np.random.default_rng(1).standard_normal((5, 3))
    np.testing.assert_allclose(net.forward()["smooth"], np.log1p(np.exp(3 * x)) / 3, rtol=1e-5)


def test_the_message_of_the_guide_gives_options(folder, capsys):
    (message,), layer = blocks("protobuf"), blocks("")[1]
    (folder / "my_layers.proto").write_text(message)
    (folder / "my_layers.py").write_text(blocks("python")[0].replace('{"scale": 2.0}', '"my_layers.proto"'))
    (folder / "net.prototxt").write_text(DATA + layer)
    assert main(["check", "net.prototxt", "-import", "my_layers", *QUIET]) == 0
    net = caffe.Net("net.prototxt", caffe.TEST)
    assert net.layer_dict["smooth"].opt.scale == 3
    assert main(["layers", "Smooth", *QUIET]) == 0
    assert re.search(r"^smooth_param:\n  scale  number, default 2$", capsys.readouterr().out, re.MULTILINE)

    spec = net.to_proto()
    assert caffe_pb2.NetParameter.FromString(spec.SerializeToString()) == spec
    assert text.parse(text.dumps(spec), caffe_pb2.NetParameter()) == spec
    net.save("net.caffemodel")
    stored = caffe_pb2.NetParameter.FromString((folder / "net.caffemodel").read_bytes()).layer[1]
    assert extend.options(stored, "smooth_param").scale == 3
    with pytest.raises(ProtoError, match='SmoothParameter has no field "scael"; did you mean "scale"'):
        text.parse(layer.replace("scale", "scael"), caffe_pb2.NetParameter())
    with pytest.raises(ProtoError, match='did you mean "smooth_param"'):
        text.parse(layer.replace("smooth_param", "smoth_param"), caffe_pb2.NetParameter())
    with pytest.raises(ProtoError, match="smooth_param twice"):
        text.parse(layer.replace("smooth_param", "smooth_param { } smooth_param"), caffe_pb2.NetParameter())


def test_a_message_can_use_messages_of_caffe_and_nested_messages(folder):
    (folder / "rich.proto").write_text("""
        // proto2 as protoc reads it
        syntax = "proto2"; import "caffe/proto/caffe.proto"; package rich;
        enum Shape { ROUND = 0; FLAT = 0x2; }
        message Options {
          message Part { required string name = 1; optional bool on = 2 [default = true]; }  /* a part
          of it */
          optional caffe.FillerParameter filler = 1;
          repeated uint32 size = 2 [packed = true];
          optional Shape shape = 3 [default = FLAT];
          optional Part part = 4;
          optional string word = 5 [default = "a b"];
          optional int64 least = 6 [default = -3];
        }""")
    write(folder, "Rich", '"rich.proto:Options"', "return x")
    run_file(folder / "mine.py")
    net = block("Rich", 'rich_param { filler { type: "xavier" } size: [ 2, 3 ] part { name: "p" } }')
    opt = caffe.Net(param(net), caffe.TEST).layer_dict["own"].opt
    assert (opt.filler.type, list(opt.size), opt.shape, opt.part.name, opt.part.on) == ("xavier", [2, 3], 2, "p", True)
    assert (opt.word, opt.least) == ("a b", -3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "message Bad1 { int32 x = 1; }",
            r'bad\d\.proto:1: expected "optional", .* got "int32"',
        ),
        ("\nmessage Bad2 { optional int32 x 1; }", r'bad\d\.proto:2: expected "=", got "1"'),
        ("message Bad3 { optional int32 x = one; }", 'expected a whole number, got "one"'),
        ("message Bad4 { optional Nothing x = 1; }", "a type is unknown"),
        ('syntax = "proto3";', "expected proto2"),
        ('import "other.proto";', "only caffe.proto can be imported"),
        ("service S { }", 'expected "message" or "enum", got "service"'),
        ("message Bad5 { optional int32 x = 1 [ctype = CORD]; }", 'unknown field option "ctype"'),
        ("message Bad6 { optional int32 x = 1;", 'got "the end"'),
        ("message Other { }", 'has no message "OwnParameter"'),
    ],
)
def test_a_bad_proto_file_is_one_error_with_its_line(folder, content, says):
    name = f"bad{len(content) % 10}.proto"
    (folder / name).write_text(content)
    write(folder, "Own", f'"{name}"')
    with pytest.raises(CaffeError, match=says):
        run_file(folder / "mine.py")


def test_a_message_class_of_protoc_gives_options():
    class Filled(Layer, options=caffe_pb2.FillerParameter):
        def forward(self, x):
            return x * self.opt.value

    net = caffe.Net(param(block("Filled", "filled_param { value: 7 }")), caffe.TEST)
    net.blobs["data"].data[...] = 2
    assert (net.forward()["y"] == 14).all()


def test_net_spec_writes_options_of_ones_own():
    class Written(Layer, options=caffe_pb2.FillerParameter):
        def forward(self, x):
            return x * self.opt.value

    for given in ({"value": 7}, {"written_param": {"value": 7}}):
        spec = caffe.NetSpec()
        spec.data = caffe.layers.Input(shape={"dim": [5, 3]})
        spec.y = caffe.layers.Written(spec.data, **given)
        assert caffe.Net(spec.to_proto(), caffe.TEST).layer_dict["y"].opt.value == 7


def test_options_of_one_name_belong_to_one_type():
    extend.add_options("twice_named_param", caffe_pb2.FillerParameter.DESCRIPTOR)
    extend.add_options("twice_named_param", caffe_pb2.FillerParameter.DESCRIPTOR)
    for name in ("twice_named_param", "pooling_param"):
        with pytest.raises(ProtoError, match="already has a field of this name"):
            extend.add_options(name, caffe_pb2.BlobShape.DESCRIPTOR)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{'scael': 1}", 'has no option "scael"; did you mean "scale"? (options: scale, way, times)'),
        ("{'scale': 'a'}", "option scale is 'a', expected a value of the type of its default: float"),
        ("{'times': 1.5}", "option times is 1.5, expected a value of the type of its default: int"),
        ("{'times': True}", "option times is True"),
        ("[3]", "param_str is '[3]', expected a dictionary such as {'scale': 2.0, 'way': 'up', 'times': 3}"),
        ("{scale: 3}", "expected a dictionary"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_an_error(given, says):
    class Plain(Layer, options={"scale": 2.0, "way": "up", "times": 3}):
        def forward(self, x):
            return x

    with pytest.raises(LayerError) as caught:
        caffe.Net(param(block("Plain", f'python_param {{ param_str: "{given}" }}')), 0)
    assert 'layer "own" (Plain): ' in str(caught.value)
    assert says in str(caught.value)
    with pytest.raises(LayerError, match='module and layer are for the type "Python"'):
        caffe.Net(param(block("Plain", 'python_param { module: "m" }')), 0)


def test_dictionary_values_and_defaults():
    class Plain(Layer, options={"scale": 2.0, "way": "up"}):
        def forward(self, x):
            return x

    class Child(Plain):
        pass

    for kind in ("Plain", "Child"):
        net = param(block(kind, "python_param { param_str: \"{'scale': 3}\" }"))
        opt = caffe.Net(net, caffe.TEST).layer_dict["own"].opt
        assert (opt.scale, opt.way) == (3, "up")


LONG = pytest.mark.long
WAYS = ["json,mine", "{folder}/mine.py", *(pytest.param(way, marks=LONG) for way in ("mine", "mine.py", "./mine.py"))]


@pytest.mark.parametrize("way", WAYS)
def test_every_command_that_builds_a_net_imports(folder, way, capsys):
    write(folder, "Mine", '{"scale": 2.0}')
    (folder / "net.prototxt").write_text(DATA + block("Mine"))
    assert main(["time", "-model", "net.prototxt", "-iterations=1", f"--import={way.format(folder=folder)}"]) == 0
    assert '"own"' not in capsys.readouterr().out
    assert importlib.import_module("mine") is sys.modules["mine"]
    assert main(["time", "-model", "net.prototxt", "-iterations=1", "--import", "mine.py"]) == 0  # loaded once


def test_training_with_a_layer_of_ones_own(folder, capsys):
    (folder / "mine.py").write_text("""
from caffe.layers import Layer
class Weighted(Layer):
    def setup(self, x):
        self.add_blob("weight", x.shape[1:])
    def forward(self, x):
        return x * self.weight
""")
    (folder / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "data" top: "t" dummy_data_param { shape { dim: 5 dim: 3 } '
        "shape { dim: 5 dim: 3 } data_filler { value: 1 } data_filler { value: 2 } } }"
        + block("Weighted")
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" }'
    )
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "w" solver_mode: CPU'
    )
    assert main(["train", "-solver", "solver.prototxt", "-import", "mine", *QUIET]) == 0
    net = caffe.Net("net.prototxt", caffe.TRAIN, weights="w_iter_20.caffemodel")
    np.testing.assert_allclose(net.params["own"][0].data, 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("way", "content", "says"),
    [
        ("nowhere", "", 'no module "nowhere"; looked in the working directory'),
        ("nowhere.py", "", "nowhere.py: no such file"),
        (
            "mine",
            "import not_installed_here",
            r"ModuleNotFoundError: No .* 'not_installed_here' \(.*mine.py:1\)",
        ),
        ("mine.py", "\n1 / 0", r"mine.py: ZeroDivisionError: division by zero \(.*mine.py:2\)"),
        ("mine", "def (:", "SyntaxError"),
        ("json.py", "", 'a module "json" is loaded already'),
        ("mine", "from caffe.layers import Layer\nclass ReLU(Layer): pass", 'layer type "ReLU" is defined twice'),
    ],
)
def test_what_cannot_be_imported_is_one_error(folder, way, content, says, capsys):
    (folder / "mine.py").write_text(content)
    (folder / "json.py").write_text("")
    assert main(["layers", "-import", way, *QUIET]) == 1
    err = capsys.readouterr().err
    assert re.search(says, err), err
    assert err.startswith("caffe: error: -import ")
    assert "Traceback" not in err


@pytest.mark.parametrize("body", ["return x * self.nothing", "return torch.zeros(2, 2) @ x.new_zeros(7, 1)"])
def test_an_error_in_the_class_names_the_layer_and_the_line(folder, body):
    write(folder, "Broken", "{}", body)
    run_file(folder / "mine.py")
    with pytest.raises(LayerError, match=r'layer "own" \(Broken\): .*mine\.py:6: \w+Error: .* \(bottoms: "data" 5 3'):
        caffe.Net(param(block("Broken")), caffe.TEST)


def test_an_error_in_a_run_names_the_layer_and_the_line(folder):
    write(folder, "Late", "{}", "return x if x.is_meta else x.nothing")
    run_file(folder / "mine.py")
    net = caffe.Net(param(block("Late")), caffe.TEST)
    with pytest.raises(LayerError, match=r'layer "own" \(Late\): .*mine\.py:6: AttributeError'):
        net.forward()


def test_a_second_class_of_a_type_names_both_files(folder):
    write(folder, "Same", "{}", module="one")
    write(folder, "Same", "{}", module="two")
    with pytest.raises(NetError, match=r"defined twice, in .*one\.py and in .*two\.py"):
        run_file(f"{folder}/one.py,{folder}/two.py")


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("return x.square()", 0, r"own +Checked +bottom 0 .* right"),
        ("return x.detach().square()", 1, r"own +Checked +bottom 0 .* WRONG"),
        ("return x.square() + x.detach()", 1, "wrong in: own"),
        ("return torch.nn.functional.dropout(x)", 0, "right"),
    ],
)
def test_check_distinguishes_right_and_wrong_gradients(folder, body, code, says, capsys):
    write(folder, "Checked", "{}", body)
    (folder / "net.prototxt").write_text(DATA + block("Checked"))
    assert main(["check", "net.prototxt", "-import", "mine", *QUIET]) == code
    assert re.search(says, capsys.readouterr().out)


def test_check_steps_around_kinks_ties_and_states(folder, capsys):
    (folder / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 3 dim: 2 dim: 5 dim: 7 } } }'
        'layer { name: "labels" type: "Input" top: "t" input_param { shape { dim: 3 } } }'
        'layer { name: "relu" type: "ReLU" bottom: "data" top: "r" }'
        'layer { name: "pool" type: "Pooling" bottom: "r" top: "p" pooling_param { kernel_size: 3 stride: 2 } }'
        'layer { name: "bn" type: "BatchNorm" bottom: "p" top: "p" }'
        'layer { name: "cont" type: "DummyData" top: "c" dummy_data_param { shape { dim: 3 dim: 2 } '
        'data_filler { type: "constant" value: 1 } } }'
        'layer { name: "lstm" type: "LSTM" bottom: "p" bottom: "c" top: "h" recurrent_param { num_output: 4 } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "h" top: "ip" inner_product_param { num_output: 5 } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "l" }'
        'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "t" top: "a" }'
    )
    assert main(["check", "net.prototxt", *QUIET]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"[0-9]  right$", out, re.MULTILINE)) == 1 + 1 + 1 + 4 + 3 + 1
    assert "6 layers with gradients; all are right" in out
    assert re.search(r"^accuracy +Accuracy +- +no gradient$", out, re.MULTILINE)


def test_check_takes_layers_of_pycaffe(folder, capsys):
    (folder / "mine.py").write_text(CUBES)
    for name, code in (("Cube", 0), ("Wrong", 1)):
        layer = block("Python", f'python_param {{ module: "mine" layer: "{name}" }}')
        (folder / "net.prototxt").write_text(DATA + layer)
        assert main(["check", "net.prototxt", *QUIET]) == code
        (folder / "net.prototxt").write_text(DATA + layer.replace("top:", "propagate_down: false top:"))
        assert main(["check", "net.prototxt", *QUIET]) == 0


def test_own_layers_run_on_one_device():
    class Constant(Layer):
        def forward(self, x):
            return x + (x.new_ones(3) if self.phase == caffe.TEST else torch.ones(3))

    net = param(block("Constant"))
    with OneDevice():
        caffe.Net(net, caffe.TEST, device="meta").module()
        with pytest.raises(LayerError, match="mixes devices"):
            caffe.Net(net, caffe.TRAIN, device="meta").module()
