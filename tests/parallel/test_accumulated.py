"""The weight gradients of InnerProduct layers that are computed in blocks and added in place."""

from __future__ import annotations

import pytest
import torch

from caffe.net.divided import accumulated


@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [(5, 3, [2, 2, 1]), (5, 7, [1] * 5), (5, 9, [1] * 5), (8, 1, [7, 1]), (3, 2, [3])],
)
def test_a_gradient_is_added_in_blocks_of_rows(monkeypatch, rows, columns, blocks):
    """A block has at most 7 values here, but at least one row."""
    sizes = []
    product = accumulated.product

    def counted(a, b):
        sizes.append(len(a))
        return product(a, b)

    monkeypatch.setattr(accumulated, "_PIECE", 7)
    monkeypatch.setattr(accumulated, "product", counted)
    x, dy = torch.randn(4, columns), torch.randn(4, rows)
    grad = torch.ones(rows, columns)
    accumulated._add_product(grad, dy, x)
    torch.testing.assert_close(grad, 1 + dy.t() @ x)
    assert sizes == blocks


def test_the_memory_of_a_gradient_is_reused():
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    first = accumulated.gradient_of(parameter)
    assert parameter.grad is first
    assert not first.any()
    first += 5
    assert accumulated.gradient_of(parameter) is first
    assert (first == 5).all(), "a second pass adds to the gradient"
    parameter.grad = None
    assert accumulated.gradient_of(parameter).data_ptr() == first.data_ptr()
    assert not parameter.grad.any()
