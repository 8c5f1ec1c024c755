"""Rewrites change how a net computes its results, but not the results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.net.plan.rewrite import REWRITES, Call, Rewrite
from caffe.net.plan.rewrite.batch_norm import scale_with_batch_norm
from caffe.net.plan.rewrite.dead import free_early
from caffe.net.plan.rewrite.inplace import relu_in_place, sum_in_place
from caffe.net.plan.rewrite.pooling import pool_before_relu
from caffe.net.plan.rewrite.recompute import clip_again, normalize_again
from caffe.net.plan.rewrite.siblings import sibling_convolutions
from caffe.proto import caffe_pb2, text

INPUTS = 'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 5 dim: 3 dim: 7 dim: 6 } '
INPUTS += "shape { dim: 5 } } }"
TAIL = """
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "loss" }
"""
CONV = """layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }"""
NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "c" top: "c" }'
SCALE = """layer { name: "scale" type: "Scale" bottom: "c" top: "c"
  scale_param { bias_term: true filler { value: 1.5 } bias_filler { value: 0.25 } } }"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }'
CLIP = 'layer { name: "clip" type: "Clip" bottom: "c" top: "c" clip_param { min: 0 max: 0.75 } }'
RELU6 = 'layer { name: "clip" type: "ReLU6" bottom: "c" top: "c" }'
OTHER_READER = """layer { name: "side" type: "Power" bottom: "c" top: "side" loss_weight: 0.1
  power_param { power: 2 } }"""


def sibling(name: str, outputs: int, options: str = "", relu: bool = True, bottom: str = "c") -> str:
    conv = f'''layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {outputs} kernel_size: 1 weight_filler {{ type: "xavier" }} {options} }} }}'''
    return conv + (f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}' if relu else "")


JOIN = """layer { name: "join" type: "Concat" bottom: "s1" bottom: "s2" bottom: "s3" top: "join" }
layer { name: "joined" type: "Reduction" bottom: "join" top: "joined" loss_weight: 0.3
  reduction_param { operation: SUMSQ } }"""
S1, S2, S3 = sibling("s1", 2), sibling("s2", 3), sibling("s3", 5)


def make(*parts: str, phase: int = caffe.TRAIN, precision: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(1)
    end = [] if any('"loss"' in part for part in parts) else [TAIL]
    net = Net(text.parse("\n".join([INPUTS, *parts, *end]), caffe_pb2.NetParameter()), phase, precision=precision)
    rng = np.random.default_rng(2)
    net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    net.blobs["t"].data[...] = rng.integers(0, 4, 5)
    return net


def count(net: Net) -> int:
    return len(net.module.plan.calls)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST], ids=["train", "test"])
@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ((CONV, NORM, SCALE, RELU), 1),
        ((CONV, NORM, SCALE.replace("bias_term: true", "")), 1),
        ((CONV, NORM, SCALE.replace("bias_term", "axis: 2 num_axes: 1 bias_term")), 0),
        ((CONV, NORM, SCALE.replace('top: "c"', 'top: "d"'), RELU.replace('"c"', '"d"')), 0),
        ((CONV, NORM, OTHER_READER, SCALE.replace('top: "c"', 'top: "d"')), 0),
        ((CONV, RELU), 0),
        ((CONV, OTHER_READER, RELU.replace('top: "c"', 'top: "d"')), 0),
        ((CONV, RELU, S1, S2, S3, JOIN), 5),
        ((CONV, RELU, S1, S2, sibling("s3", 5, relu=False), JOIN), 3),
        ((CONV, RELU, S1, S2, sibling("s3", 4, "group: 2"), JOIN), 3),
        ((CONV, RELU, S1, S2, sibling("s3", 5, "bias_term: false"), JOIN), 3),
        ((CONV, RELU, S1, sibling("s2", 3, bottom="s1"), S3.replace('"c"', '"s2"'), JOIN), 0),
        ((CONV, RELU, S1, S2.replace('"s2" }', '"s2" relu_param { negative_slope: 0.1 } }'), S3, JOIN), 3),
        ((CONV, sibling("s1", 2, relu=False), S2, S3, OTHER_READER.replace('"c"', '"s1"'), JOIN), 3),
        ((CONV.replace("num_output", "bias_term: false num_output"), NORM, S1, S2, S3, JOIN), 5),
    ],
)
def test_one_piece_equals_layer_by_layer(parts, merged, phase):
    one, other = make(*parts, phase=phase), make(*parts, phase=phase)
    assert len(one.steps) - sum(layer.type == "Split" for layer in one.layers) - count(one) == merged
    for _ in range(2):  # twice, to check running statistics and the memory of values
        one.clear_param_diffs()
        other.clear_param_diffs()
        loss = one.forward_backward()
        assert loss == pytest.approx(other.forward_loss(), rel=1e-5)
        other.backward()
    for name, blob in one.blobs.items():
        np.testing.assert_allclose(blob.data, other.blobs[name].data, rtol=1e-4, atol=1e-5, err_msg=name)
    for entry, expected in zip(one.learnable, other.learnable, strict=True):
        np.testing.assert_allclose(entry.tensor.detach(), expected.tensor.detach(), rtol=1e-5, err_msg=entry.layer)
        assert (entry.tensor.grad is None) == (expected.tensor.grad is None)
        if expected.tensor.grad is not None:
            scale = float(expected.tensor.grad.abs().max())
            np.testing.assert_allclose(entry.tensor.grad, expected.tensor.grad, atol=1e-4 * scale + 1e-6)


def test_every_rewrite_is_tested():
    assert set(REWRITES) == {
        scale_with_batch_norm,
        sibling_convolutions,
        pool_before_relu,
        normalize_again,
        clip_again,
        sum_in_place,
        relu_in_place,
        free_early,
    }


SHORTCUT = """layer { name: "short" type: "Convolution" bottom: "x" top: "short"
  convolution_param { num_output: 8 kernel_size: 3 bias_term: false weight_filler { type: "xavier" } } }"""
SUM = """layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "short" top: "sum" }
layer { name: "sum_relu" type: "ReLU" bottom: "sum" top: "sum" }"""
END = TAIL.replace('bottom: "c"', 'bottom: "sum"')


@pytest.mark.parametrize(
    ("parts", "over"),
    [
        ((CONV, NORM, SCALE, SHORTCUT, SUM, END), True),
        ((CONV, RELU, SHORTCUT, SUM, END), True),  # the output of ReLU is needed, the output of the shortcut is not
        ((CONV, RELU, SHORTCUT, SUM, OTHER_READER.replace('"c"', '"short"'), END), False),
        ((CONV, SHORTCUT, SUM.replace('Eltwise" ', 'Eltwise" eltwise_param { coeff: 1 coeff: 2 } '), END), False),
        ((CONV, SHORTCUT, SUM.replace('Eltwise" ', 'Eltwise" eltwise_param { operation: PROD } '), END), False),
        ((CONV, SUM.replace('"short"', '"c"'), END), False),
    ],
)
def test_a_slim_step_has_the_same_gradients(parts, over):
    slim, plain = make(*parts), make(*parts)
    slim.slim()
    assert any("_add_to" in getattr(call.run, "__name__", "") for call in slim.module.plan.calls) == over
    for _ in range(2):
        for net in (slim, plain):
            net.clear_param_diffs()
        assert slim.forward_backward() == pytest.approx(plain.forward_backward(), rel=1e-6)
    for entry, expected in zip(slim.learnable, plain.learnable, strict=True):
        if expected.tensor.grad is not None:
            scale = float(expected.tensor.grad.abs().max())
            np.testing.assert_allclose(entry.tensor.grad, expected.tensor.grad, atol=1e-5 * scale + 1e-6)
    assert slim.blobs["loss"].data == pytest.approx(plain.blobs["loss"].data, rel=1e-6)
    with pytest.raises(CaffeError, match=r'net.slim\(keep=\["sum"\]\)'):
        print(slim.blobs["sum"].data)
    slim.slim(keep=["sum"])
    slim.forward_backward()
    plain.forward_backward()
    np.testing.assert_allclose(slim.blobs["sum"].data, plain.blobs["sum"].data, rtol=1e-4, atol=1e-5)
    slim.stepwise()
    slim.forward_backward()
    assert slim.blobs["c"].data.any()


def test_values_are_let_go_after_their_last_reader():
    net = make(CONV, NORM, SCALE, RELU)
    assert not any(call.frees for call in net.module.plan.calls if call.layer.name == "ip")
    net.slim()
    freed = {call.layer.name: len(call.frees) for call in net.module.plan.calls}
    assert freed["ip"] == 1, "the top of the ReLU"
    assert freed["loss"] == 1, "the top of ip; the labels are data"


def test_relu_in_place_leaves_a_value_that_others_read():
    net = make(CONV, OTHER_READER, RELU.replace('top: "c"', 'top: "d"'))
    net.forward_backward()
    assert (net.blobs["c"].data < 0).any()
    assert (net.blobs["d"].data >= 0).all()


NEXT = CONV.replace("conv", "next", 1).replace('"x"', '"c"').replace('top: "c"', 'top: "n"')
NEXT_END = TAIL.replace('bottom: "c"', 'bottom: "n"')
POOL = """layer { name: "pool" type: "Pooling" bottom: "c" top: "p"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }"""
POOL_END = TAIL.replace('bottom: "c"', 'bottom: "p"')
SIDE = OTHER_READER.replace("power: 2", "scale: 2")


def slim(*parts: str, without: Rewrite | None = None, keep: tuple[str, ...] = (), **options: Any) -> Net:
    net = make(*parts, **options)
    net.slim(keep)
    with replaced(REWRITES, [change for change in REWRITES if change is not without]):
        assert net.module is not None
    return net


@contextlib.contextmanager
def replaced(changes: list[Rewrite], others: list[Rewrite]) -> Iterator[None]:
    kept, changes[:] = list(changes), others
    yield
    changes[:] = kept


def assert_same_training(net: Net, other: Net) -> None:
    """Assert that the loss, the gradients and the running statistics of two steps are equal bit by bit."""
    for _ in range(2):
        assert net.forward_backward() == other.forward_backward()
        for mine, theirs in zip(net.learnable, other.learnable, strict=True):
            assert (mine.tensor.grad is None) == (theirs.tensor.grad is None)
            assert mine.tensor.grad is None or torch.equal(mine.tensor.grad, theirs.tensor.grad), mine.layer
        for layer, same in zip(net.layers, other.layers, strict=True):
            assert all(map(torch.equal, layer.tensors, same.tensors)), layer.name


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("parts", "fewer"),
    [
        ((CONV, NORM, SCALE, RELU, NEXT), 2),
        ((CONV, NORM, RELU, NEXT), 2),
        ((CONV, NORM, SCALE, NEXT), 1),
        ((CONV, NORM, SCALE, RELU, NEXT.replace("kernel_size", "bias_term: false group: 2 stride: 2 kernel_size")), 2),
        ((NORM.replace('bottom: "c"', 'bottom: "x"'), RELU, NEXT), 0),  # nothing to learn below the convolution
        ((CONV, NORM, SCALE, RELU, NEXT.replace("kernel_size: 3", "kernel_w: 1 kernel_h: 6 stride: 2")), 2),
        ((CONV, NORM.replace("}", "batch_norm_param { use_global_stats: true } }"), RELU, NEXT), 2),
        ((CONV, NORM, SCALE, RELU.replace("}", "relu_param { negative_slope: 0.1 } }"), NEXT), 0),
        ((CONV, NORM, SCALE, RELU, SIDE, NEXT), 0),
        ((CONV, RELU, NEXT), 0),
        ((CONV, NORM, POOL, NEXT.replace('"c"', '"p"').replace("kernel_size: 3", "kernel_size: 1")), 0),
    ],
)
def test_a_convolution_normalizes_again_what_it_read(parts, fewer, precision):
    net, other = (
        slim(*parts, NEXT_END, precision=precision),
        slim(*parts, NEXT_END, without=normalize_again, precision=precision),
    )
    assert count(other) - count(net) == fewer
    assert_same_training(net, other)
    assert net.module.evaluate() == other.module.evaluate()


def test_what_a_convolution_can_make_again_is_not_kept():
    parts = CONV, NORM, SCALE, RELU, NEXT, NEXT_END
    net, other = slim(*parts), slim(*parts, without=normalize_again)
    value, statistics = 5 * 8 * 5 * 4 * 4, 4 * 8 * 4
    assert kept_for_backward(other) - kept_for_backward(net) == value + statistics
    assert count(slim(*parts, keep=("c",))) == count(other), "somebody wants the value"


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("parts", "fewer"),
    [
        ((CONV, CLIP, NEXT), 1),
        ((CONV, NORM, SCALE, RELU, CLIP, NEXT), 2),
        ((CONV, RELU, CLIP.replace("min: 0", "min: -1"), NEXT), 2),
        ((CONV, NORM, CLIP.replace("min: 0", "min: -0.5"), NEXT), 1),
        ((CONV, CLIP.replace("max: 0.75", "max: inf"), NEXT), 1),
        ((CONV, NORM, RELU6, NEXT.replace("kernel_size", "bias_term: false group: 2 stride: 2 kernel_size")), 1),
        ((CONV, RELU, RELU6, NEXT), 0),
        ((CONV, RELU, CLIP.replace("min: 0", "min: 0.1"), NEXT), 0),
        ((CONV, CLIP.replace("min: 0", "min: 1"), NEXT), 0),
        ((CONV, CLIP, SIDE, NEXT), 0),
        ((CONV, RELU.replace("}", "relu_param { negative_slope: 0.1 } }"), CLIP, NEXT), 1),
    ],
)
def test_a_convolution_clips_again_what_it_read(parts, fewer, precision):
    net = slim(*parts, NEXT_END, precision=precision)
    other = slim(*parts, NEXT_END, without=clip_again, precision=precision)
    assert count(other) - count(net) == fewer
    assert_same_training(net, other)
    assert net.module.evaluate() == other.module.evaluate()


@pytest.mark.parametrize("parts", [(CLIP,), (RELU, CLIP), (CLIP.replace("min: 0", "min: -0.5"),)])
def test_values_at_the_limits_of_a_clip_have_the_same_gradients(parts):
    scale = 'layer { name: "scale" type: "Scale" bottom: "x" top: "c" scale_param { bias_term: true } }'
    net, other = slim(scale, *parts, NEXT, NEXT_END), slim(scale, *parts, NEXT, NEXT_END, without=clip_again)
    assert count(net) < count(other)
    for each in (net, other):
        each.params["scale"][0].data[...], each.params["scale"][1].data[...] = 1, 0
        each.blobs["x"].data[...] = np.random.default_rng(0).choice([-0.5, -0.0, 0, 0.75, 1], each.blobs["x"].shape)
        each.forward_backward()
    for mine, theirs in zip(net.learnable, other.learnable, strict=True):  # summed in another order
        torch.testing.assert_close(mine.tensor.grad, theirs.tensor.grad, rtol=1e-5, atol=1e-6)


def test_what_a_convolution_can_clip_again_is_not_kept():
    parts = CONV, NORM, SCALE, RELU, CLIP, NEXT, NEXT_END
    net, other = slim(*parts), slim(*parts, without=clip_again)
    assert kept_for_backward(other) - kept_for_backward(net) == 5 * 8 * 5 * 4 * 4
    assert count(slim(*parts, keep=("c",))) == count(other), "somebody wants the value"


@pytest.mark.parametrize(
    ("parts", "swapped"),
    [
        ((CONV, RELU, POOL), True),
        ((CONV, RELU, POOL.replace("pooling_param {", "pooling_param { pad: 1")), True),
        ((CONV, RELU, POOL.replace("MAX", "AVE")), False),
        ((CONV, RELU, POOL.replace('top: "p"', 'top: "p" top: "mask"')), False),
        ((CONV, RELU.replace("}", "relu_param { negative_slope: 0.1 } }"), POOL), False),
        ((CONV, RELU, SIDE, POOL), False),
    ],
)
def test_the_largest_is_taken_before_relu(parts, swapped):
    net, other = slim(*parts, POOL_END), slim(*parts, POOL_END, without=pool_before_relu)
    order = [call.layer.type for call in net.module.plan.calls if call.layer.type in ("Pooling", "ReLU")]
    assert (order == ["Pooling", "ReLU"]) == swapped
    kept = slim(*parts, POOL_END, keep=("c",)).module.plan.calls
    assert [call.layer.type for call in kept if call.layer.type in ("Pooling", "ReLU")] == ["ReLU", "Pooling"]
    for each in (net, other):
        each.blobs["x"].data[...] = each.blobs["x"].data.round()  # ties, of which the first cell gets the gradient
        each.params["conv"][0].data[...] = each.params["conv"][0].data.round(1)
    assert_same_training(net, other)


@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)])
def test_a_swapped_pair_needs_gradients_if_one_of_the_two_did(needs):
    net = slim(CONV, RELU, POOL, POOL_END)
    steps = [net.layer_dict[name] for name in ("relu", "pool")]
    calls = [
        Call(layer, layer.forward, ((place, False),), (place + 1,), (), flag)
        for place, (layer, flag) in enumerate(zip(steps, needs, strict=True))
    ]
    pool, relu = pool_before_relu(calls, frozenset())
    assert (pool.layer.type, relu.layer.type) == ("Pooling", "ReLU")
    assert pool.backward == relu.backward == any(needs)


def test_a_pooled_bottom_is_not_kept():
    net = slim(CONV, POOL, POOL_END)
    bottom, places = 5 * 8 * 5 * 4 * 4, 5 * 8 * 2 * 2 * 8
    sizes = saved(net).values()
    assert places in sizes
    assert bottom not in sizes


def saved(net: Net) -> dict[int, int]:
    """Return the bytes of each storage that autograd keeps between forward and backward, without the weights."""
    found: dict[int, int] = {}
    held = []  # so that no address is used twice

    def pack(x: torch.Tensor) -> torch.Tensor:
        held.append(x)
        found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        net.module()
    weights = {x.untyped_storage().data_ptr() for x in net.module.parameters()}
    return {place: size for place, size in found.items() if place not in weights}


def kept_for_backward(net: Net) -> int:
    return sum(saved(net).values())


def solver_of(*parts: str) -> caffe.SGDSolver:
    param = text.parse(
        'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 1 snapshot_after_train: false',
        caffe_pb2.SolverParameter(),
    )
    param.net_param.CopyFrom(text.parse("\n".join([INPUTS, *parts, TAIL]), caffe_pb2.NetParameter()))
    solver = caffe.get_solver(param)
    rng = np.random.default_rng(2)
    solver.net.blobs["x"].data[...] = rng.standard_normal(solver.net.blobs["x"].shape)
    return solver


def test_a_look_at_the_weights_gives_c_order_and_changes_no_number():
    looked, left = solver_of(CONV, RELU), solver_of(CONV, RELU)
    for _ in range(3):
        looked.step(1)
        left.step(1)
        view = looked.net.params["conv"][0].data
        assert view.flags.c_contiguous
        assert looked.net.params["conv"][0].diff.flags.c_contiguous
    for mine, expected in zip(looked.net.learnable, left.net.learnable, strict=True):
        np.testing.assert_allclose(mine.tensor.detach(), expected.tensor.detach(), rtol=1e-5, atol=1e-7)
    view.ravel()[:] = 0
    looked.net.forward()
    assert not looked.net.params["conv"][0].data.any()
    before = looked.net.params["conv"][0].data
    looked.step(1)
    assert before.any(), "a view that is still held shows the weights after the step"


def test_a_diff_that_is_held_shows_the_next_one():
    net = make(CONV, RELU)
    net.forward_backward()
    view = net.params["conv"][0].diff
    first = view.copy()
    net.clear_param_diffs()
    assert not view.any()
    net.forward_backward()
    np.testing.assert_allclose(view, first, rtol=1e-5, atol=1e-7)
