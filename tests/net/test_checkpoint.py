"""A function that backward runs again: its gradients, what it keeps, and its errors."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from caffe.errors import NetError
from caffe.net.engines.checkpoint import checkpoint

Function = Callable[[Tensor], Tensor]


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(3, 5, requires_grad=True)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, requires_grad=True)


def again(function: Function, x: Tensor, name: str = "layer") -> Tensor:
    return checkpoint(function, [x], contextlib.nullcontext, name)


def layers(weight: Tensor) -> Function:
    """A function that saves an input, a weight, a temporary, an output, and a tensor changed in place."""
    return lambda x: torch.relu_(torch.sigmoid((x * x) @ weight) * 2 - 1).exp()


def counted(function: Function) -> tuple[Function, list[int]]:
    runs = [0]

    def run(x: Tensor) -> Tensor:
        runs[0] += 1
        return function(x)

    return run, runs


def test_gradients_are_equal_to_the_bit(weight, x):
    wanted = torch.autograd.grad(layers(weight)(x).sum(), [x, weight])
    run, runs = counted(layers(weight))
    y = again(run, x)
    assert runs == [1]
    found = torch.autograd.grad(y.sum(), [x, weight])
    assert runs == [2]
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_some_inputs_only(which, weight, x):
    given = [x, weight][which]
    (wanted,) = torch.autograd.grad(layers(weight)(x).sum(), given)
    (found,) = torch.autograd.grad(again(layers(weight), x).sum(), given)
    assert torch.equal(wanted, found)


def test_second_backward_runs_it_once_more_if_the_graph_is_retained(weight, x):
    run, runs = counted(layers(weight))
    y = again(run, x).sum()
    first = torch.autograd.grad(y, [x, weight], retain_graph=True)
    second = torch.autograd.grad(y, [x, weight])
    assert runs == [3]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match=r"second time"):
        torch.autograd.grad(y, [x, weight])


def test_gradients_of_gradients(weight, x):
    def second(y: Tensor) -> Tensor:
        (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (found,) = torch.autograd.grad(dx.square().sum(), weight)
        return found

    assert torch.equal(second(again(layers(weight), x)), second(layers(weight)(x)))


def test_nested(weight, x):
    inner, runs = counted(layers(weight))
    wanted = torch.autograd.grad(layers(weight)(x.sin()).cos().sum(), [x, weight])
    y = again(lambda x: again(inner, x.sin()).cos(), x)
    found = torch.autograd.grad(y.sum(), [x, weight])
    assert runs[0] <= 3
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a, b)


def test_run_ends_after_the_last_tensor_that_is_needed(x):
    ends = []

    def run(x: Tensor) -> Tensor:
        y = x.exp() + 1
        ends.append(1)
        return y

    again(run, x).sum().backward()
    assert ends == [1]


def test_nothing_is_kept_in_forward_and_each_tensor_is_freed_after_its_use(x):
    made: list[weakref.ref[torch.UntypedStorage]] = []
    alive: list[int] = []

    class Squared(torch.autograd.Function):
        """The square; counts the tensors that are in memory during backward."""

        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            made.append(weakref.ref(x.untyped_storage()))
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, dy: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            alive.append(sum(ref() is not None for ref in made))
            return 2 * x * dy

    def run(x: Tensor) -> Tensor:
        for _ in range(6):
            x = Squared.apply(x * 1.0)
        return x

    gc.disable()
    try:
        y = again(run, x)
        assert not any(ref() is not None for ref in made)
        y.sum().backward()
        assert alive == [6, 5, 4, 3, 2, 1]
        assert not any(ref() is not None for ref in made)
    finally:
        gc.enable()


def test_output_that_is_saved_is_freed_without_the_garbage_collector(x):
    made: list[weakref.ref[torch.UntypedStorage]] = []

    def run(x: Tensor) -> Tensor:
        y = x.exp()  # its gradient needs y, whose history must not refer to y
        made.append(weakref.ref(y.untyped_storage()))
        return y.sin()

    gc.disable()
    try:
        again(run, x).sum().backward()
        assert [ref() for ref in made] == [None, None]
    finally:
        gc.enable()


def test_function_without_gradients_keeps_nothing(x):
    y = again(lambda x: x.detach().exp(), x)
    assert not y.requires_grad
    assert torch.equal(y, x.exp())


@pytest.mark.parametrize("name", ["weight", "x"])
def test_change_in_place_before_backward_is_an_error(name, weight, x):
    y = again(layers(weight), x).sum()
    with torch.no_grad():
        {"weight": weight, "x": x}[name].mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.backward()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: x[:1].exp().exp(), r"saved a tensor of shape \(1, 3\).* where forward saved .* \(2, 3\).*"),
        (lambda x: x.exp(), "saved 1 tensors for its gradients, and forward saved 2"),
    ],
)
def test_runs_that_differ_are_an_error(second, message, x):
    runs = iter([lambda x: x.exp().exp(), second])
    y = again(lambda x: next(runs)(x), x, 'layers "a" to "b"')
    with pytest.raises(NetError, match=f'layers "a" to "b": a repeated run {message}; expected equal runs'):
        y.sum().backward()


def test_error_of_the_repeated_run_is_raised_and_its_context_left(x):
    events = []

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        events.append("entered")
        try:
            yield
        finally:
            events.append("left")

    def fails(x: Tensor) -> Tensor:
        raise ValueError("a layer's own error")

    runs: Iterator[Function] = iter([torch.exp, fails, torch.exp])
    y = checkpoint(lambda x: next(runs)(x), [x], context, "layer").sum()
    with pytest.raises(ValueError, match=r"own error"):
        y.backward(retain_graph=True)
    assert events == ["entered", "left"]
    y.backward()
    assert torch.equal(x.grad, x.exp())
