"""A net on OpenVINO gives the same results as layer by layer, also after changes to the net."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import caffe
from caffe import models
from caffe.errors import CaffeError, MissingExtra
from caffe.layers import Layer, base
from caffe.layers.base import Effects, as_tuple
from caffe.net import Net
from caffe.net.engines import Inference
from caffe.net.engines.pieces import Piece
from caffe.net.plan.rewrite import Call
from caffe.proto import caffe_pb2, text
from tests.conftest import ROOT
from tests.layers.cases import CASES
from tests.net.test_inference import (
    CHAIN,
    IN,
    KEPT,
    NETS,
    by_torch,
    by_torch_on_a,
    check,
    feed,
    layer,
    loaded,
    make,
    outputs,
    relu,
    shared_with_another,
    statistics,
    written,
)

pytest.importorskip("openvino", reason='the extra "openvino" is not installed')
from caffe.net.engines.open_vino import OpenVino
from caffe.net.engines.vino import run as open_vino_run


def optimized(*parts: str, keep: tuple[str, ...] = ()) -> tuple[Net, Net]:
    """Return a net on OpenVINO, and an equal net that runs layer by layer."""
    net, twin = make(*parts), make(*parts)
    net.optimize(keep=keep, engine="openvino")
    return net, twin


def parts_of(net: Net) -> list[str]:
    """Return how the layers were run: "piece" for layers on OpenVINO, the names of the others."""
    engine = net.runner.engine
    assert isinstance(engine, OpenVino)
    for run in engine.runs:
        assert run.runs
        assert all(isinstance(model, open_vino_run._Model) for model in run.runs.values())
    return ["piece" if isinstance(part, Piece) else part.layer.name for part in engine.pieces]


def settings_of(net: Net) -> dict[str, object]:
    """Return the settings of OpenVINO for the last piece."""
    model = list(net.runner.engine.runs[-1].runs.values())[-1]._request.get_compiled_model()
    return {name: model.get_property(name) for name in ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS")}


APART = {"norm of the batch": ["BatchNorm.c"], "padding skipped": ["b"]}
"""Layers that run on torch: one updates statistics, and for the other OpenVINO gives wrong results."""
SOME = {*list(NETS)[::2], *APART}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n not in SOME)) for n in NETS])
def test_open_vino_equals_layer_by_layer(name):
    net, twin = optimized(*NETS[name][0])
    for seed in (2, 3, 4):
        for each in (net, twin):
            feed(each, seed)
        expected, found = outputs(twin), net.forward()
        for blob, array in expected.items():
            near(found[blob], array, blob)
    assert parts_of(net) == ["in", "piece", *APART.get(name, [])]


def near(found: np.ndarray, expected: np.ndarray, name: str = "") -> None:
    noise = 1e-6 * (1 + np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=noise, err_msg=name)


REFUSED = {
    "BNLL": {"wide"},
    "BatchNorm": {"test_batch"},
    "BoxAnnotatorOHEM": {"plain"},
    "Deconvolution": {"nd4"},
    "FlowAugmentation": {"plain"},
    "LSTM": {case.name for case in CASES},
    "Pooling": {"max_kernel_beyond_bottom", "ave_kernel_beyond_bottom"},
    "PyramidROIAlign": {"plain"},
    "RNN": {case.name for case in CASES},
}
"""Cases that run on torch, because OpenVINO does not support them or the layers have a state."""
KINDS = sorted({case.type for case in CASES})
OFTEN = {*KINDS[::16], "Convolution", "Deconvolution", "InnerProduct", "Pooling", "BatchNorm", "Scale", "LRN"}
"""The types that are tested in every run, with one case each. Long runs test all types with all cases."""


@pytest.mark.parametrize(
    ("kind", "count"),
    [(kind, 1) for kind in KINDS if kind in OFTEN]
    + [pytest.param(kind, None, marks=pytest.mark.long) for kind in KINDS],
)
def test_every_layer_type(kind, count):
    refused = []
    cases = [case for case in CASES if case.type == kind and "test" not in case.skip][:count]
    for case in [replace(case, phase=caffe_pb2.TEST) for case in cases]:
        one = case.build(torch.float32).eval()
        bottoms = [x.detach() for x in case.bottoms_as(torch.float32)]
        expected = [x.detach() for x in as_tuple(case.build(torch.float32).eval().forward(*bottoms))]
        if not one.traceable or not expected or one.effects_now & Effects.RANDOM:
            continue
        reads, writes = tuple((i, False) for i in range(len(bottoms))), tuple(range(100, 100 + len(expected)))
        part = Piece([Call(one, one.forward, reads, writes, (), False)], writes)
        piece = open_vino_run.OpenVinoRun(part, torch.float32)
        with torch.no_grad():
            for found, wanted in zip(piece(bottoms, False), expected, strict=True):
                assert found.shape == wanted.shape, case.name
                near(found.numpy(), wanted.numpy(), case.name)
        refused += [case.name] if piece.unfit else []
    assert set(refused) <= REFUSED.get(kind, set()), "OpenVINO should take these"


def deploy(name: str) -> Net:
    """Return a net of the repository with random weights, scaled so that activations do not vanish."""
    builder = getattr(models, name, None)
    net = Net(builder(batch=2, train=False) if builder else ROOT / name, caffe.TEST)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for each in net.layers:
            for tensor in each.tensors:
                fan = tensor[0].numel() if tensor.dim() > 1 else 10
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan) ** 0.5)
            if each.type == "BatchNorm":
                each.variance.fill_(1.3)
                each.factor.fill_(1.5)
    return net


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("squeezenet", marks=pytest.mark.long),
        pytest.param("resnet18", marks=pytest.mark.long),
        "examples/mnist/lenet.prototxt",
        "examples/cifar10/cifar10_quick.prototxt",
        pytest.param("examples/cifar10/cifar10_full.prototxt", marks=pytest.mark.long),
        "benchmarks/nets/mtcnn_onet.prototxt",
        *(pytest.param(f"benchmarks/nets/mtcnn_{stage}net.prototxt", marks=pytest.mark.long) for stage in "pr"),
    ],
)
def test_whole_nets(name):
    net, twin = deploy(name), deploy(name)
    net.blobs["data"].reshape(2, *net.blobs["data"].shape[1:])
    twin.blobs["data"].reshape(*net.blobs["data"].shape)
    data = np.random.default_rng(1).standard_normal(net.blobs["data"].shape)
    net.optimize(engine="openvino")
    expected = {blob: array.copy() for blob, array in twin.forward(data=data).items()}
    for blob, found in net.forward(data=data).items():
        near(found, expected[blob], blob)
    assert parts_of(net)[1:] == ["piece"]


def test_layers_become_the_operators_that_open_vino_is_quick_at():
    lrn = layer("LRN", "p", "n", "lrn_param { local_size: 3 alpha: 0.5 }")
    net, twin = optimized(CHAIN[0], layer("PReLU", "c", "c"), CHAIN[4], lrn)
    check(net, twin)
    model = next(iter(net.runner.engine.runs[0].runs.values()))._request.get_compiled_model().get_runtime_model()
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in model.get_ops()]
    layout = ("Const", "Reorder", "Reshape")
    assert sorted(kind for kind in kinds if kind not in layout) == ["Convolution", "Input", "Lrn", "Output", "Pooling"]


# -- what is wanted ---------------------------------------------------------------------------------------------------


def test_an_input_of_which_only_the_shape_is_used_is_no_input_of_the_model():
    """The priors are in the same piece as the layers around them, although they use only shapes."""
    small = layer("Convolution", "x", "map", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 }")
    prior = "prior_box_param { min_size: 4 variance: 0.1 }"
    for parts in ([small, layer("PriorBox", "map x", "prior", prior)], [layer("PriorBox", "x x", "prior", prior)]):
        net, twin = optimized(*parts)
        check(net, twin)
        assert parts_of(net) == ["in", "piece"]


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_stays_as_it_was_made(name):
    parts, keep = KEPT[name]
    net, twin = optimized(*parts, keep=tuple(keep))
    check(net, twin)
    for blob in keep:
        near(net.blobs[blob].data, twin.blobs[blob].data)


def test_other_blobs_are_an_error_and_stepwise_returns():
    net, twin = optimized(*CHAIN, keep=("p",))
    check(net, twin)
    near(net.blobs["p"].data, twin.blobs["p"].data)
    with pytest.raises(CaffeError, match=r'blob "c".*keep=\["c"\]'):
        _ = net.blobs["c"].data
    near(net.forward(blobs=["c"])["c"], twin.blobs["c"].data)
    net.stepwise()
    net.forward()
    assert not net.runners.mode.optimized
    assert all(blob.data.size for blob in net.blobs.values())


def test_arrays_that_are_held_show_the_new_values():
    net, twin = make(*CHAIN), make(*CHAIN)
    net.forward()
    early, inner = net.blobs["ip"].data, net.blobs["c"].data[1]
    net.optimize(engine="openvino")
    late = net.forward()["ip"]
    for seed in (5, 6):
        for each in (net, twin):
            feed(each, seed)
        check(net, twin)
        for array in (early, late):
            near(array, twin.blobs["ip"].data)
        near(inner, twin.blobs["c"].data[1])
    assert isinstance(net.runner.engine, OpenVino)
    net.optimize()  # without OpenVINO: arrays that the user holds stay valid
    feed(net, 7)
    feed(twin, 7)
    check(net, twin)
    near(late, twin.blobs["ip"].data)


def test_parts_and_callbacks_run_layer_by_layer():
    net, twin = optimized(*CHAIN)
    net.forward()
    seen: list[int] = []
    net.after_forward(seen.append)
    check(net, twin)
    assert seen == list(range(len(net.layers)))
    net.callbacks["after_forward"].clear()
    net.forward(end="Pooling.p")
    near(net.blobs["p"].data, twin.blobs["p"].data)


def test_losses_and_scores_run_between():
    score = 'layer { name: "labels" type: "Input" top: "t" input_param { shape { dim: 5 } } }'
    parts = [*CHAIN, score, layer("SoftmaxWithLoss", "ip t", "loss"), layer("Accuracy", "ip t", "top1")]
    net, twin = optimized(*parts)
    assert net.evaluate() == pytest.approx(twin.forward_loss(), rel=1e-5)
    check(net, twin)
    assert parts_of(net) == ["in", "piece", "labels", "SoftmaxWithLoss.loss", "Accuracy.top1"]


# -- shapes, threads, precision ---------------------------------------------------------------------------------------


def test_shapes_may_change_and_some_are_remembered():
    net, twin = optimized(*CHAIN[:-2], layer("LRN", "p", "n"))
    for shape in ((2, 4, 11, 8), (7, 4, 9, 7), (0, 4, 9, 7), *((1, 4, 5, width) for width in range(5, 13))):
        for each in (net, twin):
            each.blobs["x"].reshape(*shape)
            feed(each, 3)
        check(net, twin)
        assert [blob.shape for blob in net.blobs.values()] == [blob.shape for blob in twin.blobs.values()]
    (piece,) = net.runner.engine.runs
    known = dict(piece.runs)
    assert [shape[3] for _, shape in known] == list(range(5, 13)), "the eight that were used last"
    net.blobs["x"].reshape(1, 4, 5, 5)
    net.forward()
    assert piece.runs == known
    assert [shape[3] for _, shape in piece.runs] == [*range(6, 13), 5]


def test_a_bottom_of_a_wrong_size_is_the_layers_error():
    net, _ = optimized(*CHAIN)
    net.blobs["x"].reshape(5, 4, 12, 12)
    with pytest.raises(CaffeError, match=r'layer "ip".*weights are for'):
        net.forward()
    net.blobs["x"].reshape(5, 4, 9, 7)
    net.forward()


def test_data_in_another_memory_format_are_copied():
    net, twin = optimized(*CHAIN)
    for each in (net, twin):
        each.blobs["x"].tensor = torch.randn(5, 9, 7, 4, generator=torch.Generator().manual_seed(2)).permute(0, 3, 1, 2)
    check(net, twin)
    for each in (net, twin):
        each.blobs["x"].tensor.mul_(2)
    check(net, twin)


def test_data_that_is_turned_in_place_is_copied():
    net, twin = optimized(*CHAIN[:-2])
    for each in (net, twin):
        each.blobs["x"].reshape(5, 4, 7, 7)
        feed(each, 3)
    check(net, twin)
    for each in (net, twin):
        each.blobs["x"].tensor = each.blobs["x"].tensor.transpose(2, 3)
    check(net, twin)


def test_tops_of_a_wrong_shape_are_noticed(monkeypatch):
    monkeypatch.setattr("caffe.net.engines.vino.graph._steps_over_padding", lambda slide: False)
    net, twin = optimized(*NETS["padding skipped"][0])
    check(net, twin)
    assert parts_of(net) == ["in", "a", "b"]


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_the_number_of_threads_is_that_of_torch(threads):
    net, _ = optimized(*CHAIN)
    for count in (1, 2):
        torch.set_num_threads(count)
        net.forward()
        assert settings_of(net)["INFERENCE_NUM_THREADS"] == count


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_nets_precision_is_open_vinos(precision):
    parts = text.parse("\n".join([IN, *CHAIN]), caffe_pb2.NetParameter())
    net = Net(parts, caffe.TEST, precision=precision)
    net.optimize(engine="openvino")
    feed(net, 3)
    net.forward(blobs=["c"])
    wanted = {torch.float32: "f32", torch.bfloat16: "bf16"}[precision]
    assert settings_of(net)["INFERENCE_PRECISION_HINT"].get_type_name() == wanted
    assert net.blobs["ip"].data.dtype == np.float32


# -- weights that change ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [written, statistics, by_torch, loaded, shared_with_another])
def test_a_change_of_the_weights_is_taken_up(change, tmp_path):
    net, twin = optimized(*CHAIN)
    before = outputs(twin)["ip"]
    for each in (net, twin):
        each.forward()
        change(each, tmp_path) if change is loaded else change(each)
    assert np.abs(outputs(twin)["ip"] - before).max() > 1e-2
    for _ in range(3):
        check(net, twin)
    assert parts_of(net) == ["in", "piece"]


def test_a_change_where_layers_run_on_torch_is_taken_up(own):
    net, twin = optimized(*CHAIN[:5], layer("Counts", "p", "q"))
    for change in (by_torch_on_a, lambda each: None, written):
        for each in (net, twin):
            each.forward()
            change(each)
    check(net, twin)
    assert parts_of(net) == ["in", "piece", "Counts.q"]


def test_weights_that_may_change_at_any_time_leave_open_vino(caplog):
    net, twin = optimized(*CHAIN)
    views = [each.params["a"][0].data for each in (net, twin)]
    with caplog.at_level("WARNING", "caffe"):
        for value in (1.0, 2.0, 3.0, 4.0):
            for view in views:
                view[...] = value
            check(net, twin)
    assert isinstance(net.runner.engine, Inference)
    assert "runs without OpenVINO" in caplog.text


def test_unchanged_weights_are_converted_once(monkeypatch):
    net, _ = optimized(*CHAIN)
    net.forward()
    monkeypatch.setattr(open_vino_run, "convert", None)
    net.forward()
    net.evaluate()
    assert parts_of(net) == ["in", "piece"]


@pytest.mark.parametrize("where", ["data", "weights"])
def test_a_nan_reaches_the_output(where):
    net, twin = optimized(*CHAIN)
    net.forward()
    for each in (net, twin):
        if where == "data":
            each.blobs["x"].data[0, 0, 0, 0] = np.nan
        else:
            each.params["BatchNorm.c"][0].data[0] = np.nan
    assert np.isnan(outputs(twin)["ip"]).any()
    check(net, twin)


# -- layers of one's own ----------------------------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[list[int]]:
    """Define layer types that OpenVINO cannot run, each for a different reason; return the list to which one of them
    appends.
    """
    seen: list[int] = []

    class LooksAtValues(Layer, options={}):
        def forward(self, x):
            return x if x.is_meta or x.sum() > 0 else -x

    class Remembers(Layer, options={}):
        def setup(self, x):
            self.last = torch.zeros(())

        def forward(self, x):
            y = x + self.last
            if not x.is_meta:
                self.last = x.mean()
            return y

    class Counts(Layer, options={}):
        def setup(self, x):
            self.add_blob("count", (1,), trained=False)

        def forward(self, x):
            self.count.add_(1)
            return x * self.count

    class Writes(Layer, options={}, tops=0):
        def forward(self, x):
            if base.has_values(x):
                seen.append(len(x))

    yield seen
    for kind in ("LooksAtValues", "Remembers", "Counts", "Writes"):
        base.LAYERS.items.pop(kind)


@pytest.mark.parametrize("kind", ["LooksAtValues", "Remembers", "Counts"])
def test_layers_that_open_vino_cannot_take_run_on_torch(kind, own, caplog):
    net, twin = optimized(*CHAIN[:5], layer(kind, "p", "q"), relu("q", "r"))
    with caplog.at_level("WARNING", "caffe"):
        for seed in range(5):
            for each in (net, twin):
                feed(each, seed)
            near(net.forward()["r"], twin.forward()["r"])
    assert parts_of(net) == ["in", "piece", f"{kind}.q", "piece"]
    assert caplog.text.count(f'OpenVINO cannot run the layers "{kind}.q" ({kind})') == 1


def test_a_layer_without_tops_is_run(own):
    net, _ = optimized(*CHAIN, layer("Writes", "p", ""))
    del own[:]
    net.forward()
    net.forward()
    assert own == [5, 5]


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_unknown_engines_and_contradictions_are_errors():
    net = make(*CHAIN)
    with pytest.raises(CaffeError, match=r'unknown engine "openvin".*did you mean "openvino"'):
        net.optimize(engine="openvin")
    with pytest.raises(CaffeError, match="cannot be combined with compile"):
        net.optimize(engine="openvino", compile=True)
    with pytest.raises(CaffeError, match="runs on the CPU, and the net is on cuda:0"):
        OpenVino.for_inference(torch.device("cuda", 0), torch.float32, False)


def test_without_the_package_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cafetiere\[openvino\]'"):
        make(*CHAIN).optimize(engine="openvino")


def test_random_numbers_come_from_torch():
    net, twin = optimized(
        'layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { sample_weights_test: true } }'
    )
    for seed in (1, 2):
        for each in (net, twin):
            feed(each, seed)
        torch.manual_seed(seed)
        expected = outputs(twin)
        torch.manual_seed(seed)
        near(net.forward()["y"], expected["y"])
    assert "d" in parts_of(net)
