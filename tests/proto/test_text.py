"""Reading and writing prototxt."""

from __future__ import annotations

import math
import re

import pytest
from google.protobuf import text_format

from caffe.errors import FileError, ProtoError
from caffe.proto import caffe_pb2, text
from tests.conftest import reference, shared

BVLC_FOLDERS = ("cifar10_2014_v1", "lenet_mnist_2014_v1", "mtcnn", "resnet20_cifar10", "samplenet", "lstm")


def net(source: str) -> caffe_pb2.NetParameter:
    return text.parse(source, caffe_pb2.NetParameter(), "n.prototxt")


def solver(source: str) -> caffe_pb2.SolverParameter:
    return text.parse(source, caffe_pb2.SolverParameter(), "s.prototxt")


@pytest.mark.parametrize("folder", BVLC_FOLDERS)
def test_real_files_are_read_as_protobuf_reads_them(folder):
    paths = sorted(shared("models", folder).glob("*.prototxt"))
    assert paths
    for path in paths:
        kind = caffe_pb2.SolverParameter if "solver" in path.name else caffe_pb2.NetParameter
        assert text.read(path, kind()) == text_format.Parse(path.read_text(), kind())


def test_what_is_written_is_read_again():
    for path in sorted((reference("golden", "upgrade")).glob("v*.prototxt")):
        message = text.read(path, caffe_pb2.NetParameter())
        assert net(text.dumps(message)) == message


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        ("base_lr: 1.5f", "base_lr", 1.5),
        ("base_lr: 2F", "base_lr", 2),
        ("base_lr:.25", "base_lr", 0.25),
        ("base_lr: 5.", "base_lr", 5),
        ("base_lr: 1e-3", "base_lr", pytest.approx(1e-3)),
        ("base_lr: - 3", "base_lr", -3),
        ("base_lr: -inf", "base_lr", -math.inf),
        ("base_lr: Infinity", "base_lr", math.inf),
        ("base_lr: 0", "base_lr", 0),
        ("base_lr: 1e60", "base_lr", math.inf),
        ("max_iter: 0x1F", "max_iter", 31),
        ("max_iter: 010", "max_iter", 8),
        ("max_iter: -7", "max_iter", -7),
        ("random_seed: -9223372036854775808", "random_seed", -(2**63)),
        ("debug_info: t", "debug_info", True),
        ("debug_info: True", "debug_info", True),
        ("debug_info: 1", "debug_info", True),
        ("debug_info: f", "debug_info", False),
        ("debug_info: 0x0", "debug_info", False),
        ("solver_mode: 0", "solver_mode", 0),
        ("solver_mode: GPU", "solver_mode", 1),
        ("net: 'a.b'", "net", "a.b"),
        ('net: "a" \'b\' # why\n "c"', "net", "abc"),
        (r'net: "tab\t\x41\101\"\'"', "net", "tab\tAA\"'"),
        ('net: "Straße # no comment"', "net", "Straße # no comment"),
        (r'net: "ü\n\303\274\u00fc\?\\\0"', "net", "ü\nüü?\\\0"),
        ("test_iter: 1 test_iter: 2", "test_iter", [1, 2]),
        ("test_iter: [1, 2], test_iter: [];", "test_iter", [1, 2]),
        ("stepvalue:1stepvalue:2", "stepvalue", [1, 2]),
        ("base_lr:1max_iter:2", "max_iter", 2),
        ("max_iter: 3; net: 'x', ", "max_iter", 3),
    ],
)
def test_values_are_read_as_the_c_parser_reads_them(source, field, value):
    assert getattr(solver(source), field) == value


def test_message_fields_in_all_their_forms():
    message = net("state: < phase: TRAIN > layer { } layer: { param [ { lr_mult: 2 }, < > ] }")
    assert message.state.phase == caffe_pb2.TRAIN
    assert [len(layer.param) for layer in message.layer] == [0, 2]
    assert net("state {}").HasField("state")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            '\n\nlayer {\n name: "p"\n pooling_param {\n  kernal_size: 3 } }',
            'n.prototxt:6: layer "p": PoolingParameter has no field "kernal_size"; did you mean "kernel_size"?',
        ),
        ("nmae: 'x'", 'n.prototxt:1: NetParameter has no field "nmae"; did you mean "name"?'),
        ("base_lr: 1", 'NetParameter has no field "base_lr"; SolverParameter has one: is this the file of a solver?'),
        ("layer { kernel_w: 3 }", '"kernel_w"; it belongs in convolution_param or pooling_param'),
        ("layer { blobs_lr: 3 }", 'older "layers", in "layer" write param { lr_mult: ... }'),
        ("layers { crop_param { } }", 'V1LayerParameter has no field "crop_param"; only "layer { ... }" has it'),
        (
            "layer { pooling_param { pool: MEAN } }",
            'PoolingParameter.pool: expected one of MAX, AVE, STOCHASTIC, got "MEAN"',
        ),
        ("layer { pooling_param { pool: AVG } }", 'got "AVG"; did you mean "AVE"?'),
        ("layer { pooling_param { pool: 7 } }", 'got "7"'),
        ('layer { pooling_param { pool: "MAX" } }', "write it without quotes"),
        (
            "layer { type: CONVOLUTION }",
            'LayerParameter.type: expected a string in quotes, got "CONVOLUTION"; write "Convolution"',
        ),
        ('layers { type: "Convolution" }', '"layers" takes the name without quotes, or write "layer"'),
        ("name: x", 'NetParameter.name: expected a string in quotes, got "x"; write "x"'),
        ("layer { pooling_param { pad: -1 } }", 'PoolingParameter.pad: expected a whole number >= 0, got "-"'),
        ("layer { pooling_param { pad: 1.0 } }", 'expected a whole number >= 0, got "1.0"'),
        ("layer { pooling_param { pad: 4294967296 } }", "from 0 to 4294967295"),
        ("layer { loss_weight: yes }", 'LayerParameter.loss_weight: expected a number, got "yes"'),
        ("layer { loss_weight: 0x10 }", 'expected a number, got "0x10"'),
        ("debug_info: 2", 'expected true or false, got "2"'),
        ('name: "a" name: "b"', "NetParameter has name twice, expected it once"),
        ("state { } \n state { }", "n.prototxt:2: NetParameter has state twice"),
        ('name "a"', 'expected ":" after name, got ""a""'),
        ("state TRAIN", 'expected "{" after state, got "TRAIN"'),
        ('layer {\n name: "a"\n\n', 'n.prototxt:4: layer "a": expected "}", got the end of the file'),
        ("layer { } }", 'expected a field of NetParameter, got "}"'),
        ('name: "a\n"', "name: the string has no closing"),
        ("input_dim: [1 2]", 'expected "," or "]" in the list of input_dim, got "2"'),
        (r'name: "\xff"', "name: the string is not valid UTF-8"),
        (r'name: "C:\data\x"', r'name: unknown escape "\d" in a string; in paths write /, for a backslash \\'),
        ("name:", "NetParameter.name: expected a string in quotes, got the end of the file"),
        (
            '# one\nlayer { name: "a" }\nlayer { name: "c" clip_param { max: 1 } }',
            'n.prototxt:3: layer "c": the required field layer[1].clip_param.min is missing',
        ),
    ],
)
def test_errors_name_place_fact_and_way_out(source, error):
    with pytest.raises(ProtoError, match=re.escape(error)) as caught:
        net(source)
    assert str(caught.value).startswith("n.prototxt:")


def test_what_resembles_little_is_not_proposed():
    with pytest.raises(ProtoError, match=r'has no field "test_type"$'):
        solver("test_type: 1")


def test_net_file_given_as_solver():
    with pytest.raises(ProtoError, match='SolverParameter has no field "layer"; NetParameter has one: is this'):
        solver("layer { }")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "n.prototxt"
    path.write_bytes('# Größe\r\nname: "n"\r\nnmae: 1'.encode(encoding))
    with pytest.raises(ProtoError, match=r"n.prototxt:3: "):
        text.read(path, caffe_pb2.NetParameter())


def test_unreadable_files(tmp_path):
    (tmp_path / "train.prototxt").touch()
    (tmp_path / "w.caffemodel").write_bytes(caffe_pb2.NetParameter(name="n", input_dim=[0]).SerializeToString())
    for name, words in (
        ("trian.prototxt", 'trian.prototxt: cannot read: file not found; did you mean "train.prototxt"?'),
        ("no/train.prototxt", "there is no folder"),
        ("", "it is a folder"),
        ("w.caffemodel", r"is a binary net or its weights \(.caffemodel\); expected a text file"),
    ):
        with pytest.raises(FileError, match=words):
            text.read(tmp_path / name, caffe_pb2.NetParameter())
    assert text.read(tmp_path / "train.prototxt", caffe_pb2.NetParameter()) == caffe_pb2.NetParameter()


def test_layer_line(tmp_path):
    path = tmp_path / "n.prototxt"
    path.write_text(
        '# layer {\nname: "layer {"\nlayer { name: "a"\n include { } }\nlayers: <\n\n name: \'b\' > state { }\n'
        'layer\n{ param { name: "w" } name: "a" }'
    )
    assert [text.layer_line(path, index) for index in range(4)] == [3, 5, 9, None]
    assert [text.layer_line(path, index, "a") for index in range(4)] == [3, 3, 9, 9]
    assert text.layer_line(path, 0, "w") is None


def test_dumps_prints_as_caffe_logs_it():
    log = shared("golden", "logs", "train.log").read_text()
    printed = re.search(r"Initializing solver from parameters: \n(.*?)^I", log, re.S | re.M)[1]
    assert text.dumps(solver(printed)) == printed
    for printed in re.findall(r"Initializing net from parameters: \n(.*?)^I", log, re.S | re.M):
        assert text.dumps(net(printed)) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [(0.0005, "0.0005"), (1, "1"), (1e-8, "1e-08"), (0.1234567, "0.123456702"), (1e10, "1e+10"), (math.inf, "inf")],
)
def test_dumps_floats(value, printed):
    assert text.dumps(caffe_pb2.SolverParameter(base_lr=value)) == f"base_lr: {printed}\n"


def test_dumps_strings_and_doubles():
    assert text.dumps(caffe_pb2.NetParameter(name="ü\"\n'")) == 'name: "\\303\\274\\"\\n\\\'"\n'
    assert (
        text.dumps(caffe_pb2.BlobProto(double_data=[0.1, 1 / 3]))
        == "double_data: 0.1\ndouble_data: 0.33333333333333331\n"
    )


def test_write(tmp_path):
    path = tmp_path / "n.prototxt"
    message = net('layer { name: "a" dropout_param { dropout_ratio: 0.3 } }')
    text.write(path, message)
    assert text.read(path, caffe_pb2.NetParameter()) == message
