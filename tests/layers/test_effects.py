"""The effects that each layer type declares are exactly those that its forward has."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import caffe.torch
from caffe.errors import NetError
from caffe.layers import Layer, base, layer_class, layer_types
from caffe.layers.base import as_tuple
from caffe.layers.support.effects import Effects, RandomState
from caffe.layers.support.values import recording
from caffe.net.plan.rewrite import Call
from caffe.net.plan.rewrite.dead import drop_dead
from caffe.proto import caffe_pb2, text
from tests.film import reads_host
from tests.layers.alone import alone
from tests.layers.case import every
from tests.layers.cases import CASES

STATE = Effects.RANDOM | Effects.BUFFERS | Effects.VALUES | Effects.CALLS
NEED_FILES = ("ArrayData", "Data", "HDF5Data", "ImageData", "WindowData", "AnnotatedData", "DenseImageData")
NEED_FILES += ("ImageLabelmapData", "ImageSegData", "BoxData", "POSE_IMAGE_DATA", "SegData", "VideoData")
NEED_FILES += (
    "VideoSegmentationData",
    "VideoWithVoxelTruthData",
    "DetectionData",
    "EvalData",
    "ImageGtData",
    "LaneData",
    "MatRead",
)
SHAPE = "dummy_data_param { shape { dim: 2 } data_filler { type: 'gaussian' } }"


class _UserCode(TorchDispatchMode):
    """Records operators that make the host wait for values."""

    seen = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen = self.seen or reads_host(func)
        return func(*args, **(kwargs or {}))


def frozen(value: Any) -> Any:
    """Return a copy of a value, to compare it with a later state."""
    if isinstance(value, Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(item) for item in value]
    return value if isinstance(value, (int, float, str, bytes, type(None), torch.Size)) else id(value)


def attributes(layer: Layer) -> dict[str, Any]:
    return {name: frozen(value) for name, value in vars(layer).items() if name not in ("_buffers", "_parameters")}


def generators() -> tuple[bytes, str]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())


def observed(layer: Layer, bottoms: list[Tensor]) -> Effects:
    """Return the effects of the second run, because the first run may allocate buffers."""
    with torch.no_grad():
        layer.forward(*bottoms)
        held, drawn, plain = dict(layer._buffers), generators(), attributes(layer)
        before, blobs = frozen(layer._buffers), frozen(dict(layer._parameters))
        with recording(), _UserCode() as host:
            layer.forward(*bottoms)
    found = Effects.NONE
    assert all(layer._buffers[name] is x for name, x in held.items()), "a buffer is another one after a run"
    assert frozen(dict(layer._parameters)) == blobs, "a run changed a parameter"
    if generators() != drawn:
        found |= Effects.RANDOM
    if frozen(layer._buffers) != before:
        found |= Effects.BUFFERS
    if attributes(layer) != plain:
        found |= Effects.CALLS
    return found | (Effects.VALUES if host.seen else Effects.NONE)


def others(folder) -> list[tuple[Layer, list[Tensor]]]:
    """Yield layers of types without a case, and their bottoms."""
    memory = "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 1 }"
    arrays: Any = alone("MemoryData", [], memory, tops=2)
    arrays.set_arrays(np.zeros((6, 1, 1, 1), np.float32), np.zeros(6))
    output = alone("HDF5Output", [(2, 3), (2,)], f'hdf5_output_param {{ file_name: "{folder}/out.h5" }}', tops=0)
    matlab = alone("MatWrite", [(2, 3)], f'mat_write_param {{ prefix: "{folder}/" }}', tops=0)
    return [
        (matlab, [torch.ones(2, 3)]),
        (alone("Silence", [(2, 3)], tops=0), [torch.ones(2, 3)]),
        (alone("Input", [], "input_param { shape { dim: 2 } }"), []),
        (alone("DummyData", [], SHAPE), []),
        (arrays, []),
        (output, [torch.ones(2, 3), torch.ones(2)]),
    ]


def test_no_effect_goes_undeclared_and_every_declared_one_is_seen(tmp_path):
    found: dict[str, Effects] = defaultdict(lambda: Effects.NONE)

    def check(case):
        layer = case.build(torch.float32)
        seen = observed(layer, [x.detach() for x in case.bottoms_as(torch.float32)])
        found[case.type] |= seen
        assert seen in layer.effects_now
        assert layer.effects_now in layer.effects in layer_class(case.type).effects
        assert seen in layer_class(case.type).effects

    every(CASES, check)
    for layer, bottoms in others(tmp_path):
        found[layer.type] |= observed(layer, bottoms)
    streams = alone("RNN", [(5, 2, 3), (5, 2)], "recurrent_param { num_output: 7 weight_filler { type: 'xavier' } }")
    found["RNN"] |= observed(streams, [torch.randn(5, 2, 3), torch.ones(5, 2)])
    with h5py.File(tmp_path / "out.h5") as file:
        found["HDF5Output"] |= Effects.CALLS if len(file["data"]) == 4 else Effects.NONE
    stochastic = "pooling_param { pool: STOCHASTIC kernel_size: 2 }"
    found["Pooling"] |= observed(alone("Pooling", [(1, 1, 4, 4)], stochastic), [torch.ones(1, 1, 4, 4)])
    pyramid = "spp_param { pool: STOCHASTIC pyramid_height: 2 }"
    found["SPP"] |= observed(alone("SPP", [(1, 1, 4, 4)], pyramid), [torch.ones(1, 1, 4, 4)])
    goes_on = "lstm_param { num_output: 3 batch_size: 2 weight_filler { type: 'xavier' } }"
    found["Lstm"] |= observed(alone("Lstm", [(6, 3), (6,)], goes_on), [torch.randn(6, 3), torch.ones(6)])
    adds_up = alone("SegAccuracy", [(1, 2, 2, 2), (1, 1, 2, 2)], "seg_accuracy_param { reset: false }")
    found["SegAccuracy"] |= observed(adds_up, [torch.randn(1, 2, 2, 2), torch.ones(1, 1, 2, 2)])
    few = "proposal_target_param { cls_num: 2 batch_size: 2 img_width: 60 img_height: 60 }"
    boxes = torch.tensor([[0.0, 0, 0, 9 + i, 9] for i in range(8)])
    truth = torch.tensor([[0.0, 0, 0, 9, 9, 1, 0]])
    found["ProposalTarget"] |= observed(alone("ProposalTarget", [(8, 5), (1, 7)], few, tops=6), [boxes, truth])
    drops = "denseblock_param { numTransition: 1 growthRate: 1 use_dropout: true dropout_amount: 0.5 }"
    found["DenseBlock"] |= observed(alone("DenseBlock", [(2, 1, 3, 3)], drops), [torch.randn(2, 1, 3, 3)])
    own = {name for name in layer_types() if layer_class(name).__module__.startswith("caffe.")}
    # the first run fills constants, later runs do not, so that the user can change them
    found["DummyData"] |= Effects.CALLS
    # the layer converts its bottoms to arrays, which no operator records
    found["DetectNetTransformation"] |= Effects.VALUES
    declared = {name: layer_class(name).effects & STATE for name in own - {*NEED_FILES, "Python"}}
    assert {name: found[name] & STATE for name in declared} == declared
    assert {layer_class(name).effects for name in NEED_FILES} == {Effects.CALLS}
    assert layer_class("Python").effects is Effects.CALLS


def test_checks_are_declared(monkeypatch):
    looked: list[Tensor] = []

    def look(x: Tensor) -> bool:
        looked.append(x)
        return True

    for module in ("support.labels", "shape"):
        monkeypatch.setattr(f"caffe.layers.{module}.can_look", look)

    def check(case):
        layer = case.build(torch.float32)
        looked.clear()
        layer.forward(*case.bottoms_as(torch.float32))
        assert not looked or Effects.CHECKS in layer.effects_now

    every(CASES, check)


def test_a_repeated_run_changes_nothing_and_gives_the_same():
    every(CASES, repeat)


def repeat(case):
    """Run a case's layer twice."""
    layer = case.build(torch.float32)
    bottoms = [x.detach() for x in case.bottoms_as(torch.float32)]
    layer.forward(*bottoms)  # a recurrent layer resets its state
    start = RandomState.now()
    with layer.repeating():
        first = [x.clone() for x in as_tuple(layer.forward(*bottoms))]
    held, before, plain = dict(layer._buffers), frozen(layer._buffers), attributes(layer)
    torch.rand(1)
    drawn = generators()
    with layer.repeating(start):
        again = as_tuple(layer.forward(*bottoms))
    torch.testing.assert_close(list(again), first, rtol=0, atol=0, equal_nan=True)
    assert all(layer._buffers[name] is x for name, x in held.items())
    assert (frozen(layer._buffers), attributes(layer), generators()) == (before, plain, drawn)


def test_a_repeated_run_can_be_differentiated_after_the_state_moved_on():
    case = next(case for case in CASES if case.type == "LSTM" and "expose" not in case.options)
    layer, bottoms = case.build(torch.float32), case.bottoms_as(torch.float32)
    with torch.no_grad():
        layer.forward(*bottoms)
    expected = torch.autograd.grad(_repeated(layer, bottoms), bottoms[0])[0]
    total = _repeated(layer, bottoms)
    with torch.no_grad():
        layer.forward(*bottoms)
    torch.testing.assert_close(torch.autograd.grad(total, bottoms[0])[0], expected)


def _repeated(layer: Layer, bottoms: list[Tensor]) -> Tensor:
    with layer.repeating():
        return as_tuple(layer.forward(*bottoms))[0].square().sum()


# -- what a class says -----------------------------------------------------------------------------------------------


@pytest.fixture
def types(monkeypatch):
    monkeypatch.setattr(base.LAYERS, "items", dict(base.LAYERS.items))


@pytest.mark.parametrize(
    ("effects", "traceable"),
    [
        (Effects.NONE, True),
        (Effects.RANDOM | Effects.BUFFERS, True),
        (Effects.CHECKS, False),
        (Effects.VALUES, False),
        (Effects.CALLS, False),
    ],
)
def test_what_can_be_traced_follows_from_the_effects(types, effects, traceable):
    made = type("Made", (Layer,), {"effects": effects}, options={})
    assert made.traceable is traceable


def test_a_class_can_say_otherwise_and_its_heirs_inherit(types):
    made = type("Made", (Layer,), {"effects": Effects.CALLS, "traceable": True}, options={})
    assert made.traceable
    assert not type("Heir", (base.Loss,), {}, bottoms=2, options={}).traceable


def test_a_class_without_tops_has_effects_by_default(types):
    assert type("Logs", (Layer,), {}, tops=0, options={}).effects is Effects.CALLS
    assert type("Sleeps", (Layer,), {"effects": Effects.NONE}, tops=0, options={}).effects is Effects.NONE


@pytest.mark.parametrize("effects", [Effects.NONE, Effects.RANDOM, Effects.BUFFERS, Effects.CALLS, Effects.CHECKS])
def test_inference_leaves_out_what_has_no_lasting_effect(types, effects):
    made = type("Made", (Layer,), {"effects": effects}, options={})
    layer = made(caffe_pb2.LayerParameter(name="m", type="Made", bottom=["x"], top=["y"]))
    call = Call(layer, layer.forward, ((0, False),), (1,), (), False)
    left = drop_dead([call], frozenset())
    assert bool(left) is bool(effects & (Effects.BUFFERS | Effects.CALLS))


def test_batch_norm_that_learns_is_not_left_out():
    norm = alone("BatchNorm", [(2, 3)], "batch_norm_param { use_global_stats: false }", phase=caffe_pb2.TEST)
    call = Call(norm, norm.forward, ((0, False),), (1,), (), False)
    assert drop_dead([call], frozenset()) == [call]


# -- export ----------------------------------------------------------------------------------------------------------

FILTER = """
layer { name: "in" type: "Input" top: "x" top: "s" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
layer { name: "pick" type: "Filter" bottom: "x" bottom: "s" top: "y" }
"""


def test_a_layer_that_must_be_called_is_not_exported():
    module = caffe.torch.load(text.parse(FILTER, caffe_pb2.NetParameter()))
    given = torch.ones(4, 3), torch.tensor([1.0, 0, 1, 1])
    assert module(*given).shape == (3, 3)
    with pytest.raises(NetError, match=r'layer "pick" \(Filter\).*export'):
        torch.export.export(module, given)
