"""Behaviours of Caffe's shape, elementwise and reduction layers, with one test for each."""

from __future__ import annotations

import logging

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from caffe.errors import CaffeError, LayerError
from caffe.net import Net
from caffe.proto import caffe_pb2, text
from tests.layers.alone import alone


def test_argmax_gives_the_higher_index_first_in_a_tie():
    x = torch.tensor([[1.0, 3, 3, 2], [5, 5, 5, 5]])
    assert alone("ArgMax", (x.shape,))(x).flatten().tolist() == [2, 3]
    top = alone("ArgMax", (x.shape,), "argmax_param { top_k: 3 axis: 1 }")(x)
    assert top.tolist() == [[2, 1, 3], [3, 2, 1]]


def test_argmax_gives_indices_then_values_without_an_axis():
    x = torch.tensor([[4.0, 9, 2]]).reshape(1, 3, 1, 1)
    top = alone("ArgMax", (x.shape,), "argmax_param { top_k: 2 out_max_val: true }")(x)
    assert top.shape == (1, 2, 2, 1)
    assert top.flatten().tolist() == [1, 0, 9, 4]
    assert alone("ArgMax", (x.shape,), "argmax_param { axis: 1 out_max_val: true }")(x).flatten().tolist() == [9]


def test_eltwise_sum_multiplies_each_bottom_by_its_coefficient():
    layer = alone("Eltwise", ((2,), (2,), (2,)), "eltwise_param { coeff: 2 coeff: -3 coeff: 0.5 }")
    assert layer(torch.tensor([1.0, 2]), torch.tensor([5.0, 7]), torch.tensor([4.0, 6])).tolist() == [-11, -14]


def test_eltwise_max_of_two_passes_a_tie_to_the_second():
    a, b, c = (torch.zeros(1, requires_grad=True) for _ in range(3))
    alone("Eltwise", ((1,),) * 2, "eltwise_param { operation: MAX }")(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (0, 1)
    alone("Eltwise", ((1,),) * 3, "eltwise_param { operation: MAX }")(a, b, c).backward()
    assert (a.grad.item(), b.grad.item(), c.grad.item()) == (0, 2, 0)


def test_eltwise_unstable_product_gradient_is_no_number_at_zero():
    for stable, expected in (("true", 3.0), ("false", None)):
        a, b = torch.zeros(1, requires_grad=True), torch.full((1,), 3.0, requires_grad=True)
        layer = alone("Eltwise", ((1,), (1,)), f"eltwise_param {{ operation: PROD stable_prod_grad: {stable} }}")
        layer(a, b).backward()
        assert a.grad.item() == expected if expected else a.grad.isnan().all()


def test_eltwise_max_does_not_use_coeff_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("caffe"), "propagate", True)
    with caplog.at_level(logging.WARNING, "caffe"):
        layer = alone("Eltwise", ((1,), (1,)), "eltwise_param { operation: MAX coeff: 2 coeff: 2 }")
    assert 'layer "one" (Eltwise): operation MAX does not use coeff' in caplog.text
    assert layer(torch.ones(1), torch.zeros(1)) == 1


def test_reshape_axis_minus_one_means_after_the_last_axis():
    x = torch.zeros(2, 3)
    assert alone("Reshape", ((2, 3),), "reshape_param { shape { dim: 1 } axis: -1 }")(x).shape == (2, 3, 1)


def test_reshape_follows_another_bottom_shape():
    layer = alone("Reshape", ((2, 3, 5),), "reshape_param { shape { dim: 0 dim: -1 } }")
    assert layer(torch.zeros(7, 2, 3)).shape == (7, 6)


def test_slice_in_equal_parts_follows_another_bottom_shape():
    layer = alone("Slice", ((2, 6),), tops=3)
    assert [top.shape for top in layer(torch.zeros(5, 9))] == [(5, 3)] * 3
    with pytest.raises(LayerError, match="size 7 into 3 equal tops"):
        layer(torch.zeros(2, 7))


def test_filter_keeps_the_selected_items_and_their_gradients():
    x, selector = torch.arange(10.0).reshape(5, 2).requires_grad_(), torch.tensor([0.0, 1, 0, -2, 0])
    layer = alone("Filter", ((5, 2), (5,)))
    (top,) = layer(x, selector)
    assert top.tolist() == [[2, 3], [6, 7]]
    top.sum().backward()
    assert x.grad[:, 0].tolist() == [0, 1, 0, 1, 0]
    assert layer(x, torch.zeros(5))[0].shape == (0, 2)


def test_filter_without_values_keeps_all_items():
    layer = alone("Filter", ((5, 2), (5, 3), (5, 1, 1, 1)), tops=2)
    shapes = (5, 2), (5, 3), (5, 1, 1, 1)
    assert [top.shape for top in layer.infer(*(torch.empty(s, device="meta") for s in shapes))] == [(5, 2), (5, 3)]
    with FakeTensorMode():
        tops = layer(*(torch.empty(s, device="cuda") for s in shapes))
        assert [(top.shape, top.device.type) for top in tops] == [((5, 2), "cuda"), ((5, 3), "cuda")]


def test_filter_within_torch_compile_keeps_the_selected_items_only():
    layer = alone("Filter", ((5, 2), (5,)))
    traced = torch.compile(lambda x, selector: layer(x * 2, selector)[0] + 1, backend="eager")
    for selector in ([0.0, 1, 0, -2, 0], [1.0, 0, 0, 0, 0]):
        x = torch.arange(10.0).reshape(5, 2)
        torch.testing.assert_close(traced(x, torch.tensor(selector)), x[torch.tensor(selector) != 0] * 2 + 1)


@pytest.mark.parametrize("kind", ["Filter", "BatchReindex", "Accuracy", "ArgMax", "InfogainLoss"])
def test_force_backward_is_rejected(kind):
    bottoms = {"ArgMax": 1, "InfogainLoss": 3}.get(kind, 2)
    shapes = [(3, 3), (3,), (3, 3)][:bottoms]
    parts = ["force_backward: true"]
    for index, shape in enumerate(shapes):
        dims = " ".join(f"dim: {size}" for size in shape)
        parts.append(f'layer {{ name: "i{index}" type: "Input" top: "b{index}" input_param {{ shape {{ {dims} }} }} }}')
    names = " ".join(f'bottom: "b{index}"' for index in range(bottoms))
    parts.append(f'layer {{ name: "one" type: "{kind}" {names} top: "t" }}')
    net = Net(text.parse("\n".join(parts), caffe_pb2.NetParameter()), caffe_pb2.TRAIN)
    net.forward()
    with pytest.raises(LayerError, match=rf'layer "one" \({kind}\): has no gradient for bottom'):
        net.backward()


def test_batch_reindex_adds_the_gradients_of_repeated_items():
    x = torch.zeros(3, 2, requires_grad=True)
    alone("BatchReindex", ((3, 2), (4,)))(x, torch.tensor([2.0, 0, 2, 2])).sum().backward()
    assert x.grad[:, 0].tolist() == [1, 0, 3]


def test_crop_reference_gets_no_gradient():
    x, reference = torch.zeros(2, 5, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    layer = alone("Crop", ((2, 5), (2, 3)), "crop_param { axis: 1 offset: 1 }")
    layer(x, reference).sum().backward()
    assert x.grad[0].tolist() == [0, 1, 1, 1, 0]
    assert reference.grad is None
    assert layer.exempt == (1,)
    assert layer.constant == ()  # a gradient for the reference bottom is no error; it is zero


def test_silence_gives_its_bottoms_the_gradient_zero():
    text_ = """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "s" type: "Silence" bottom: "x" }"""
    net = Net(text.parse(text_, caffe_pb2.NetParameter()), caffe_pb2.TRAIN)
    net.blobs["x"].diff[...] = 7
    assert net.forward() == {}
    net.backward()
    assert (net.blobs["x"].diff == 0).all()


def test_split_adds_the_gradients_of_its_tops():
    x = torch.ones(3, requires_grad=True)
    one, two = alone("Split", ((3,),), tops=2)(x)
    grad = torch.autograd.grad([one, two], [x], [torch.full((3,), 2.0), torch.full((3,), 5.0)])[0]
    assert grad.tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", [(), ()]),
        ("input_param { shape { dim: 2 dim: 3 } }", [(2, 3), (2, 3)]),
        ("input_param { shape { dim: 2 } shape { dim: 5 dim: 7 } }", [(2,), (5, 7)]),
    ],
)
def test_input_takes_no_shape_one_or_one_each(options, expected):
    layer = alone("Input", (), options, tops=2)
    assert [top.shape for top in layer.infer()] == expected
    assert layer() is None


def test_parameter_is_a_learnable_top():
    layer = alone("Parameter", (), "parameter_param { shape { dim: 2 dim: 3 } }")
    with torch.no_grad():
        layer.value.fill_(5)
    (layer() * 2).sum().backward()
    assert layer.tensors[0].grad.tolist() == [[2, 2, 2]] * 2


@pytest.mark.parametrize(
    ("kind", "shapes", "tops", "options", "message"),
    [
        ("Concat", ((2, 3, 5), (2, 3, 7)), 1, "", "expected equal sizes on all axes but 1"),
        ("Concat", ((2, 3), (2, 3, 7)), 1, "", "expected equal sizes"),
        ("Concat", ((2, 3), (2, 3)), 1, "concat_param { axis: 1 concat_dim: 1 }", "both axis and concat_dim"),
        ("Concat", ((2, 3), (2, 3)), 1, "concat_param { concat_dim: 2 }", "concat_dim 2 out of range"),
        ("Slice", ((2, 3),), 2, "", "size 3 into 2 equal tops"),
        ("Slice", ((2, 3),), 5, "", "into 5 tops"),
        ("Slice", ((2, 7),), 3, "slice_param { slice_point: 4 slice_point: 2 }", "must rise"),
        ("Slice", ((2, 7),), 2, "slice_param { slice_point: 8 }", "must rise"),
        ("Slice", ((2, 7),), 2, "slice_param { slice_point: 0 }", "must rise"),
        ("Slice", ((2, 3),), 2, "slice_param { slice_point: 1 slice_point: 2 }", "one slice_point less than tops"),
        ("Slice", ((2, 4),), 2, "slice_param { axis: 1 slice_dim: 1 }", "both axis and slice_dim"),
        ("Flatten", ((2, 3, 5, 7),), 1, "flatten_param { axis: 3 end_axis: 1 }", "comes after end_axis"),
        ("Flatten", ((2, 3),), 1, "flatten_param { end_axis: 2 }", "end_axis 2 out of range"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: -1 dim: -1 } }", "several -1"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: -2 dim: -3 } }", "negative size"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 4 dim: -1 } }", "cannot be divided"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 2 dim: 2 } }", "another number of elements"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 0 dim: 0 dim: 0 } }", "no axis 2 to copy"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 3 } axis: 1 num_axes: 2 }", "out of range"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 3 } axis: -4 }", "out of range"),
        ("Reshape", ((2, 3),), 1, "reshape_param { shape { dim: 3 } num_axes: -2 }", "num_axes"),
        (
            "Crop",
            ((2, 3, 5, 7), (2, 3, 6, 7)),
            1,
            "crop_param { offset: 1 }",
            "axis 2 of size 5 to size 6 from offset 1",
        ),
        ("Crop", ((2, 3, 5, 7), (2, 3, 5, 7)), 1, "crop_param { axis: 1 offset: 0 offset: 0 }", "has 2 offset"),
        ("Crop", ((2, 3, 5, 7), (2, 3)), 1, "", "2 axes, expected at least 4"),
        ("Permute", ((2, 3),), 1, "permute_param { order: [1, 1] }", "names an axis twice"),
        ("Permute", ((2, 3),), 1, "permute_param { order: 2 }", "axis 2 out of range"),
        ("Tile", ((2, 3),), 1, "", "tiles is 0"),
        ("Tile", ((2, 3),), 1, "tile_param { axis: 2 tiles: 2 }", "axis 2 out of range"),
        ("Filter", ((5, 2), (3,)), 1, "", "has 5 items, the selector 3"),
        ("Filter", ((5, 2), (5, 2)), 1, "", "the selector has shape"),
        ("Filter", ((5, 2), (5, 2), (5,)), 1, "", "has 1 tops; expected 2"),
        ("BatchReindex", ((5, 2), (5, 2)), 1, "", "expected one axis"),
        ("Reduction", ((2, 3),), 1, "reduction_param { axis: 2 }", "axis 2 out of range"),
        ("ArgMax", ((2, 3),), 1, "argmax_param { top_k: 4 }", "top_k 4 exceeds the 3 elements"),
        ("ArgMax", ((2, 3),), 1, "argmax_param { axis: 0 top_k: 3 }", "top_k 3 exceeds the 2 elements"),
        ("ArgMax", ((2, 3),), 1, "argmax_param { top_k: 0 }", "top_k must be 1 or more"),
        ("Eltwise", ((2, 3), (3, 2)), 1, "", "expected equal shapes"),
        ("Eltwise", ((2, 3), (2, 3)), 1, "eltwise_param { coeff: 1 }", "has 1 coeff and 2 bottoms"),
        ("Eltwise", ((2,), (2,)), 1, "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", "not with PROD"),
        ("Input", (), 3, "input_param { shape { dim: 1 } shape { dim: 2 } }", "3 tops and 2 shapes"),
        ("Input", (), 1, "input_param { shape { dim: 2 dim: -3 } }", "negative size"),
        ("Parameter", (), 1, "parameter_param { shape { dim: -3 } }", "negative size"),
    ],
)
def test_options_that_do_not_fit_are_errors(kind, shapes, tops, options, message):
    with pytest.raises(CaffeError, match=message):
        alone(kind, shapes, options, tops)


@pytest.mark.parametrize("index", [-1.0, 3.0])
def test_batch_reindex_names_an_index_out_of_range(index):
    layer = alone("BatchReindex", ((3, 2), (2,)))
    with pytest.raises(LayerError, match=rf"holds the index {index:.0f}, expected 0 to 2"):
        layer(torch.zeros(3, 2), torch.tensor([0.0, index]))
