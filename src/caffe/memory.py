"""Memory of blobs: who owns the numbers, who has views of them, who may write, and how stale copies are detected.

Each array of a blob, its data or its diff, is one `Memory`:

- The memory owns one *value*, a tensor. A layer reads the value and never writes into it; what a layer computes
  replaces it (`write`).
- `lend` gives the user a numpy array. While the user holds the array or a view of it, the array is *lent*: it shows
  every new value, and the next read sees what the user wrote to it.
- A lent array is a view of the value if the value is *private* to this memory, contiguous and on the CPU. Otherwise it
  is a view of a copy, which is compared with the value before each read.
- `version` changes with every write. Caches of derived data store the version to detect changes.
- Reading a memory without a value (`drop`) raises a CaffeError with the reason.

The memories of parameters, whose tensors belong to torch, are in `caffe.parameter_memory`.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe.errors import CaffeError

__all__ = ["Loan", "Memory", "may_alias", "same_numbers", "same_place"]

_NARROW = (torch.bfloat16, torch.float16)
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Loan:
    """A numpy array that a user may hold: a view of `host`, which is the value itself (`alias`) or a copy of it.

    The memory has a weak reference to the array. The array is lent while the user holds it or a view of it.
    """

    __slots__ = ("_array", "alias", "host", "thread")

    def __init__(self, host: Tensor, alias: bool) -> None:
        self.host, self.alias = host, alias
        self.thread = 0
        self._array: weakref.ref[np.ndarray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()  # a copied or pickled memory has no borrowers

    @property
    def array(self) -> np.ndarray | None:
        """The lent array, or None if the user no longer holds it."""
        return None if self._array is None else self._array()

    def hand_out(self) -> np.ndarray:
        """Return the array, and record the calling thread."""
        array = self.array
        if array is None:
            array = self.host.numpy()
            self._array = weakref.ref(array)
        self.thread = threading.get_ident()
        return array

    def show(self, value: Tensor) -> bool:
        """Copy `value` to the lent array. Returns False if the array is not held, or cannot show the value.

        An array of another shape with as many elements shows them in its own shape. An array that another thread
        obtained keeps its numbers: they are the results of that thread's run.
        """
        if self.array is None or value.numel() != self.host.numel() or self.thread != threading.get_ident():
            return False
        if value.shape != self.host.shape:
            self.host = self.host.view(value.shape)
        self.host.copy_(value)
        self.alias = False
        return True


class Takers:
    """Records which threads obtained an array, to fill it, and have not run the net since."""

    def __init__(self) -> None:
        self._count = 0
        self._mine = threading.local()  # `taken`: the count when the present thread took the array

    def __reduce__(self) -> tuple[Any, ...]:
        return Takers, ()

    def took(self) -> None:
        """Record that the current thread obtains the array."""
        self._count += 1
        self._mine.taken = self._count

    def run(self) -> bool:
        """Record that the current thread runs the net. Returns False if another thread has obtained the array since."""
        taken, self._mine.taken = getattr(self._mine, "taken", 0), 0
        return taken in (0, self._count)


def _nothing() -> None:
    return None


class Memory:
    """The memory of a blob's data or diff: a value that layers replace, and the array that a user holds of it."""

    __slots__ = (
        "_blank",
        "_foreign",
        "_loan",
        "_looks",
        "_private",
        "_ready",
        "_touched",
        "_value",
        "_writes",
        "missing",
        "shared",
        "takers",
    )

    def __init__(self, shape: Sequence[int], like: Tensor) -> None:
        """Zeros of a shape, with the type and device of `like`. They use no memory until they are read."""
        self.shared = False  # whether several blobs use this memory
        self.takers: Takers | None = None  # whether it matters which thread took the array last
        self._writes = self._looks = 0
        self._loan: Loan | None = None
        self._blank: Tensor | None = None  # zeros of the last shape, one number in memory, never written
        self._value: Tensor
        self._private: bool
        self._foreign: bool
        self._ready: bool
        self.missing: str  # the reason if there is no value; otherwise empty
        self._touched: bool  # whether anything but `reset` may have written the value
        self._put_zeros(shape, like)

    # -- the net's side --------------------------------------------------------------------------------------------

    def read(self) -> Tensor:
        """The value, including the user's writes. The caller must not write to it."""
        if not self._ready:
            self._prepare()
        if self._loan is not None:
            self._collect()
        return self._value

    def write(self, value: Tensor, private: bool = True, foreign: bool = False) -> None:
        """Replace the value.

        `private` says whether no other code reads the memory of `value`, `foreign` whether other code may write to it.
        The tensor is used without copying. A lent array gets a copy of the new numbers.
        """
        loan = self._loan
        if loan is not None:
            if loan.alias and loan.array is not None and same_place(value, self._value):
                self.reshape(value.shape)
                return
            self._loan = loan if loan.show(value) else None
        self._value, self._private, self._foreign = value, private and not foreign, foreign
        self.missing, self._ready = "", value.dtype not in _NARROW
        self._writes += 1
        self._touched = True

    def share(self) -> bool:
        """Allow other code to keep a reference to the current value. Users who ask for an array later get a copy.

        Returns False if a user holds an array over the value, or if the value is foreign and can change; the other code
        must then copy it.
        """
        if self._foreign:
            return False
        if self._loan is not None and self._loan.alias and self._loan.array is not None:
            return False
        self._private = False
        return True

    def take_over(self, other: Any) -> None:
        """Move the value and the lent array of another memory to this one. The other must not be used afterwards."""
        self.write(other.read())
        self._loan = other._loan

    def drop(self, reason: str) -> None:
        """Free the value. The shape and the lent array are kept. Reading then raises a CaffeError."""
        if self._loan is None and self.missing == reason:
            return
        self._loan = self._loan if self.lent else None
        self._put_zeros(self.shape, self._value)
        self.missing = reason

    def is_still(self, fill: float) -> bool:
        """Whether every element still is `fill`, as set by `reset`, or there is no value."""
        return not self._touched or bool(self.missing) or bool((self.read() == fill).all())

    def lies_in(self, value: Tensor) -> bool:
        """Whether the current value is foreign and `value` is the same memory."""
        return self._foreign and same_place(value, self._value)

    def holds(self, value: Tensor) -> bool:
        """Whether `value` is the current value and the user has not replaced it."""
        if self._loan is not None:
            self._collect()
        return not (self.missing or self._foreign) and same_place(value, self._value)

    def reset(self, shape: Sequence[int], fill: float = 0.0) -> None:
        """Set the value to zeros, or `fill`, of a shape. A lent array of another shape is disconnected."""
        self._loan = None
        self._put_zeros(shape, self._value)
        if fill:
            self._value = torch.full(tuple(shape), fill, dtype=self._value.dtype, device=self._value.device)
            self._ready = True

    def reshape(self, shape: Sequence[int]) -> None:
        """Change the shape. If the number of elements is the same, values and lent arrays are kept; otherwise the value
        becomes zeros.
        """
        if tuple(shape) == self.shape:
            return
        reason = self.missing
        if math.prod(shape) != self._value.numel():
            self.reset(shape)
            self.missing = reason
            return
        if reason:
            self._put_zeros(shape, self._value)
            self.missing = reason
        elif self.read().is_contiguous():
            self._value = self._value.view(tuple(shape))
        else:
            self._value, self._private, self._foreign = self._value.reshape(tuple(shape)), True, False
        if self._loan is not None:
            self._loan.host = self._loan.host.view(tuple(shape))

    def in_c_order(self) -> Tensor:
        """Return the value, converted to C order permanently."""
        value = self.read()
        if not value.is_contiguous():
            self._value, self._private, self._foreign = value.contiguous(), True, False
        return self._value

    def lay_out(self, value: Tensor) -> None:
        """Replace the value by `value`, which has the same numbers in C order."""
        self._value, self._private, self._foreign = value, True, False

    def in_shape(self, shape: tuple[int, ...]) -> Tensor:
        """The value as a tensor of a shape with as many elements."""
        value = self.read()
        return value if value.shape == shape else self.in_c_order().view(shape)

    # -- the user's side -------------------------------------------------------------------------------------------

    def lend(self) -> np.ndarray:
        """A writable numpy array of the value. Returns the same array while the user holds it."""
        value = self.read()
        loan = self._loan
        if loan is None:
            alias = self._private and value.is_contiguous() and may_alias(value)
            # `.data` has a separate version counter, so that our writes do not look like a user's.
            host = value.data if alias else _copied(value)
            loan = self._loan = Loan(host, alias)
        self._touched = True
        if self.takers is not None:
            self.takers.took()
        return loan.hand_out()

    def private(self) -> Tensor:
        """The value as a tensor to which the caller may write."""
        value = self.read()
        self._touched = True
        if not self._private:
            self._value, self._private, self._foreign = value.clone(), True, False
        return self._value

    @property
    def lent(self) -> bool:
        """Whether the user holds the array."""
        return self._loan is not None and self._loan.array is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._value.shape)

    @property
    def count(self) -> int:
        """Number of elements."""
        return self._value.numel()

    @property
    def raw(self) -> Tensor:
        """The value as the net left it, to read only its dtype and size."""
        return self._value

    # -- versions --------------------------------------------------------------------------------------------------

    @property
    def generation(self) -> tuple[int, int]:
        """Changes when the value is replaced, or written by torch, or written through a lent copy.

        A write through an array over the value does not count, because code that saved the value sees that write.
        """
        if self._loan is not None:
            self._collect()
        return self._writes, self._value._version

    @property
    def version(self) -> tuple[int, ...]:
        """Changes when the numbers may have changed in any way. While an alias is lent, it changes at each access."""
        if self._loan is not None and self._loan.alias:
            self._looks += 1
        return *self.generation, self._looks

    # -- inside ----------------------------------------------------------------------------------------------------

    def _put_zeros(self, shape: Sequence[int], like: Tensor) -> None:
        dtype = torch.float32 if like.dtype in _NARROW else like.dtype
        blank = self._blank
        if blank is None or blank.shape != tuple(shape) or blank.dtype != dtype or blank.device != like.device:
            blank = self._blank = like.new_zeros((), dtype=dtype).expand(tuple(shape))
        self._value = blank
        self._private, self._foreign, self._ready, self.missing = True, False, False, ""
        self._touched = False
        self._writes += 1

    def _prepare(self) -> None:
        """Allocate zeros, and convert a 16-bit value to float32."""
        if self.missing:
            raise CaffeError(self.missing)
        self._value = self._value.float() if self._value.dtype in _NARROW else self._value.contiguous()
        self._private = self._ready = True

    def _collect(self) -> None:
        """Apply the user's writes to a lent copy, and drop an alias that is no longer held."""
        loan = self._loan
        assert loan is not None
        kept = loan.array is not None
        if loan.alias:
            if not kept:
                self._loan = None
                self._looks += 1
            return
        if (kept or loan.thread) and not same_numbers(loan.host, self._value):
            loan.alias = may_alias(self._value)
            self._value = loan.host if loan.alias else loan.host.to(self._value.device, copy=True)
            self._private, self._foreign = True, False
            self._writes += 1
        if not kept:
            loan.thread = 0  # no user can write to the copy any more; it is kept for the next user


def may_alias(value: Tensor) -> bool:
    """Whether a numpy array can be a view of the tensor's memory."""
    return value.device.type == "cpu"


def _copied(value: Tensor) -> Tensor:
    """A copy on the CPU in C order. Uses numpy if possible, which is faster for few numbers."""
    if value.device.type == "cpu" and value.is_contiguous():
        return torch.from_numpy(value.numpy().copy())
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)


def same_place(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same numbers in the same memory, in any shape."""
    if a.data_ptr() != b.data_ptr() or a.numel() != b.numel() or a.dtype != b.dtype:
        return False
    return (a.shape == b.shape and a.stride() == b.stride()) or (a.is_contiguous() and b.is_contiguous())


def same_numbers(host: Tensor, value: Tensor) -> bool:
    """Whether two tensors of the same shape have equal bits. A NaN equals itself."""
    there = host.to(value.device)
    bits = _BITS.get(value.dtype)
    return torch.equal(there, value) if bits is None else torch.equal(there.view(bits), value.view(bits))
