"""InnerProduct, Embed, Bias and Scale: default fillers, and arrays of the wrong shape."""

import numpy as np
import pytest
import torch

from caffe import torch_internals
from caffe.errors import LayerError
from caffe.layers import Layer, layer_class
from caffe.layers.support import products
from caffe.proto import caffe_pb2, text
from tests.layers.build import apply, assert_rejected, build


def fresh(options: str, *shapes: tuple[int, ...]) -> Layer:
    """Return a layer with the initial values of its fillers."""
    spec = text.parse(options, caffe_pb2.LayerParameter())
    layer = layer_class(spec.type)(spec)
    layer.setup(*(torch.empty(shape, device="meta") for shape in shapes))
    layer.allocate()
    return layer


def test_scale_starts_as_one_and_everything_else_as_zero():
    names = 'name: "l" bottom: "x" top: "y"'
    layer = fresh(f'type: "Scale" {names} scale_param {{ bias_term: true }}', (2, 3))
    assert [blob.tolist() for blob in layer.tensors] == [[1, 1, 1], [0, 0, 0]]
    layer = fresh(f'type: "Scale" {names} scale_param {{ filler {{ }} }}', (2, 3))
    assert layer.weight.tolist() == [0, 0, 0]
    layer = fresh(f'type: "Bias" {names} bias_param {{ filler {{ value: 2 }} }}', (2, 3))
    assert layer.bias.tolist() == [2, 2, 2]
    layer = fresh(f'type: "InnerProduct" {names} inner_product_param {{ num_output: 2 }}', (2, 3))
    assert not any(blob.any() for blob in layer.tensors)


@pytest.mark.parametrize(
    ("options", "array"),
    [
        ("bias_term: true", (1, 3, 1, 1)),
        ("axis: 0 num_axes: 2 bias_term: true", (2, 3, 1, 1)),
        ("axis: -2 num_axes: -1 bias_term: true", (1, 1, 5, 7)),
        ("axis: 3 num_axes: 0 bias_term: true", (1, 1, 1, 1)),
    ],
)
def test_scale_and_bias_lie_on_the_bottom_from_their_axis_on(options, array):
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 7))
    layer = build("Scale", f"scale_param {{ {options} }}", x.shape)
    s, b = (blob.detach().numpy().reshape(array) for blob in layer.tensors)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach(), x * s + b)
    shift = build("Bias", f"bias_param {{ {options.replace('bias_term: true', '')} }}", x.shape)
    np.testing.assert_allclose(shift(torch.from_numpy(x)).detach(), x + shift.bias.detach().numpy().reshape(array))


@pytest.mark.parametrize("type_name", ["Scale", "Bias"])
def test_a_single_number_lies_on_a_bottom_of_any_axes(type_name):
    y = apply(type_name, "", [1.0, 2, 3], 5.0)
    assert y.tolist() == ([5, 10, 15] if type_name == "Scale" else [6, 7, 8])


def test_inner_product_and_embed_are_products_with_their_weights():
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    for options, columns in (("", "ok"), ("transpose: true", "ko")):
        layer = build("InnerProduct", f"inner_product_param {{ num_output: 4 {options} }}", (2, 3, 5))
        expected = torch.einsum(f"nk,{columns}->no", x.reshape(2, 15), layer.weight) + layer.bias
        torch.testing.assert_close(layer(x), expected)
    table = build("Embed", "embed_param { num_output: 3 input_dim: 4 }", (2, 2))
    index = torch.tensor([[3.0, 0], [1, 3]], dtype=torch.float64)
    torch.testing.assert_close(table(index)[0, 0], table.weight[3] + table.bias)
    assert table(index).shape == (2, 2, 3)


def test_scale_by_a_bottom_holds_only_its_bias():
    layer = build("Scale", "scale_param { axis: 0 bias_term: true }", (2, 3, 5), (2, 3))
    assert [tuple(blob.shape) for blob in layer.tensors] == [(2, 3)]


def test_embed_names_an_index_that_is_out_of_range():
    layer = build("Embed", "embed_param { num_output: 3 input_dim: 4 }", (2,))
    with pytest.raises(LayerError, match=r"indices reach from -1 to 2, expected 0 to input_dim - 1 = 3"):
        layer(torch.tensor([-1.0, 2], dtype=torch.float64))
    with pytest.raises(LayerError, match=r"indices reach from 1 to 4"):
        layer(torch.tensor([1.0, 4], dtype=torch.float64))


def test_inner_product_keeps_the_size_it_was_set_up_for():
    layer = build("InnerProduct", "inner_product_param { num_output: 4 }", (2, 3, 5))
    assert layer(torch.zeros(7, 5, 3, dtype=torch.float64)).shape == (7, 4)
    with pytest.raises(LayerError, match=r"18 inputs from axis 1 on, and the weights are for 15"):
        layer(torch.zeros(2, 3, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("type_name", "options", "says"),
    [
        ("InnerProduct", "inner_product_param { num_output: 3 axis: 4 }", "axis 4 out of range"),
        ("InnerProduct", "inner_product_param { axis: 1 }", "num_output must be given"),
        ("InnerProduct", 'inner_product_param { num_output: 3 bias_filler { type: "m" } }', "unknown filler type"),
        ("Embed", "embed_param { num_output: 3 }", "input_dim, the number of different indices, must be given"),
        ("Embed", "embed_param { input_dim: 3 }", "num_output must be given"),
        ("Bias", "bias_param { num_axes: -2 }", "num_axes -2 must be 0 or more, or -1"),
        ("Scale", "scale_param { axis: 2 num_axes: 3 }", "3 axes from axis 2 on reach beyond"),
        ("Scale", "scale_param { axis: -5 }", "axis -5 out of range"),
    ],
)
def test_bad_options_are_rejected(type_name, options, says):
    assert_rejected(type_name, options, (2, 3, 5, 7), says=says)


@pytest.mark.parametrize("type_name", ["Scale", "Bias"])
def test_an_operand_that_does_not_lie_on_the_bottom_is_rejected(type_name):
    options = f"{type_name.lower()}_param {{ axis: 1 }}"
    assert_rejected(type_name, options, (2, 3, 5, 7), (3, 6), says="an array of shape 3 6 (18) cannot be broadcast to")
    assert_rejected(type_name, options, (2, 3, 5), (3, 5, 2), says="cannot be broadcast to")


def test_onednn_gets_operands_whose_rows_are_adjacent(monkeypatch):
    """oneDNN is a hundred times slower if the rows of a matrix are parts of the rows of a larger array."""
    given = []

    def run(x, weight, bias, *rest):
        given.extend([x, weight])
        return torch.nn.functional.linear(x, weight, bias)

    monkeypatch.setattr(torch_internals, "linear_pointwise", run)
    monkeypatch.setattr(products, "_default_is_faster", lambda *_: False)
    whole = torch.linspace(-1, 1, 5 * 8).reshape(5, 8)
    x = whole[:, :4].detach().requires_grad_()
    weight = torch.linspace(-2, 1, 3 * 4).reshape(3, 4).requires_grad_()
    dy = torch.linspace(0, 1, 5 * 3).reshape(5, 3)
    y = products.linear(x, weight, None)
    dx, dw = torch.autograd.grad(y, [x, weight], dy)

    torch.testing.assert_close(y, x @ weight.t())
    torch.testing.assert_close(dx, dy @ weight)
    torch.testing.assert_close(dw, dy.t() @ x)
    assert len(given) == 6
    assert all(operand.is_contiguous() or operand.t().is_contiguous() for operand in given)
