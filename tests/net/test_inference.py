"""A net that is optimized for inference gives the same results as layer by layer, also after changes to the net."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

import caffe
from caffe import torch_internals
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.net.engines import Eager
from caffe.net.measure.trace import trace
from caffe.net.plan.rewrite import INFERENCE, product
from caffe.net.plan.rewrite.product import FusedProduct
from caffe.net.run.module import NetModule
from caffe.parameter_memory import Weights, WeightWatch
from caffe.proto import caffe_pb2, text

IN = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 4 dim: 9 dim: 7 } } }'


def conv(
    name: str, bottom: str, top: str, outputs: int = 6, more: str = "kernel_size: 3 pad: 1", kind: str = ""
) -> str:
    return f"""layer {{ name: "{name}" type: "{kind or "Convolution"}" bottom: "{bottom}" top: "{top}"
      convolution_param {{ num_output: {outputs} {more} weight_filler {{ type: "xavier" }}
      bias_filler {{ type: "gaussian" std: 1 }} }} }}"""


def dense(name: str, bottom: str, top: str, more: str = "") -> str:
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}"
      inner_product_param {{ num_output: 8 {more} weight_filler {{ type: "xavier" }}
      bias_filler {{ type: "gaussian" std: 1 }} }} }}"""


def layer(kind: str, bottoms: str, top: str, more: str = "") -> str:
    reads = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    writes = f'top: "{top}"' if top else ""
    return f'layer {{ name: "{kind}.{top}" type: "{kind}" {reads} {writes} {more} }}'


def norm(blob: str, top: str = "", more: str = "") -> str:
    return layer("BatchNorm", blob, top or blob, more)


def scale(blob: str, bias: str = "true") -> str:
    return layer("Scale", blob, blob, f"scale_param {{ bias_term: {bias} }}")


def relu(blob: str, top: str = "", more: str = "") -> str:
    return layer("ReLU", blob, top or blob, more)


POOL = layer("Pooling", "c", "p", "pooling_param { kernel_size: 3 stride: 2 }")
CHAIN = [conv("a", "x", "c"), norm("c"), scale("c"), relu("c"), POOL, dense("ip", "p", "ip"), relu("ip")]


def make(*parts: str, dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(1)
    net = Net(text.parse("\n".join([IN, *parts]), caffe_pb2.NetParameter()), caffe.TEST)
    for each in net.layers:
        if each.type == "BatchNorm":
            each.mean.normal_()
            each.variance.uniform_(0.5, 2)
            each.factor.fill_(1.7)
        elif each.type == "Scale":
            torch.nn.init.normal_(each.weight)
            each.opt.bias_term and torch.nn.init.normal_(each.bias)
    feed(net, 2)
    return net


def feed(net: Net, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)


def outputs(net: Net) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in net.forward().items()}


def check(net: Net, twin: Net) -> None:
    """Assert that the outputs of `net`, which is optimized, equal those of `twin`, which runs layer by layer."""
    for name, expected in outputs(twin).items():
        noise = 1e-6 * (1 + np.nan_to_num(np.abs(expected)).max(initial=0))
        np.testing.assert_allclose(net.forward()[name], expected, rtol=1e-4, atol=noise, err_msg=name)


class Unrewritten(Eager):
    rewrites = ()


def runs(net: Net) -> int:
    return len(net.runner.plan.calls)


CHAIN_BEHIND = [layer("Dropout", "g", "h"), relu("h", "i"), layer("Silence", "h", "")]
ADD = layer("Eltwise", "c d", "s")
SKIP = "kernel_size: 1 stride: 2"
STAGE = [  # a residual block, and the first convolutions of the next stage, which have stride 2
    *(conv("a", "x", "c"), conv("e", "c", "e"), relu("e"), conv("b", "e", "d", more="kernel_size: 1"), ADD, relu("s")),
    *(conv("f", "s", "f", more=SKIP), conv("g", "s", "g", more=SKIP), layer("Eltwise", "f g", "h")),
]
LEAKY = "relu_param { negative_slope: 0.2 }"
NETS = {
    "cells that are skipped": (STAGE, 6),
    "cells that are skipped on one axis": (
        [
            conv("a", "x", "c", more="kernel_size: 3 stride: 2"),
            conv("b", "c", "d", more="kernel_size: 1 stride_h: 2 stride_w: 1"),
        ],
        3,
    ),
    "cells that one reader skips": ([conv("a", "x", "c"), conv("b", "c", "d", more=SKIP), conv("e", "c", "e")], 4),
    "cells skipped in two ways": (
        [conv("a", "x", "c"), conv("b", "c", "d", more=SKIP), conv("e", "c", "e", more="kernel_size: 1 stride: 3")],
        4,
    ),
    "padding skipped": ([conv("a", "x", "c"), conv("b", "c", "d", more=SKIP + " pad: 1")], 3),
    "a sum of what is skipped": (
        [
            conv("a", "x", "c"),
            conv("b", "x", "d", more=SKIP),
            conv("e", "c", "f", more=SKIP),
            layer("Eltwise", "d f", "s"),
        ],
        4,
    ),
    "chain": (CHAIN, 4),
    "norm without scale": ([conv("a", "x", "c"), norm("c"), relu("c")], 2),
    "scale without bias": ([conv("a", "x", "c"), norm("c"), scale("c", "false")], 2),
    "no bias": ([conv("a", "x", "c", more="kernel_size: 3 bias_term: false"), norm("c"), scale("c")], 2),
    "groups": ([conv("a", "x", "c", 6, "kernel_size: 3 group: 2 stride: 2"), norm("c"), scale("c"), relu("c")], 2),
    "dilation, leaky": (
        [conv("a", "x", "c", more="kernel_size: 3 dilation: 2"), relu("c", more=LEAKY)],
        2,
    ),
    "larger kernel": ([conv("a", "x", "c", more="kernel_h: 10 kernel_w: 3 stride: 2"), norm("c"), relu("c")], 2),
    "deconvolution": (
        [conv("a", "x", "c", 6, "kernel_size: 3 group: 2 stride: 2", "Deconvolution"), norm("c"), scale("c")],
        2,
    ),
    "dense": ([dense("ip", "x", "c"), norm("c"), scale("c"), relu("c")], 2),
    "dense, transposed": ([dense("ip", "x", "c", "transpose: true"), norm("c"), relu("c")], 2),
    "dense of an axis": ([dense("ip", "x", "c", "axis: 2"), norm("c"), relu("c")], 4),
    "dense of channels last": ([conv("a", "x", "c"), dense("ip", "c", "ip")], 3),
    "norm with other readers": ([conv("a", "x", "c"), norm("c", "d"), ADD], 4),
    "relu with other readers": ([conv("a", "x", "c"), relu("c", "d"), ADD], 4),
    "norm of the batch": ([conv("a", "x", "c"), norm("c", more="batch_norm_param { use_global_stats: false }")], 3),
    "norm alone": ([norm("x", "n"), scale("n"), relu("n")], 3),
    "sum": ([conv("a", "x", "c"), conv("b", "x", "d"), ADD, relu("s")], 3),
    "sum, leaky": ([conv("a", "x", "c"), conv("b", "x", "d"), ADD, relu("s", more=LEAKY)], 3),
    "sum of the bottom, leaky": ([conv("d", "x", "d", 4), layer("Eltwise", "d x", "s"), relu("s", more=LEAKY)], 2),
    "sum of a sum": (
        [
            *(conv("a", "x", "c"), conv("b", "x", "d"), ADD, relu("s")),
            *(conv("e", "s", "e"), norm("e"), relu("e"), conv("f", "e", "f"), norm("f"), layer("Eltwise", "s f", "g")),
            relu("g"),
        ],
        5,
    ),
    "sum of three": (
        [conv("a", "x", "c"), conv("b", "x", "d"), ADD, layer("TanH", "s", "t"), layer("Eltwise", "s t", "u")],
        5,
    ),
    "sum of dense": ([dense("a", "x", "c"), dense("b", "x", "d"), ADD, relu("s")], 3),
    "sum of what the kernel reads": ([conv("a", "x", "c"), conv("b", "c", "d"), ADD, relu("s")], 3),
    "sum of the bottom": ([conv("d", "x", "d", 4), layer("Eltwise", "d x", "s"), relu("s")], 2),
    "sum behind relu": ([conv("a", "x", "c"), relu("c"), conv("b", "x", "d"), relu("d"), ADD], 4),
    "sum of itself": ([conv("a", "x", "c"), layer("Eltwise", "c c", "s")], 3),
    "difference": ([conv("a", "x", "c"), conv("b", "x", "d"), ADD[:-1] + "eltwise_param { coeff: 1 coeff: -1 } }"], 4),
    "product": ([conv("a", "x", "c"), conv("b", "x", "d"), ADD[:-1] + "eltwise_param { operation: PROD } }"], 4),
    "sum over a view": (
        [conv("a", "x", "c"), layer("Flatten", "c", "flat"), conv("b", "x", "d"), ADD, dense("ip", "flat", "ip")],
        5,
    ),
    "sum before a reader": (
        [conv("a", "x", "c"), conv("b", "x", "d"), conv("e", "x", "e"), ADD, layer("Eltwise", "c e", "t")],
        4,
    ),
    "dropout": ([conv("a", "x", "c"), layer("Dropout", "c", "c"), relu("c"), layer("Dropout", "c", "e")], 3),
    "dead": ([conv("a", "x", "c"), conv("b", "x", "d"), layer("Softmax", "d", "q"), layer("Silence", "q", "")], 2),
    "two readers": ([conv("a", "x", "c"), relu("c"), conv("b", "c", "d"), layer("TanH", "c", "t"), ADD], 4),
    "shared weights": (
        [
            conv("a", "x", "c")[:-1] + 'param { name: "w" } }',
            conv("b", "x", "d")[:-1] + 'param { name: "w" } }',
            ADD,
        ],
        3,
    ),
    "several bottoms": (
        [
            conv("d", "x", "d", 4),
            'layer { name: "a" type: "Convolution" bottom: "x" bottom: "d" top: "c" top: "e" '
            "convolution_param { num_output: 6 kernel_size: 3 } }",
            norm("c"),
        ],
        4,
    ),
}


@pytest.fixture(autouse=True)
def as_if_large(monkeypatch):
    """Let small nets use the kernels that are meant for large nets."""
    monkeypatch.setattr(product, "_FEW_PRODUCTS", 0)
    monkeypatch.setattr(product, "_FEW_WEIGHTS", 0)


@pytest.mark.parametrize("small", [False, True], ids=["large", "small"])
@pytest.mark.parametrize("name", NETS)
def test_optimised_equals_layer_by_layer(name, small, monkeypatch):
    if small:
        monkeypatch.undo()
    parts, count = NETS[name]
    net, twin = make(*parts), make(*parts)
    net.optimize()
    check(net, twin)
    assert runs(net) == count
    for seed in (3, 4):  # other data, the same constants
        feed(net, seed)
        feed(twin, seed)
        check(net, twin)


@pytest.mark.parametrize("name", ["chain", "dense", "dense, transposed", "dense of channels last"])
def test_one_image_gives_the_same(name):
    net, twin = make(*NETS[name][0]), make(*NETS[name][0])
    for each in (net, twin):
        each.blobs["x"].reshape(1, 4, 9, 7)
        each.reshape()
        feed(each, 2)
    net.optimize()
    check(net, twin)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_one_image_takes_the_weights_as_they_lie(monkeypatch):
    reorder, times = torch_internals.reorder_linear_weight, []
    monkeypatch.setattr(
        torch_internals, "reorder_linear_weight", lambda weight, rows: times.append(rows) or reorder(weight, rows)
    )
    net = make(dense("ip", "x", "ip"))
    net.optimize()
    for count in (1, 5, 1):
        net.blobs["x"].reshape(count, 4, 9, 7)
        net.forward()
    assert times == [5]


@pytest.mark.parametrize("name", ["chain", "sum of a sum", "dense", "deconvolution"])
def test_without_one_dnn_torch_computes_the_same(name, monkeypatch):
    monkeypatch.setattr("caffe.net.plan.rewrite.product.one_dnn", lambda x, weight: False)
    net, twin = make(*NETS[name][0]), make(*NETS[name][0])
    net.optimize()
    check(net, twin)
    assert runs(net) == NETS[name][1]


def test_a_factor_of_zero_is_folded_as_it_is_computed():
    net, twin = make(conv("a", "x", "c"), norm("c")), make(conv("a", "x", "c"), norm("c"))
    for each in (net, twin):
        each.layer_dict["BatchNorm.c"].factor.zero_()
    net.optimize()
    check(net, twin)


def test_every_rewrite_for_inference_does_something():
    skipping = [conv("j", "x", "j"), conv("k", "j", "k", more=SKIP)]
    behind = [*CHAIN_BEHIND, *skipping, relu("x", "y"), norm("y", "z"), scale("z"), relu("z")]
    given = make(*NETS["sum of a sum"][0], *behind)
    plan = NetModule(given.steps, "net", Unrewritten()).plan
    calls, wanted = plan.calls, frozenset(plan.place[name] for name in given.outputs)
    for change in INFERENCE:
        after = change(calls, wanted)
        told = [(call.run, call.reads, call.writes) for call in calls]
        assert [(call.run, call.reads, call.writes) for call in after] != told, change.__name__
        calls = after


def test_what_is_kept_is_there_and_the_rest_is_an_error():
    net, twin = make(*CHAIN), make(*CHAIN)
    net.optimize(keep=["p"])
    check(net, twin)
    np.testing.assert_allclose(net.blobs["p"].data, twin.blobs["p"].data, rtol=1e-4, atol=1e-5)
    with pytest.raises(CaffeError, match=r'blob "c".*keep=\["c"\]'):
        _ = net.blobs["c"].data
    with pytest.raises(CaffeError, match='blob "c"'):
        net.forward(start="Pooling.p")
    assert net.forward(blobs=["c"])["c"].shape == (5, 6, 9, 7)
    np.testing.assert_allclose(net.blobs["c"].data, twin.blobs["c"].data, rtol=1e-4, atol=1e-5)
    net.stepwise()
    net.forward()
    assert all(blob.data.size for blob in net.blobs.values())


def test_a_kept_blob_that_is_read_again_is_not_overwritten():
    parts = NETS["sum of a sum"][0]
    net, twin = make(*parts), make(*parts)
    net.optimize(keep=["c", "d", "s", "e", "f"])
    check(net, twin)
    for name in "cdsef":
        np.testing.assert_allclose(net.blobs[name].data, twin.blobs[name].data, rtol=1e-4, atol=1e-5, err_msg=name)


def test_cells_that_are_skipped_are_not_computed():
    net = make(*STAGE)
    net.optimize()
    net.forward()
    products = {call.layer.name: call.run for call in net.runner.plan.calls if isinstance(call.run, FusedProduct)}
    strides = {name: product.slide.stride for name, product in products.items()}
    assert strides == {"a": (1, 1), "e": (2, 2), "b": (1, 1), "f": (1, 1), "g": (1, 1)}
    assert {name: product.every for name, product in products.items() if product.every} == {"b": (2, 2)}
    net.optimize(keep=["s"])
    net.forward()
    assert net.blobs["s"].shape == (5, 6, 9, 7)


KEPT = {
    "cells that a reader skips": (STAGE, ["s", "e"]),
    "the bottom of a ReLU": ([conv("a", "x", "c"), relu("c", "d")], ["c"]),
    "what a sum adds": ([conv("a", "x", "c"), conv("b", "x", "d"), ADD], ["c"]),
    "what a sum adds a view of": (
        [
            conv("a", "x", "e"),
            layer("Concat", "e", "c"),
            conv("b", "x", "d"),
            ADD,
        ],
        ["e"],
    ),
    "a view of what a sum adds": (
        [
            conv("a", "x", "c"),
            layer("Concat", "c", "f"),
            conv("b", "x", "d"),
            ADD,
        ],
        ["f"],
    ),
    "the bottom of a Dropout": ([conv("a", "x", "c"), layer("Dropout", "c", "d"), relu("d", "e")], ["d"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_stays_as_it_was_made(name):
    parts, keep = KEPT[name]
    net, twin = make(*parts), make(*parts)
    net.optimize(keep=keep)
    check(net, twin)
    for blob in keep:
        np.testing.assert_allclose(net.blobs[blob].data, twin.blobs[blob].data, rtol=1e-4, atol=1e-5)


def test_an_array_that_is_held_shows_the_new_values():
    net, twin = make(*CHAIN), make(*CHAIN)
    net.forward()
    inner, out = net.blobs["c"].data[1], net.blobs["ip"].data
    net.optimize()
    feed(net, 5)
    feed(twin, 5)
    check(net, twin)
    np.testing.assert_allclose(out, twin.blobs["ip"].data, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(inner, twin.blobs["c"].data[1], rtol=1e-4, atol=1e-5)


def test_a_reshaped_input_reshapes_all_blobs():
    net, twin = make(*CHAIN[:-2]), make(*CHAIN[:-2])
    net.optimize()
    net.forward()
    for shape in ((2, 4, 11, 8), (7, 4, 9, 7), (0, 4, 9, 7)):
        for each in (net, twin):
            each.blobs["x"].reshape(*shape)
            feed(each, 3)
        check(net, twin)
        assert {name: blob.shape for name, blob in net.blobs.items()} == {
            name: blob.shape for name, blob in twin.blobs.items()
        }


def test_a_bottom_of_a_wrong_size_is_the_layers_error():
    net = make(*CHAIN)
    net.optimize()
    net.blobs["x"].reshape(5, 4, 12, 12)
    with pytest.raises(CaffeError, match=r'layer "ip".*weights are for'):
        net.forward()
    net.blobs["x"].reshape(5, 4, 9, 7)
    net.forward()


def test_callbacks_and_parts_run_layer_by_layer():
    net, twin = make(*CHAIN), make(*CHAIN)
    net.optimize()
    net.forward()
    seen: list[int] = []
    net.after_forward(seen.append)
    check(net, twin)
    assert seen == list(range(len(net.layers)))
    np.testing.assert_allclose(net.blobs["c"].data, twin.blobs["c"].data, rtol=1e-5, atol=1e-6)
    net.callbacks["after_forward"].clear()
    net.forward()
    net.forward(start="a", end="Pooling.p")
    np.testing.assert_allclose(net.blobs["p"].data, twin.blobs["p"].data, rtol=1e-5, atol=1e-6)


def test_backward_after_it_is_an_error_with_the_way_out():
    text_of = "\n".join([IN, *CHAIN, "force_backward: true"])
    net = Net(text.parse(text_of, caffe_pb2.NetParameter()), caffe.TEST)
    net.optimize()
    net.forward()
    with pytest.raises(CaffeError, match="stepwise"):
        net.backward()
    net.stepwise()
    net.forward()
    net.backward()


def test_a_net_in_train_and_an_unknown_blob_are_refused():
    with pytest.raises(CaffeError, match="TEST"):
        Net(text.parse(IN, caffe_pb2.NetParameter()), caffe.TRAIN).optimize()
    with pytest.raises(CaffeError, match='no blob "ipp"; did you mean "ip"'):
        make(*CHAIN).optimize(keep=["ipp"])


# -- weights that change ----------------------------------------------------------------------------------------------


def written(net: Net) -> None:
    net.params["a"][0].data[...] *= -2


def written_in_part(net: Net) -> None:
    net.params["a"][1].data[2] = 7


def statistics(net: Net) -> None:
    net.params["BatchNorm.c"][1].data[...] = 3


def factor(net: Net) -> None:
    net.params["BatchNorm.c"][2].data[0] = 0.5


def scales(net: Net) -> None:
    net.params["Scale.c"][0].data[...] += 1


def by_torch(net: Net) -> None:
    with torch.no_grad():
        net.layer_dict["ip"].weight.mul_(2)


def replaced(net: Net) -> None:
    net.layer_dict["ip"].weight.data = net.layer_dict["ip"].weight.data * 2


def loaded(net: Net, tmp_path) -> None:
    other = make(*CHAIN)
    with torch.no_grad():
        other.layer_dict["a"].weight.mul_(-1)
    other.save(tmp_path / "other.caffemodel")
    net.copy_from(tmp_path / "other.caffemodel")


def shared_with_another(net: Net) -> None:
    other = make(*CHAIN)
    with torch.no_grad():
        other.layer_dict["a"].weight.mul_(-1)
    net.share_with(other)
    other.params["ip"][1].data[...] = 1


@pytest.mark.parametrize(
    "change",
    [written, written_in_part, statistics, factor, scales, by_torch, replaced, loaded, shared_with_another],
    ids=lambda change: change.__name__,
)
def test_a_change_of_the_weights_is_taken_up(change, tmp_path):
    net, twin = make(*CHAIN), make(*CHAIN)
    before = outputs(twin)["ip"]
    net.optimize()
    for each in (net, twin):
        each.forward()
        change(each, tmp_path) if change is loaded else change(each)
    assert np.abs(outputs(twin)["ip"] - before).max() > 1e-2
    check(net, twin)


def test_weights_written_at_any_time_through_a_held_array_are_taken_up():
    net, twin = make(*CHAIN), make(*CHAIN)
    net.optimize()
    views = [each.params["a"][0].data[1:] for each in (net, twin)]
    for value in (1.0, 2.0, 3.0):
        for view in views:
            view[...] = value
        check(net, twin)


def test_unchanged_weights_are_folded_once(monkeypatch):
    net = make(*CHAIN)
    net.optimize()
    net.forward()
    folded = []
    monkeypatch.setattr(FusedProduct, "folded", lambda product: folded.append(product))
    net.forward()
    net.evaluate()
    assert not folded


def test_a_solvers_update_is_visible_through_shared_weights():
    param = text.parse('base_lr: 0.5 lr_policy: "fixed" ema_decay: 0.5', caffe_pb2.SolverParameter())
    loss = layer("EuclideanLoss", "ip ip2", "loss")
    net_text = "\n".join([IN, *CHAIN[:-1], dense("ip2", "p", "ip2"), loss])
    param.net_param.CopyFrom(text.parse(net_text, caffe_pb2.NetParameter()))
    solver = caffe.get_solver(param)
    net, twin = (Net(text.parse(net_text, caffe_pb2.NetParameter()), caffe.TEST) for _ in range(2))
    net.optimize()
    for each in (solver.net, net, twin):
        feed(each, 3)
    for each in (net, twin):
        each.share_with(solver.net)
    check(net, twin)
    before = outputs(twin)["loss"]
    solver.step(1)
    assert outputs(twin)["loss"] != before
    check(net, twin)
    solver.step(1)
    check(net, twin)
    with solver.average.applied():
        check(net, twin)


def test_a_watch_notices_writes_to_both_blobs_of_a_parameter_shared_in_another_shape():
    one = dense("a", "x", "c")[:-1] + 'param { name: "w" share_mode: PERMISSIVE } }'
    two = dense("b", "x", "d", "transpose: true")[:-1] + 'param { name: "w" share_mode: PERMISSIVE } }'
    net, twin = make(one, two, ADD), make(one, two, ADD)
    net.optimize()
    for change in (written, by_torch_on_a, written_b):
        for each in (net, twin):
            change(each)
        check(net, twin)


def by_torch_on_a(net: Net) -> None:
    with torch.no_grad():
        net.layer_dict["a"].weight.add_(1)


def written_b(net: Net) -> None:
    net.params["b"][0].data[0, 0] += 5


def test_parameters_that_are_watched_can_be_saved():
    net = make(*CHAIN)
    net.optimize()
    view = net.params["a"][0].data
    net.forward()
    torch.save(net.layer_dict["a"].weight, io.BytesIO())
    assert view.size


def test_a_watch_is_quiet_until_something_changes():
    parameter = torch.nn.Parameter(torch.zeros(3))
    watch = WeightWatch([Weights(lambda: parameter)])
    assert [watch.changed(), watch.changed()] == [True, False]
    with torch.no_grad():
        parameter.add_(1)
    assert [watch.changed(), watch.changed()] == [True, False]


# -- what Caffe's ReLU does to NaN ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["data", "weights"])
def test_a_nan_reaches_the_output(where):
    net, twin = make(*CHAIN), make(*CHAIN)
    net.optimize()
    net.forward()
    for each in (net, twin):
        if where == "data":
            each.blobs["x"].data[0, 0, 0, 0] = np.nan
        else:
            each.params["a"][0].data[0] = np.nan
    assert np.isnan(outputs(twin)["ip"]).any()
    check(net, twin)
    feed(net, 2)
    net.params["a"][0].data[0] = 1
    assert np.isfinite(net.forward()["ip"]).all()


# -- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_in_test_computes_what_the_outputs_and_losses_need():
    parts = [*CHAIN, layer("Reduction", "p", "r", "loss_weight: 2"), layer("Silence", "r", "")]
    net, twin = make(*parts), make(*parts)
    assert net.evaluate() == pytest.approx(twin.forward_loss(), rel=1e-5)
    np.testing.assert_allclose(net.blobs["ip"].data, twin.blobs["ip"].data, rtol=1e-4, atol=1e-5)
    with pytest.raises(CaffeError, match=r"net\.optimize"):
        _ = net.blobs["c"].data
    net.forward()
    assert net.blobs["c"].data.any()


def test_a_trace_names_the_layers(tmp_path):
    net = make(*CHAIN)
    trace(net.runner, net.evaluate, tmp_path / "trace.json", steps=1)
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"a", "Pooling.p", "ip"} <= names
    net.evaluate()
