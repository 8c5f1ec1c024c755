"""caffe.proto, the modules generated from it, and BVLC Caffe's schema."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from caffe.proto import caffe_pb2
from tests.conftest import ROOT, shared

SOURCE = ROOT / "src" / "caffe" / "proto" / "caffe.proto"
OURS = 20000  # fields from here on are additions of our own
SCALARS = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
LABELS = {
    number: name.removeprefix("LABEL_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Label.items()
}


def merged() -> str:
    """caffe.proto with the fields of forks: the input of protoc in tools/generate_proto.py."""
    path = ROOT / "tools" / "generate_proto.py"
    spec = importlib.util.spec_from_file_location("generate_proto", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.merged(SOURCE.parent)


def generated() -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto.FromString(caffe_pb2.DESCRIPTOR.serialized_pb)


def value_of(field: descriptor_pb2.FieldDescriptorProto):
    """Return the default of a field as a JSON value; None if there is none."""
    if not field.HasField("default_value"):
        return None
    kind, given = SCALARS[field.type], field.default_value
    if kind == "bool":
        return given == "true"
    if kind in ("float", "double"):
        return float(given)
    return given if kind in ("string", "enum") else int(given)


def described(field: descriptor_pb2.FieldDescriptorProto) -> dict:
    return {
        "name": field.name,
        "number": field.number,
        "label": LABELS[field.label],
        "type": field.type_name.lstrip(".") or SCALARS[field.type],
        "default": value_of(field),
        "packed": field.options.packed,
        "deprecated": field.options.deprecated,
    }


def all_enums(file: descriptor_pb2.FileDescriptorProto) -> dict[str, dict[str, int]]:
    enums = {f"caffe.{enum.name}": enum for enum in file.enum_type}
    enums |= {f"caffe.{m.name}.{enum.name}": enum for m in file.message_type for enum in m.enum_type}
    return {name: {value.name: value.number for value in enum.value} for name, enum in enums.items()}


def test_messages_are_those_of_caffe():
    expected = json.loads(shared("golden", "schema.json").read_text())["messages"]
    messages = {f"caffe.{message.name}": message for message in generated().message_type}
    assert expected.keys() <= messages.keys()
    for name, fields in expected.items():
        own = sorted(map(described, messages[name].field), key=lambda field: field["number"])
        assert [field for field in own if field["number"] < OURS] == [
            pytest.approx(field) if field["type"] == "float" and field["default"] is not None else field
            for field in fields
        ], name


def test_enums_are_those_of_caffe():
    expected = json.loads(shared("golden", "schema.json").read_text())["enums"]
    own = all_enums(generated())
    assert {
        name: {value: number for value, number in own[name].items() if number < OURS} for name in expected
    } == expected


def test_the_generated_module_agrees_with_the_source():
    """Every field in caffe.proto and the forks' files is compared with the generated descriptor."""
    stated, message = set(), ""
    for line in re.sub(r"//.*", "", merged()).splitlines():
        if match := re.match(r"message (\w+)", line):
            message = match[1]
        elif match := re.match(r"\s+(optional|required|repeated) ([\w.]+) (\w+) = (\d+)(?: \[(.*)\])?;", line):
            label, kind, name, number, options = match.groups()
            given = dict(option.split(" = ") for option in options.split(", ")) if options else {}
            stated.add(
                (message, label, kind.rpartition(".")[2], name, int(number), given.get("default"), given.get("packed"))
            )
    assert {entry[:5] for entry in stated} == {
        (m.name, LABELS[f.label], f.type_name.rpartition(".")[2] or SCALARS[f.type], f.name, f.number)
        for m in generated().message_type
        for f in m.field
    }
    fields = {(m.name, f.name): f for m in generated().message_type for f in m.field}
    for owner, _, _, name, _, default, packed in stated:
        field = fields[owner, name]
        assert field.options.packed == (packed == "true"), name
        if default is not None and SCALARS[field.type] in ("float", "int32", "uint32", "int64"):
            assert float(field.default_value) == pytest.approx(float(default)), name
        else:
            assert field.default_value == (default or "").strip('"'), name


def test_generated_module_is_what_protoc_makes(tmp_path):
    pytest.importorskip("grpc_tools")
    target = tmp_path / "descriptor"
    source = tmp_path / "caffe" / "proto" / "caffe.proto"
    source.parent.mkdir(parents=True)
    source.write_text(merged())
    args = [f"-I{tmp_path}", f"--descriptor_set_out={target}", str(source)]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *args], check=True)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    own = generated()
    for message in (*file.message_type, *own.message_type):
        for field in message.field:
            field.ClearField("json_name")
            if value_of(field) is not None and SCALARS[field.type] == "float":
                field.default_value = str(np.float32(field.default_value))  # the file can give any number of digits
    assert file == own


def test_generated_module_asks_for_no_version_of_protobuf():
    assert "runtime_version" not in SOURCE.with_name("caffe_pb2.py").read_text()


def test_proto_imports_neither_torch_nor_h5py():
    code = (
        "import sys, caffe.proto\nfrom caffe.proto import caffe_pb2, text, upgrade, weights, state, files\n"
        "print([m for m in ('torch', 'h5py', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_generated_types_know_every_field():
    stated = re.findall(r"^    (\w+)_FIELD_NUMBER:", SOURCE.with_name("caffe_pb2.pyi").read_text(), re.MULTILINE)
    assert sorted(stated) == sorted(field.name.upper() for m in generated().message_type for field in m.field)
