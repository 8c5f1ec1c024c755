"""The upgrade of old nets and solvers, compared with the files and logs of Caffe's upgrade tools."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from caffe.errors import ProtoError
from caffe.proto import caffe_pb2, text, upgrade
from tests.conftest import our_commands, reference, shared

FOLDER = reference("golden", "upgrade")
CASES = json.loads((FOLDER / "upgrade.json").read_text()) if FOLDER.is_dir() else {}
LINE = re.compile(r"^([IWE])\S+ \S+ +\d+ (upgrade_proto\.cpp:\d+)\] (.*)$", re.MULTILINE)


def run(tool: str, path: Path) -> tuple[object, bool]:
    """Return the output of the upgrade tool of this name for a file, and whether it reports success."""
    if tool == "upgrade_solver_proto_text":
        solver = text.read(path, caffe_pb2.SolverParameter())
        upgrade.upgrade_solver(solver, path.name)
        return solver, True
    if tool == "upgrade_net_proto_binary":
        net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    else:
        net = text.read(path, caffe_pb2.NetParameter())
    return net, upgrade.upgrade_net(net, path.name)


@pytest.mark.parametrize("name", CASES or [pytest.param("", marks=pytest.mark.skip("no reference files"))])
def test_upgrade_writes_and_logs_what_caffe_does(name, caplog):
    case = CASES[name]
    (source,) = FOLDER.glob(f"{name}.in.*")
    caplog.set_level(logging.INFO, logger="caffe")
    if case["output"]:
        message, success = run(case["tool"], source)
        target = FOLDER / source.name.replace(".in.", ".out.")
        if target.suffix == ".caffemodel":
            expected = type(message).FromString(target.read_bytes())
        else:
            expected = text.read(target, type(message)())
        assert message == expected
        assert success == (case["rc"] == 0)
    else:
        with pytest.raises(ProtoError, match=re.escape(source.name)):
            run(case["tool"], source)
    logged = [(r.levelname[0], r.place, r.getMessage()) for r in caplog.records]
    assert logged == LINE.findall(our_commands(case["stderr"]))


@pytest.mark.parametrize("name", CASES or [pytest.param("", marks=pytest.mark.skip("no reference files"))])
def test_needs_upgrade_knows_files_in_the_latest_format(name):
    case = CASES[name]
    (source,) = FOLDER.glob(f"{name}.in.*")
    if "solver" in case["tool"]:
        needs = upgrade.solver_needs_upgrade(text.read(source, caffe_pb2.SolverParameter()))
    elif "binary" in case["tool"]:
        needs = upgrade.needs_upgrade(caffe_pb2.NetParameter.FromString(source.read_bytes()))
    else:
        needs = upgrade.needs_upgrade(text.read(source, caffe_pb2.NetParameter()))
    assert needs == ("already in latest" not in case["stderr"])


def test_v1_table_has_every_enum_value():
    assert set(upgrade.V1_TYPES) == set(caffe_pb2.V1LayerParameter.LayerType.keys())


def net(source: str) -> caffe_pb2.NetParameter:
    message = text.parse(source, caffe_pb2.NetParameter())
    upgrade.upgrade_net(message, "n.prototxt")
    return message


def test_every_v1_field_arrives():
    """Otherwise, a V1 field without an equivalent in the upgraded layer would be lost silently."""
    old = caffe_pb2.V1LayerParameter(name="l", type="POWER", blobs_lr=[2], weight_decay=[3], param=["w"])
    old.blob_share_mode.append(caffe_pb2.V1LayerParameter.PERMISSIVE)
    for field in old.DESCRIPTOR.fields:
        if field.name.endswith("_param"):
            getattr(old, field.name).SetInParent()
    old.transform_param.scale = 0.5
    upgraded = net(text.dumps(caffe_pb2.NetParameter(layers=[old]))).layer[0]
    names = {field.name for field, _ in upgraded.ListFields()}
    assert names == {f.name for f, _ in old.ListFields()} - {"blobs_lr", "weight_decay", "blob_share_mode"}
    assert text.dumps(upgraded.param[0]) == 'name: "w"\nshare_mode: PERMISSIVE\nlr_mult: 2\ndecay_mult: 3\n'


def test_quirk_one_old_transformation_gives_every_data_layer_a_transform_param():
    upgraded = net(
        "layers { type: DATA data_param { mirror: true } } layers { type: IMAGE_DATA } layers { type: RELU }"
    ).layer
    assert [layer.HasField("transform_param") for layer in upgraded] == [True, True, False]
    assert upgraded[1].HasField("image_data_param")
    assert not net("layers { type: DATA }").layer[0].HasField("transform_param")


def test_quirk_v0_padding_replaces_the_convolution_s_own():
    upgraded = net(
        'input: "x" layers { layer { type: "padding" pad: 2 } bottom: "x" top: "p" } '
        'layers { layer { type: "conv" pad: 3 } bottom: "p" top: "c" }'
    ).layer
    assert [(list(layer.bottom), list(layer.convolution_param.pad)) for layer in upgraded] == [(["x"], [2])]


PADDED = 'input: "x" input: "y" layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" %s top: "p" } '


@pytest.mark.parametrize(
    ("padding", "reader", "message"),
    [
        ("", 'type: "relu" } bottom: "p"', 'only "conv" and "pool" can take over'),
        ("", 'type: "conv" } bottom: "p" bottom: "x"', "expected 1 bottom, got 2"),
        ("", 'type: "conv" } bottom: "x" bottom: "p"', "expected 1 bottom, got 2"),
        ('bottom: "y"', 'type: "pool" } bottom: "p"', r"2 bottom\(s\) and 1 top\(s\), expected 1 and 1"),
        ('top: "q"', 'type: "pool" } bottom: "p"', r"1 bottom\(s\) and 2 top\(s\), expected 1 and 1"),
        ("", 'type: "conv" } bottom: "z"', 'bottom "z" is unknown'),
    ],
)
def test_v0_padding_that_nothing_can_take_over_is_refused(padding, reader, message):
    with pytest.raises(ProtoError, match=message):
        net(PADDED % padding + f'layers {{ layer {{ name: "c" {reader} top: "c" }}')


@pytest.mark.parametrize("kind", ["conv", "pool"])
def test_v0_padding_moves_only_to_its_reader(kind):
    layers = net(
        PADDED % ""
        + f'layers {{ layer {{ name: "c" type: "{kind}" pad: 1 }} bottom: "x" top: "c" }}'
        + f'layers {{ layer {{ name: "d" type: "{kind}" }} bottom: "p" top: "d" }}'
    ).layer
    options = [layer.convolution_param if kind == "conv" else layer.pooling_param for layer in layers]
    pads = [list(opt.pad) if kind == "conv" else [opt.pad] for opt in options]
    assert [(list(layer.bottom), pad) for layer, pad in zip(layers, pads, strict=True)] == [(["x"], [1]), (["x"], [2])]


def test_v0_options_of_another_type_are_logged_in_order(caplog):
    caplog.set_level(logging.ERROR, logger="caffe")
    net(
        'input: "x" input_dim: 2 input_dim: 3 input_dim: 5 input_dim: 7 layers { layer { name: "r" type: "relu" '
        'det_crop_mode: "warp" shuffle_images: true k: 1 stride: 2 hdf5_output_param { } biasterm: true } bottom: "x" }'
    )
    words = [r.getMessage().split()[2] for r in caplog.records[:-1]]
    assert words == ["biasterm", "stride", "k", "shuffle", "det_crop_mode", "hdf5_output_param"]


def test_v0_net_loses_nothing_silently(caplog):
    message = net(
        'debug_info: true layers { layer { name: "i" type: "images" new_num: 3 } top: "d" name: "outer" } '
        'layers { name: "late" type: RELU bottom: "d" top: "d" }'
    )
    lost = caplog.records[0].getMessage()
    for word in ("debug_info", 'new_num of layer "i"', 'name of layer "i"', 'type of layer "late"'):
        assert word in lost
    assert not message.debug_info


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('layers { layer { type: "relu" } bottom: "dta" } input: "data"', 'bottom "dta" is unknown.*mean "data"'),
        ('layers { layer { name: "c" type: "cov" } }', 'layer "c": unknown type "cov".*mean "conv"'),
        ('input: "a" input: "b" input_shape { dim: 2 }', "1 input_shape for 2 input, expected one each"),
        ('input: "a" input_dim: 2 input_dim: 3 input_dim: 5 input_dim: 7 input_dim: 11', "5 input_dim for 1 input"),
        ('input: "a" input: "b" input_dim: 2 input_dim: 3', "2 input_dim for 2 input, expected 4 each"),
    ],
)
def test_what_cannot_be_upgraded_is_an_error(source, words):
    with pytest.raises(ProtoError, match=f"^n.prototxt: .*{words}"):
        net(source)


def test_fewer_than_four_input_dims_are_the_input_s_axes():
    assert list(net('input: "a" input_dim: 2 input_dim: 3').layer[0].input_param.shape[0].dim) == [2, 3]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ("data_param { scale: 0.5 }", "data_param.scale"),
        ("data_param { batch_size: 2 crop_size: 3 }", "data_param.crop_size"),
        ("image_data_param { mirror: true }", "image_data_param.mirror"),
        ('window_data_param { mean_file: "m" }', "window_data_param.mean_file"),
    ],
)
def test_transformations_outside_transform_param_are_an_error(tmp_path, options, field):
    path = tmp_path / "n.prototxt"
    path.write_text(f'layer {{ name: "a" }}\n\nlayer {{\n  name: "d" type: "Data"\n {options} }}\n')
    message = upgrade.read_net(path)
    with pytest.raises(ProtoError, match=rf'n.prototxt:3: layer "d" \(Data\): {field} .*transform_param'):
        upgrade.check_modern(message, str(path))
    with pytest.raises(ProtoError, match=r'^layer "d" \(Data\)'):
        upgrade.check_modern(message)


def test_modern_nets_pass_the_check():
    upgrade.check_modern(net('layer { name: "d" type: "Data" data_param { scale: 1 mirror: false batch_size: 2 } }'))
    with pytest.raises(ProtoError, match="input_shape is given without"):
        upgrade.check_modern(net("input_shape { dim: 2 }"))


def test_solver_gets_a_snapshot_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snaps").mkdir()
    for line, prefix in (("", "deep.solver"), ('snapshot_prefix: "snaps"', "snaps/deep.solver"), ("", "deep.solver")):
        Path("deep.solver.prototxt").write_text(f"base_lr: 0.1 {line}")
        assert upgrade.read_solver("deep.solver.prototxt").snapshot_prefix == prefix


def test_binary_nets_are_read_with_their_blobs(tmp_path):
    source = shared("golden", "upgrade", "model_v1.in.caffemodel")
    message = upgrade.read_net_binary(source)
    assert len(next(layer for layer in message.layer if layer.name == "conv").blobs) == 2
    shutil.copyfile(source, tmp_path / "cut.caffemodel")
    with (tmp_path / "cut.caffemodel").open("r+b") as file:
        file.truncate(300)
    with pytest.raises(Exception, match=r"cut.caffemodel: is damaged or cut off"):
        upgrade.read_net_binary(tmp_path / "cut.caffemodel")
