"""Inputs that describe nets and solvers: single layers with random options, whole nets, solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

import caffe
from caffe.layers import layer_class, layer_types
from caffe.proto import caffe_pb2, extend
from caffe.proto.printing import repeated_fields
from tools.fuzz.kinds import LARGEST_SIZE, Case, kind
from tools.fuzz.mutation import STRINGS, damaged_text
from tools.fuzz.seeds import NETS, SOLVERS

_SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5, 7, 16)
_EXTREME = (100, 1000, 10_000, 5_001, 1 << 16, (1 << 31) - 1, LARGEST_SIZE)
_FLOATS = (0.0, 1.0, 0.5, 2.0, -1.0, 1e-5, 0.1, 3.0, -0.5)
_EXTREME_FLOATS = (1e30, -1e30, 1e-38, float("nan"), float("inf"), float("-inf"))
_FILES = (
    *("lmdb", "leveldb", "images.txt", "windows.txt", "list.txt", "mean.npy", "rows.npz", "mean.binaryproto", "0.png"),
    *("small.caffemodel", "data.h5", "."),
)
LONGEST_RUN = 100  # iterations and the like: thousands would take their time, as requested
_WORDS = ("xavier", "constant", "uniform", "gaussian", "msra", "bilinear", "positive_unitball", "warp", "square", "w")
_AXES = ("axis", "num_axes", "start_axis", "end_axis", "concat_dim", "slice_dim", "top_k", "slice_point")
_FLOAT_TYPES = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_SIGNED = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64)


@kind
def layer(case: Case) -> None:
    """One layer of a random type with random options, forward and backward."""
    rng = case.rng
    (case.scratch / "list.txt").write_text(f"{case.seeds}/data.h5\n")
    net = caffe_pb2.NetParameter(name="one", force_backward=rng.random() < 0.7)
    net.state.phase = rng.randrange(2)
    spec = caffe_pb2.LayerParameter(name="layer", type=rng.choice(layer_types()))
    cls = layer_class(spec.type)
    names = [cls.options, *cls.more_options]
    for name in names:
        if name and rng.random() < 0.95:
            options = extend.options(spec, name)
            options.SetInParent()
            _fill(options, case, rng.choice((0.15, 0.3, 0.6)))
    if rng.random() < 0.1:
        _fill(spec, case, 0.02)
        spec.name, spec.type = "layer", cls.type
    shapes = _shapes(case, _count(case, cls.bottoms))
    for index, shape in enumerate(shapes):
        source = net.layer.add(name=f"in{index}", type="Input", top=[f"b{index}"])
        source.input_param.shape.add(dim=shape)
        spec.bottom.append(f"b{index}")
    spec.top.extend(f"b{index}" if rng.random() < 0.03 else f"t{index}" for index in range(_count(case, cls.tops)))
    net.layer.add().CopyFrom(spec)
    _run(caffe.Net(net), case)


def _count(case: Case, bounds: tuple[int, int | None]) -> int:
    least, most = bounds
    if case.rng.random() < 0.05:
        return case.rng.randrange(4)
    return case.rng.randint(least, min(most, max(3, least)) if most is not None and most >= least else least + 2)


def _shapes(case: Case, count: int) -> list[list[int]]:
    rng = case.rng
    first = [
        rng.choice((1, 1, 2, 2, 3, 4, 5, 6, 0 if rng.random() < 0.1 else 2))
        for _ in range(rng.choice((0, 1, 2, 3, 4, 4, 4, 5)))
    ]
    shapes = [first]
    for _ in range(count - 1):
        choice = rng.randrange(5)
        other = [first, first, first[:1], [*first[:1], 1, *first[2:]], first[:2]][choice]
        shapes.append([rng.choice(_SIZES) for _ in first] if rng.random() < 0.1 else other)
    return shapes[:count]


def _fill(message: Any, case: Case, share: float, depth: int = 0) -> None:
    """Set a share of the message's fields to random values."""
    repeated = repeated_fields(message.DESCRIPTOR)
    for field in message.DESCRIPTOR.fields:
        if case.rng.random() >= share or field.name in ("bottom", "top", "blobs") or depth > 3:
            continue
        count = case.rng.choice((1, 1, 2, 2, 3)) if field.name in repeated else 1
        for _ in range(count):
            if field.message_type is not None:
                inner = getattr(message, field.name)
                inner = inner.add() if field.name in repeated else inner
                inner.SetInParent()
                _fill(inner, case, 0.4, depth + 1)
            elif field.name in repeated:
                getattr(message, field.name).append(_value(field, case))
            else:
                setattr(message, field.name, _value(field, case))


def _value(field: Any, case: Case) -> Any:
    rng = case.rng
    extreme = rng.random() < 0.08
    if field.type in _FLOAT_TYPES:
        return rng.choice(_EXTREME_FLOATS if extreme else _FLOATS)
    if field.enum_type is not None:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        word = rng.choice((rng.choice(STRINGS), rng.choice(_WORDS), f"{case.seeds}/{rng.choice(_FILES)}"))
        if field.name in ("file_name", "snapshot_prefix"):  # a file to be written must not be a seed
            word = f"{case.scratch}/{rng.choice(STRINGS)}"
        word = f"{case.scratch}/list.txt" if word.endswith("list.txt") else word
        return word if field.type == FieldDescriptor.TYPE_STRING else word.encode()
    small = field.name in _AXES or rng.random() < 0.6
    value = rng.choice(_EXTREME) if extreme else rng.choice((1, 1, 2, 3, 0) if small else _SIZES)
    if field.type in _SIGNED:
        value = min(value, (1 << 31) - 1)
        return -value if rng.random() < 0.15 else value
    return value


@kind
def net(case: Case) -> None:
    """A prototxt with changed tokens."""
    name = case.rng.choice(sorted(NETS))
    path = case.write("net.prototxt", damaged_text(NETS[name], case.rng))
    _run(caffe.Net(str(path), case.rng.randrange(2)), case)


def _run(net: Any, case: Case) -> None:
    rng = np.random.default_rng(case.rng.getrandbits(32))
    try:
        for blob in map(net.blobs.__getitem__, net.inputs):
            kind = case.rng.randrange(8)
            values = rng.integers(3, size=blob.shape) if kind < 3 else rng.normal(size=blob.shape)
            if kind == 7 and values.size:
                values.flat[0] = case.rng.choice((np.nan, np.inf, -np.inf, 1e30, -1, 1e9))
            blob.data[...] = values
        choice = case.rng.randrange(4)
        if choice == 0:
            net.forward_backward()
        elif choice == 1 and net.phase == caffe.TEST:
            net.optimize()
            net.forward()
        else:
            net.forward()
            net.backward()
    finally:
        net.close()


@kind
def solver(case: Case) -> None:
    """A solver with changed tokens, two steps and a snapshot."""
    text = case.rng.choice(SOLVERS).replace("SEEDS", str(case.seeds))
    if case.rng.random() < 0.5:
        param = caffe_pb2.SolverParameter()
        _fill(param, case, 0.05)
        for field in ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param", "weights"):
            param.ClearField(field)
        from caffe.proto.printing import dumps

        for field, value in param.ListFields():
            if isinstance(value, int) and value > LONGEST_RUN:
                setattr(param, field.name, LONGEST_RUN)
            elif field.name == "test_iter":
                value[:] = [min(count, LONGEST_RUN) for count in value]
        lines = [line for line in dumps(param).splitlines() if "{" not in line and "}" not in line and line[0] != " "]
        text += "\n" + "\n".join(lines)
        content = text.encode()
    else:
        content = damaged_text(text, case.rng)
    path = case.write("solver.prototxt", content)
    solver = caffe.get_solver(str(path))
    try:
        solver.step(2)
        if case.rng.random() < 0.3:
            solver.snapshot()
    finally:
        for net in solver.nets:
            net.close()
