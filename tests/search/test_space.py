"""The search space, and the split of the data."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.data.databases import base
from caffe.doctor.case import Case
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.search import split
from caffe.search.space import Dimension, read_space

pytest.importorskip("yaml", reason="needs PyYAML, which optuna brings")


def changed(space, case, params):
    solver, net = caffe_pb2.SolverParameter(), caffe_pb2.NetParameter()
    solver.CopyFrom(case.param)
    net.CopyFrom(case.net)
    space.change(case, params).apply(solver, net)
    return solver, net


def test_every_kind_of_path_and_value(small):
    (small / "space.yaml").write_text(
        "solver.base_lr: {log_uniform: [1e-4, 1e-1]}\n"
        "solver.type: {choice: [SGD, Adam]}\n"
        "solver.debug_info: {choice: [true, false]}\n"
        "solver.regularization_type: {choice: [L1, L2]}\n"
        'net.layer["ip1"].inner_product_param.num_output: {integer: [4, 32], step: 4}\n'
        'net.layer["ip*"].inner_product_param.weight_filler.type: {choice: [msra, xavier]}\n'
        "net.layer[5].inner_product_param.weight_filler.std: {uniform: [0, 1]}\n"
        'net.layer["ip1"].param[1].lr_mult: {uniform: [1, 2], also: \'net.layer["ip2"].param[1].lr_mult\'}\n'
        "solver.momentum: {choice: [5e-1, 0.9]}\n"
    )
    case, space = Case("solver.prototxt"), read_space("space.yaml")
    space.check(case)
    values = [0.01, "Adam", True, "L1", 12, "msra", 0.25, 1.5, "5e-1"]
    names = [dimension.name for dimension in space.dimensions]
    solver, net = changed(space, case, dict(zip(names, values, strict=True)))
    assert (solver.base_lr, solver.type, solver.debug_info) == (np.float32(0.01), "Adam", True)
    assert (solver.regularization_type, solver.momentum) == ("L1", 0.5)
    ip1, ip2 = (next(layer for layer in net.layer if layer.name == name) for name in ("ip1", "ip2"))
    assert (ip1.inner_product_param.num_output, ip2.inner_product_param.num_output) == (12, 3)
    assert ip1.inner_product_param.weight_filler.type == ip2.inner_product_param.weight_filler.type == "msra"
    assert [layer.param[1].lr_mult for layer in (ip1, ip2)] == [1.5, 1.5]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("solver.base_lrr: {uniform: [0, 1]}", 'no field "base_lrr"; did you mean "base_lr"'),
        ("base_lr: {uniform: [0, 1]}", "expected solver.FIELD"),
        ('net.layer["rellu"].name: {choice: [a]}', 'no such layer; did you mean "relu"'),
        ("net.layer[99].param[0].lr_mult: {uniform: [0, 1]}", "it has 7 layers"),
        ('net.layer["ip1"].inner_product_param.num_output: {uniform: [1, 2.5]}', "holds a whole number"),
        ("solver.solver_mode: {choice: [TPU]}", "is not one of CPU, GPU"),
        ("solver.base_lr: {log_uniform: [0, 1]}", "begins above 0"),
        ("solver.base_lr: {uniform: [2, 1]}", "the first must be below the second"),
        ("solver.base_lr: {unifrom: [1, 2]}", '"unifrom" is unknown'),
        ("solver.base_lr: {uniform: [1, x]}", "not a number"),
        ("solver.base_lr: {uniform: [1, 2], choice: [1]}", "expected one of"),
        ("solver.base_lr: 5", "expected {KIND: VALUES}"),
        ("solver.max_iter: {integer: [1, 9], log: true, step: 2}", "no step with log"),
        ("[", "is not valid YAML"),
    ],
)
def test_a_wrong_line_is_one_error(small, line, text):
    (small / "space.yaml").write_text(line)
    with pytest.raises(CaffeError) as caught:
        read_space("space.yaml").check(Case("solver.prototxt"))
    assert text in str(caught.value)


def test_grid_and_narrowed_range():
    rate = Dimension(("solver.base_lr",), "log_uniform", 1e-4, 1.0, points=5)
    np.testing.assert_allclose(rate.grid(), [1e-4, 1e-3, 1e-2, 1e-1, 1])
    near = rate.narrowed(0.5)
    np.testing.assert_allclose([near.low, near.high], [0.5 / 10**0.5, 1.0])  # a quarter of four decades, cut off at 1
    width = Dimension(("w",), "integer", 10, 100, step=10, points=4)
    assert width.grid() == [10, 40, 70, 100]
    assert (width.narrowed(50).low, width.narrowed(50).high) == (40, 60)
    assert Dimension(("w",), "integer", 1, 4).narrowed(4).low < 4
    assert Dimension(("c",), "choice", values=("a", "b")).narrowed("b").values == ("b",)
    with pytest.raises(CaffeError, match='add "points: 5"'):
        Dimension(("x",), "uniform", 0, 1).grid()


def keys(path):
    database = base.open_source("LMDB", path)
    try:
        return [bytes(key) for key, _ in database.scan()]
    finally:
        database.close()


def test_folds_share_the_training_data_and_leave_the_test_data(small):
    case = Case("solver.prototxt")
    parts = split.parts(case, small / "data", 0.1, 4, 1, "")
    assert [part.count for part in parts] == [50] * 4
    whole = keys("train_lmdb")
    held = [keys(part.validation) for part in parts]
    assert sorted(key for each in held for key in each) == whole
    for part, own in zip(parts, held, strict=True):
        assert keys(part.train) == [key for key in whole if key not in own]
    assert split.parts(case, small / "data", 0.1, 4, 1, "") == parts
    with pytest.raises(CaffeError, match="was split with other settings"):
        split.parts(case, small / "data", 0.1, 4, 2, "")
    with pytest.raises(CaffeError, match="is the test data"):
        split.parts(case, small / "data", 0.1, 1, 1, "test_lmdb")


def test_image_lists_are_split_by_line(small):
    net = (small / "net.prototxt").read_text()
    net = net.replace('type: "Data"', 'type: "ImageData"', 1)
    net = (
        net.replace("data_param", "image_data_param", 1)
        .replace("train_lmdb", "train.txt")
        .replace("backend: LMDB", "", 1)
    )
    (small / "net.prototxt").write_text(net)
    (small / "train.txt").write_text("".join(f"{index}.png {index % 3}\n" for index in range(20)))
    (part,) = split.parts(Case("solver.prototxt"), small / "data", 0.25, 1, 1, "")
    train, held = ((small / "data" / name).read_text().splitlines() for name in ("train0", "validation0"))
    assert (len(train), len(held), part.count) == (15, 5, 5)
    assert sorted(train + held) == sorted((small / "train.txt").read_text().splitlines())
