"""The memories of a parameter: its data and its gradient, two tensors that torch owns.

Torch's operations, autograd and optimizers write into these tensors. A `WeightWatch` tells whether they
may have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from caffe.errors import CaffeError
from caffe.memory import Loan, may_alias, same_numbers

__all__ = [
    *("LENT_COPIES", "Gradient", "WeightWatch", "Weights"),
    *("collect_lent_copies", "lent_copies_follow", "show_lent_copies"),
]


class ParameterMemory(ABC):
    """Base of the memories whose tensor torch owns and writes to: data and gradient of a parameter.

    `holder()` returns the parameter. `views` are parameters of other shapes over the same memory. On the CPU a lent
    array is a view of the tensor. On another device it is a view of a copy, and `base` holds the original values of
    that copy: values that differ were written by the user.
    """

    __slots__ = ("_base", "_loan", "_place", "_writes", "holder", "views")
    shared = False  # blobs of other shapes are `views`
    missing = ""  # a parameter has a value always

    def __init__(self, holder: Callable[[], Tensor]) -> None:
        self.holder = holder
        self.views: list[nn.Parameter] = []
        self._loan: Loan | None = None
        self._base: Tensor | None = None
        self._place = 0  # the tensor's address when the array was lent
        self._writes = 0

    @abstractmethod
    def _tensor(self) -> Tensor:
        """The tensor that torch owns."""

    @abstractmethod
    def _use_c_order(self) -> None:
        """Store the tensor in C order."""

    @abstractmethod
    def tie(self) -> None:
        """Update the views to the tensor's memory."""

    def read(self) -> Tensor:
        """The tensor, including the user's writes."""
        value = self._tensor()
        if self._loan is not None:
            self._collect(value)
        return value

    def private(self) -> Tensor:
        """The tensor, to which the caller may write with torch's operations."""
        return self.read()

    def in_c_order(self) -> Tensor:
        """The tensor, which is stored in C order from now on."""
        self.read()
        self._use_c_order()
        return self._tensor()

    def in_shape(self, shape: tuple[int, ...]) -> Tensor:
        """The tensor in a shape with as many elements."""
        value = self.read()
        return value if value.shape == shape else self.in_c_order().view(shape)

    def write(self, value: Tensor, private: bool = True, foreign: bool = False) -> None:
        """Copy `value` into the tensor."""
        self.read().copy_(value)
        self.advance()

    def advance(self) -> None:
        """Report a write to the tensor that torch's version counter does not see, such as by `parameter.data`."""
        self._writes += 1
        if self._base is not None and self._loan is not None:
            self._base.copy_(self._loan.host)  # the user's earlier writes are ignored from now on
            self.show()

    def lend(self) -> np.ndarray:
        """A writable array over the tensor, which is stored in C order from now on."""
        value = self.in_c_order()
        if self._loan is None:
            alias = may_alias(value)
            self._loan = Loan(value.data if alias else value.to("cpu", copy=True), alias)
            self._base = None if alias else self._loan.host.clone()
            self._place = value.data_ptr()
            if not alias:
                LENT_COPIES.add(self)
        self._writes += 1
        array = self._loan.hand_out()
        if self._base is not None:
            self.show()
        return array

    def show(self) -> None:
        """Update a lent copy from the tensor. The user's writes must have been applied before."""
        value = self.read()
        if self._loan is not None and self._base is not None:
            self._loan.host.copy_(value)
            self._base.copy_(value)

    @property
    def lent(self) -> bool:
        """Whether a user keeps the array."""
        return self._loan is not None and self._loan.array is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.holder().shape)

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.holder().numel()

    def _collect(self, value: Tensor) -> None:
        """Apply what the user wrote to a lent copy, and drop an array that is no longer held."""
        loan, base = self._loan, self._base
        assert loan is not None
        kept, moved = loan.array is not None, self._place != value.data_ptr()
        if base is not None and not moved and not same_numbers(loan.host, base):
            value.copy_(torch.where(loan.host != base, loan.host, value.cpu()))
            base.copy_(loan.host)
            self._writes += 1
        if moved or not kept:
            self.forget_loan()

    def forget_loan(self) -> None:
        """Disconnect a lent array."""
        self._loan = self._base = None
        self._writes += 1
        LENT_COPIES.discard(self)


class Weights(ParameterMemory):
    """The memory of a parameter's data. Blobs of several layers, or of several nets, may share it."""

    __slots__ = ()

    def _tensor(self) -> Tensor:
        return self.holder().detach()

    def _use_c_order(self) -> None:
        parameter = self.holder()
        if not parameter.is_contiguous():
            parameter.data = parameter.detach().contiguous()
            self.tie()

    def tie(self) -> None:
        for view in self.views:
            view.data = self.holder().detach().view(view.shape)

    @property
    def version(self) -> tuple[int, ...]:
        """Changes when the values may have changed: at each call while an array is lent, and once after."""
        if self._loan is not None:
            self._writes += 1
            self.read()
        parameter = self.holder()
        version = self._writes, parameter._version, parameter.data_ptr()
        return (*version, *(view._version for view in self.views)) if self.views else version


class Gradient(ParameterMemory):
    """The memory of a parameter's gradient, `parameter.grad`, to which autograd adds.

    A missing gradient means zeros. `borrow` uses another object's tensor as the gradient without a copy.
    """

    __slots__ = ("_borrowed",)

    def __init__(self, holder: Callable[[], Tensor]) -> None:
        super().__init__(holder)
        self._borrowed: tuple[Tensor, int] | None = None  # with torch's count of its writes

    def _tensor(self) -> Tensor:
        parameter = self.holder()
        if parameter.grad is None:
            borrowed = self._take_borrowed()
            if borrowed is None:
                parameter.grad = torch.zeros_like(parameter, requires_grad=False)
            else:
                parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(borrowed)
        return parameter.grad

    def _use_c_order(self) -> None:
        parameter, grad = self.holder(), self._tensor()
        if not grad.is_contiguous():
            if not parameter.is_contiguous():  # torch wants both in one order
                raise CaffeError("the data of a parameter must be in C order before its diff is")
            parameter.grad = grad.contiguous()
            self.tie()

    def tie(self) -> None:
        for view in self.views:
            view.grad = self._tensor().view(view.shape)

    def add(self, grad: Tensor) -> None:
        """Add to the gradient, in place."""
        value = self.read()
        value.data.add_(grad.view(value.shape))
        self.advance()

    def borrow(self, value: Tensor) -> None:
        """Use `value` as the gradient. Its owner must call `settle` before it changes the tensor."""
        if self.lent or self.views:
            self.write(value)
        else:
            self.forget_loan()
            self.holder().grad, self._borrowed = None, (value, value._version)

    def adopt(self, value: Tensor) -> None:
        """Use `value`, with the parameter's shape, as the gradient, or copy it if the user holds an array."""
        parameter = self.holder()
        if self.lent or self.views or value.stride() != parameter.stride():
            self.write(value)
        else:
            self.forget_loan()
            parameter.grad, self._borrowed = value, None

    def settle(self) -> None:
        """Copy a borrowed tensor before its owner changes it."""
        if self._borrowed is not None:
            self._tensor()

    def clear(self) -> None:
        """Set the gradient to zero. If no array is lent, the tensor is dropped: torch then stores instead of adding."""
        parameter = self.holder()
        self._borrowed = None
        if parameter.grad is None:
            return
        if self.views or not parameter.requires_grad or self.lent:
            parameter.grad.zero_()
            self.advance()
        else:
            self.forget_loan()
            parameter.grad = None

    def _take_borrowed(self) -> Tensor | None:
        if self._borrowed is None:
            return None
        (value, version), self._borrowed = self._borrowed, None
        if value._version != version:
            raise CaffeError("internal error: a gradient was borrowed from a tensor that has changed since")
        return value


class WeightWatch:
    """Tells whether weights may have changed since the last call of `changed`."""

    def __init__(self, weights: Sequence[Weights]) -> None:
        self._weights = weights
        self._seen: list[tuple[int, ...]] = []

    def changed(self) -> bool:
        """Whether any may have changed since the last call; True at the first."""
        now = [weights.version for weights in self._weights]
        if now == self._seen:
            return False
        self._seen = now
        return True


def collect_lent_copies() -> None:
    """Before a run: apply what users wrote to lent copies of parameters, which exist only on other devices than CPU."""
    for memory in list(LENT_COPIES):
        memory.read()


def show_lent_copies() -> None:
    """After a run: copy the new values of parameters into their lent copies."""
    for memory in list(LENT_COPIES):
        memory.show()


class _Follow:
    """See `lent_copies_follow`."""

    def __enter__(self) -> None:
        if LENT_COPIES:
            collect_lent_copies()

    def __exit__(self, *_: object) -> None:
        if LENT_COPIES:
            show_lent_copies()


def lent_copies_follow() -> _Follow:
    """A context around a run or an update. Before it, users' writes to lent copies of parameters are applied; after it,
    the copies are updated."""
    return _FOLLOW


_FOLLOW = _Follow()
LENT_COPIES: set[ParameterMemory] = set()
"""The memories of which users hold a copy: parameters that are not on the CPU. See `lent_copies_follow`."""
