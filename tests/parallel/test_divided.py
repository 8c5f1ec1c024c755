"""Nets that are divided over processes give the same training as one process, and reject unsupported options."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import text_format

from caffe.data.pipeline import shard
from caffe.data.pipeline.pool import cores
from caffe.errors import CaffeError, SolverError
from caffe.net import Net
from caffe.net.divided.parts import even
from caffe.net.divided.pipeline import order
from caffe.net.divided.stages import cut, shares
from caffe.net.graph.build import adapting
from caffe.parallel.group import ALONE, Alone, joined
from caffe.parallel.launch import launch
from caffe.proto import caffe_pb2, state, weights
from caffe.solver import divided, get_solver
from tests.conftest import ROOT
from tests.parallel import cases, combinations, divided_cases

RULES = {"SGD": divided_cases.STEPS, "Adam": 6, "LARS": 6, "LAMB": 6, "Larc": 6}
SIZES = {"shard": (3, 2), "tensor": (2, 4), "pipeline": (2, 3), "pipelines": (4,)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the data of the cases."""
    folder = tmp_path_factory.mktemp("divided")
    cases.write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
        patch.chdir(folder)
        yield folder


def close(found, expected, most, what):
    """Whether arrays are equal up to the order of float32 additions."""
    scale = np.abs(expected).max(initial=1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=most * scale, err_msg=what)


@pytest.mark.long
@pytest.mark.parametrize(("mode", "size"), [(mode, size) for mode, sizes in SIZES.items() for size in sizes])
def test_trajectories_tests_and_files_are_those_of_one_process(place, mode, size):
    assert launch(["-m", "tests.parallel.divided_cases", str(place), mode], size, cores()) == 0
    expected = divided_cases.CASES[mode](1)
    for rank in range(size):
        found = dict(np.load(place / f"{mode}_{size}_{rank}.npz"))
        for name, value in expected.items():
            close(found[name], value, 3e-6, f"{name} of rank {rank}")
        for kind in RULES:
            assert np.array_equal(found[f"{kind} resumed"], found[f"{kind} on"])
    for kind, steps in RULES.items():
        one, several = (f"{mode}_{kind}_{count}_iter_{steps + 3}" for count in (1, size))
        there, here = (weights.read(place / f"{name}.caffemodel") for name in (one, several))
        assert here.keys() == there.keys()
        for layer, arrays in there.items():
            for array, own in zip(arrays, here[layer], strict=True):
                close(own, array, 3e-6, f"{kind}, {layer}")
        for array, own in zip(*(state.read(place / f"{name}.solverstate")[1] for name in (one, several)), strict=True):
            close(own, array, 3e-5, f"{kind}, histories")
    alone = divided_cases.made(mode, 1, 'type: "SGD" momentum: 0.9 clip_gradients: 0.4 ema_decay: 0.9 iter_size: 2 ')
    alone.restore(f"{mode}_SGD_{size}_iter_33.solverstate")
    assert alone.iter == 33
    cases.close(alone)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["shard", "tensor", "pipeline_of_batches"])
def test_layers_of_many_kinds_with_statistics_of_all(place, mode):
    name = f"varied_{mode}"
    assert launch(["-m", "tests.parallel.divided_cases", str(place), name], 2, cores()) == 0
    expected = divided_cases.CASES[name](1)
    for rank in range(2):
        found = dict(np.load(place / f"{name}_2_{rank}.npz"))
        for key, value in expected.items():
            close(found[key], value, 1e-5, f"{key} of rank {rank}")
        assert np.array_equal(found["SGD resumed"], found["SGD on"])


@pytest.mark.long
def test_combinations_of_the_table_in_the_docs(place):
    assert launch(["-m", "tests.parallel.combinations", str(place)], 2, cores()) == 0
    found = dict(np.load(place / "combinations_0.npz"))
    for option, ways in combinations.table().items():
        for way, right in ways.items():
            losses = found[f"{option} {way}"]
            assert bool(losses.size) == right, f"{option}, {way}"
            if right:
                expected = combinations.run(option, way, 1)
                close(losses, expected, 1e-2 if "BFLOAT16" in option else 3e-6, f"{option}, {way}")


# -- refusals --------------------------------------------------------------------------------------------------------

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 6 dim: 3 } shape { dim: 6 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" %s }
"""
PIPELINE = "pipeline { stages: 2 micro_batches: 3 }"


class Several(Alone):
    """A group of processes in which all others report the same as this one."""

    def __init__(self, size):
        self.size = size


class Behind(Several):
    """A process other than the first, in a group whose first process has measured a slow layer."""

    rank = 1

    def share(self, value):
        return [0, 1, 9, 1, 1, 1, 1]


def solver(options="", size=2, layers="", loss=""):
    param = text_format.Parse(f'base_lr: 0.1 lr_policy: "fixed" {options}', caffe_pb2.SolverParameter())
    text_format.Parse(NET % loss + layers, param.net_param)
    with joined(Several(size) if size > 1 else ALONE):
        return get_solver(param)


def layer(kind, options="", bottom="ip", top="t"):
    return f'layer {{ name: "l" type: "{kind}" bottom: "{bottom}" top: "{top}" {options} }}'


@pytest.mark.parametrize(
    ("options", "size", "layers", "loss", "fact"),
    [
        ("shard: FULL tensor_parallel: 2", 2, "", "", "tensor_parallel and shard are both set"),
        ("shard: FULL " + PIPELINE, 2, "", "", "pipeline and shard are both set"),
        ("tensor_parallel: 2 " + PIPELINE, 2, "", "", "pipeline and tensor_parallel are both set"),
        ("tensor_parallel: 0", 2, "", "", "tensor_parallel is 0, expected"),
        ("tensor_parallel: 2", 3, "", "", r"there are 3 process\(es\), expected a multiple"),
        ("tensor_parallel: 2", 1, "", "", r"there are 1 process\(es\), expected a multiple"),
        (PIPELINE, 1, "", "", r"2 stages, but there are 1 process\(es\)"),
        (PIPELINE, 3, "", "", r"there are 3 process\(es\), expected a multiple"),
        ("pipeline { stages: 1 }", 2, "", "", "1 stages and 1 micro_batches"),
        ('shard: FULL type: "Muon"', 2, "", "", '"Muon" needs whole blobs'),
        (PIPELINE + ' type: "LBFGS"', 2, "", "", "needs all data in one process"),
        ("shard: FULL precision: BFLOAT16", 2, "", "", "precision and shard are both set"),
        (PIPELINE + " debug_info: true", 2, "", "", "debug_info and pipeline are both set"),
        (PIPELINE + " larc: true larc_turbo: true", 2, "", "", "larc_turbo and pipeline are both set: its averages"),
        ("shard: FULL snapshot_diff: true", 2, "", "", "snapshot_diff and shard are both set"),
        (PIPELINE + " global_dropout: true", 2, "", "", "global_dropout and pipeline are both set"),
        ("pipeline { stages: 2 micro_batches: 4 }", 2, "", "", "one batch size, divisible by 4"),
        (PIPELINE, 2, layer("BatchNorm"), "", "BatchNorm. is not known to compute each record"),
        (PIPELINE, 2, layer("Softmax", "softmax_param { axis: 0 }"), "", "along the axis of the records"),
        (
            PIPELINE,
            2,
            layer("Reshape", "reshape_param { shape { dim: 3 dim: -1 } }"),
            "",
            "first axis is not the batch",
        ),
        (PIPELINE, 2, layer("Power", "loss_weight: 1"), "", "loss weight on a top with several values"),
        (PIPELINE, 2, "", "loss_param { normalization: NONE }", "adds up the losses of all records"),
        (PIPELINE, 2, "", "loss_param { ignore_label: 1 }", "divides by the items without ignore_label"),
        ("pipeline { stages: 6 }", 6, "", "", "can be cut into at most 2 parts"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_training(options, size, layers, loss, fact):
    try:
        with pytest.raises(CaffeError, match=fact):
            solver(options, size, layers, loss)
    finally:
        shard.read_as_one(1)


def test_one_process_has_all_of_its_shards():
    made = solver("shard: FULL", 1)
    made.step(1)
    made.net.close()
    with pytest.raises(SolverError, match=r"shard is set, but caffe\.NCCL does not support it"):
        made.join(Several(2))


def test_a_solver_joins_each_group_once():
    made, group = solver(size=1), Several(2)
    made.join(group)
    together = made.together
    assert together.group is group
    made.join(group)
    assert made.together is together
    made.net.close()


# -- parts and stages ------------------------------------------------------------------------------------------------


def test_parts_cover_a_blob():
    assert even((7, 3), 0, 3).bounds == (0, 3, 6, 7)
    assert even((2, 3), 0, 4).bounds == (0, 1, 2, 2, 2)
    assert even((), 0, 2).own_shape(1) == (0,)


def test_a_stage_alternates_as_soon_as_its_first_micro_batch_can_be_back():
    assert order(1, 2, 3) == [True, False] * 3
    assert order(0, 2, 3) == [True, True, False, True, False, False]
    assert order(0, 4, 2) == [True, True, False, False]


def chain(shared=()):
    """Return the steps of InnerProduct layers of equal cost after a data layer; some share their weights."""
    both = 'param { name: "w" } param { name: "b" }'
    text = "".join(
        f'layer {{ name: "{index}" type: "InnerProduct" bottom: "{index - 1 if index else "ip"}" top: "{index}" '
        f"inner_product_param {{ num_output: 3 }} {both if index in shared else ''} }}"
        for index in range(6)
    )
    made = solver("", 1, text + 'layer { name: "end" type: "Silence" bottom: "5" }')
    made.net.close()
    return [step for step in made.net.steps if step.layer.name.isdigit() or step.layer.name == "x"]


def test_stages_are_equal_in_cost_and_keep_shared_weights_together():
    steps = chain(shared=(0, 4))
    assert cut(steps, shares(steps), 2) == [0, 0, 0, 0, 0, 0, 1]


def test_stages_follow_measured_times_where_they_differ_clearly(monkeypatch):
    steps = chain()
    net = SimpleNamespace(steps=steps, device=None, layer_names=[step.layer.name for step in steps])
    for slow, options, expected in (
        (9, "", [0, 0, 0, 1, 1, 1, 1]),
        (9, "cost: OPERATIONS", [0, 0, 0, 0, 1, 1, 1]),
        (1.1, "", [0, 0, 0, 0, 1, 1, 1]),
        (None, "", [0, 0, 0, 0, 1, 1, 1]),
    ):
        monkeypatch.setattr(divided, "layer_seconds", lambda *_, slow=slow: [0, 1, slow, 1, 1, 1, 1])
        param = text_format.Parse(f"pipeline {{ {options} }}", caffe_pb2.SolverParameter())
        assert divided._stages(param, Several(2), net) == expected
    assert divided._stages(param, Behind(2), net) == [0, 0, 0, 1, 1, 1, 1]


def test_only_the_nets_of_the_thread_are_cut_while_they_are_built():
    def build(name: str) -> None:
        text = f'layer {{ name: "{name}" type: "Input" top: "x" input_param {{ shape {{ dim: 2 }} }} }}'
        Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe_pb2.TEST)

    seen = []
    with adapting(lambda layer: seen.append(layer.name)):
        other = threading.Thread(target=build, args=["other"])
        other.start()
        other.join()
        build("own")
    assert seen == ["own"]
