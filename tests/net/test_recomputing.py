"""Training with recomputation in backward: the same numbers, and effects such as running statistics happen once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.errors import NetError, SolverError
from caffe.layers.base import Layer, Source
from caffe.layers.support.effects import Effects
from caffe.net.engines.recomputing import Recomputing, _loads, cut
from caffe.net.plan.rewrite import in_place
from caffe.proto import caffe_pb2
from caffe.solver import get_solver

ROOT = Path(__file__).parents[2]
BLOCK = """
layer {{ name: "conv{0}" type: "Convolution" bottom: "{1}" top: "conv{0}"
  convolution_param {{ num_output: 5 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "norm{0}" type: "BatchNorm" bottom: "conv{0}" top: "norm{0}" }}
layer {{ name: "scale{0}" type: "Scale" bottom: "norm{0}" top: "norm{0}" scale_param {{ bias_term: true }} }}
layer {{ name: "relu{0}" type: "ReLU" bottom: "norm{0}" top: "norm{0}" }}
layer {{ name: "more{0}" type: "Convolution" bottom: "norm{0}" top: "more{0}"
  convolution_param {{ num_output: 5 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "sum{0}" type: "Eltwise" bottom: "more{0}" bottom: "{1}" top: "sum{0}" }}
layer {{ name: "last{0}" type: "ReLU" bottom: "sum{0}" top: "sum{0}" }}
layer {{ name: "drop{0}" type: "Dropout" bottom: "sum{0}" top: "{2}" dropout_param {{ dropout_ratio: 0.3 }} }}
"""


def solver_of(middle: str = "", more: str = "", blocks: int = 6) -> Any:
    """Return a solver of a residual net with batch norm, dropout and a data layer that draws random batches."""
    names = ["first", *(f"x{index}" for index in range(blocks))]
    net = """
    layer { name: "data" type: "DummyData" top: "data" top: "label"
      dummy_data_param { shape { dim: 4 dim: 3 dim: 6 dim: 7 } shape { dim: 4 }
        data_filler { type: "gaussian" } data_filler { type: "constant" value: 2 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "first"
      convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "msra" } } }
    """
    net += middle + "".join(BLOCK.format(index, names[index], names[index + 1]) for index in range(blocks))
    net += f"""
    layer {{ name: "ip" type: "InnerProduct" bottom: "{names[-1]}" top: "ip"
      inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
    layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }}
    """
    param = caffe_pb2.SolverParameter()
    text_format.Parse(
        f'base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: 5 display: 0 {more} net_param {{ {net} }}', param
    )
    return get_solver(param)


def trained(solver: Any) -> dict[str, np.ndarray]:
    solver.net.slim()
    solver.step(3)
    found = {
        f"{name}/{i}": blob.data.copy() for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)
    }
    return found | {"random": torch.get_rng_state().numpy(), "loss": solver.net.blobs["loss"].data.copy()}


@pytest.mark.parametrize("more", ["", "iter_size: 2", "precision: BFLOAT16"])
def test_numbers_are_equal_to_the_bit(more):
    wanted = trained(solver_of(more=more))
    again = solver_of(more=f"{more} recompute: true")
    found = trained(again)
    engine = again.net.runners.training.engine
    assert isinstance(engine, Recomputing)
    assert wanted.keys() == found.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


@pytest.mark.parametrize(("name", "runs"), [("Counted", 1), ("Tallied", 2)])
def test_layers_with_effects_run_once_and_others_twice(name, runs, own_types):
    calls = 0

    class Counted(Layer):
        """Adds 0 to its bottom, and declares that its calls have effects."""

        effects = Effects.CALLS

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += x.device.type != "meta"
            return x * 1.0

    class Tallied(Layer):
        """Returns its bottom, and counts its runs, although it declares no effects."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += x.device.type != "meta"
            return x * 1.0

    middle = f'layer {{ name: "own" type: "{name}" bottom: "first" top: "first" }}'
    solver = solver_of(middle, "recompute: true")
    calls = 0
    solver.step(1)
    assert calls == runs


def held(solver: Any) -> int:
    """Return the bytes that autograd keeps between forward and backward, without the weights."""
    solver.net.slim()
    weights = {blob.data_ptr() for blob in solver.net.runners.training.parameters()}
    found: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.data_ptr() not in weights:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    module = solver.net.runners.training
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        values = module.engine.run()
    del values
    return sum(found.values())


def test_fewer_values_are_held():
    assert held(solver_of(more="recompute: true", blocks=12)) < 0.5 * held(solver_of(blocks=12))


def test_a_kept_blob_has_its_value_and_others_raise_an_error_with_the_reason():
    solver = solver_of(more="recompute: true")
    solver.net.slim(["sum1"])
    solver.step(1)
    assert solver.net.blobs["sum1"].data.any()
    with pytest.raises(caffe.CaffeError, match=r'net.slim\(keep=\["sum2"\]\)'):
        _ = solver.net.blobs["sum2"].data
    solver.net.stepwise()
    solver.step(1)
    assert solver.net.blobs["sum2"].data.any()


def test_compiled_and_divided_nets_and_debug_info_refuse_it():
    solver = solver_of(more="recompute: true", blocks=2)
    with pytest.raises(NetError, match="remove recompute, or do not compile"):
        solver.net.compile()
    with pytest.raises(SolverError, match="recompute cannot be used with debug_info"):
        solver_of(more="recompute: true debug_info: true", blocks=2)


def test_segment_that_begins_with_a_layer_in_place_is_counted_with_a_copy():
    """ResNet's ReLU after a sum: as a segment's first layer it keeps its bottom beside its top."""
    solver = solver_of(more="recompute: true", blocks=2)
    solver.net.slim()
    plan = solver.net.runners.training.plan
    calls = [call for call in plan.calls if not isinstance(call.layer, Source)]
    names = [call.layer.name for call in calls]
    loads = _loads(calls, plan.wanted_places)
    for name in ("last0", "last1"):
        relu, count = names.index(name), calls[names.index(name)].kept[0].count
        assert in_place(calls[relu])
        assert (loads.own[relu], loads.copied[relu]) == (0, count)
        assert in_place(calls[relu - 1]), "the sum"
        assert loads.made[relu] == loads.made[relu - 1] < relu - 1
        assert loads.own[loads.made[relu]] == count
    assert loads.made[0] == 0


def test_torch_compile_is_not_imported():
    """It takes 75 MB and a second."""
    code = """
import sys
from tests.net.test_recomputing import Recomputing, solver_of
solver = solver_of(more="recompute: true", blocks=2)
solver.step(2)
assert isinstance(solver.net.runners.training.engine, Recomputing)
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def most_values(parts: Sequence[Sequence[Any]]) -> int:
    """Return the peak number of values in backward: those kept for a segment and for earlier ones, its own, and the
    gradients of those that later segments read."""
    size = {
        place: blob.count
        for part in parts
        for call in part
        for place, blob in zip(call.writes, call.kept, strict=False)
    }
    most, kept = 0, set[int]()
    for index, part in enumerate(parts):
        own = sum(blob.count for call in part for blob in call.kept if call.writes[0] not in dict(call.reads))
        later = {place for other in parts[index + 1 :] for call in other for place, _ in call.reads}
        made = {place for other in parts[: index + 1] for call in other for place in call.writes}
        most = max(most, sum(size[place] for place in kept) + own + sum(size[place] for place in later & made))
        kept |= later & {place for call in part for place in call.writes}
    return most


def test_values_kept_for_later_segments_do_not_count_for_earlier_ones():
    layers = 'layer { name: "data" type: "Input" top: "x0" input_param { shape { dim: 1 dim: 4 dim: 64 dim: 64 } } }'
    for index in range(60):  # a large map, and from the middle on a small one
        kind = "Pooling" if index == 12 else "Sigmoid"
        options = "pooling_param { kernel_size: 2 stride: 2 }" if index == 12 else ""
        layers += f'layer {{ name: "l{index}" type: "{kind}" bottom: "x{index}" top: "x{index + 1}" {options} }}'
    layers += 'layer { name: "loss" type: "Reduction" bottom: "x60" top: "loss" loss_weight: 1 }'
    param = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed")
    text_format.Parse(layers, param.net_param)
    net = get_solver(param).net
    net.slim()
    plan = net.runners.training.plan
    calls = [call for call in plan.calls if not isinstance(call.layer, Source) and not call.layer.user_fed]
    parts = cut(calls, plan.wanted_places)
    assert [call for part in parts for call in part] == calls
    large = 4 * 64 * 64
    assert most_values(parts) <= 6.1 * large
