"""Blob: the N-dimensional array that Caffe passes between layers, with its gradient."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from caffe.errors import ArgumentType, CaffeError, as_index
from caffe.limits import check_size
from caffe.memory import Memory
from caffe.parameter_memory import Gradient, Weights

__all__ = ["Blob", "ParamBlob", "sizes"]


class Blob:
    """An array with its gradient: `data` and `diff`, of any number of axes.

    `data` and `diff` are writable numpy arrays. An array that the caller keeps shows the values of later runs. `tensor`
    and `grad` are the same as torch tensors. Each is a `caffe.memory.Memory`, which several blobs can share.
    """

    __slots__ = ("_own", "_root", "_view", "alone", "data_memory", "diff_memory", "name")

    def __init__(self, *shape: int, name: str = "", device: torch.device | str = "cpu") -> None:
        check_size(f'blob "{name}"', shape, device=device)
        like = torch.zeros((), device=device)
        self.data_memory = self._own = Memory(shape, like)
        self.diff_memory = Memory(shape, like)
        self._view: tuple[int, ...] | None = None  # the shape, where that of the memory is another one
        self._root: Blob | None = None  # the blob whose data this one shares
        self.alone = False
        self.name = name

    # -- the net's side --------------------------------------------------------------------------------------------

    def read(self) -> Tensor:
        """The data for a layer, which must not write into it."""
        value = self.data_memory.read()
        return value if self._view is None else self.data_memory.in_c_order().view(self._view)

    def write(self, value: Tensor, private: bool = True, foreign: bool = False) -> None:
        """Replace the data, also for the blobs that share it; see Memory.write.

        With another number of elements the owner of the memory gets a new one, and the others keep the old one.
        """
        if self.data_memory.shared:
            if value.numel() == self.data_memory.count:
                value = value if self._view is None else value.reshape(self.data_memory.shape)
            elif self.data_memory is self._own:
                self._renew()
            else:  # within a run, for a layer that reads this blob before the end of the run fills it
                self._follow()
                fits = value.numel() == self.data_memory.count
                self._view = tuple(value.shape) if fits and value.shape != self.data_memory.shape else None
                value = value.reshape(self.data_memory.shape) if fits else value
        self.data_memory.write(value, private, foreign)

    def _follow(self) -> None:
        """Use the memory that the blob has now whose data this blob shares."""
        if self._root is not None:
            self._root._follow()
            self.data_memory = self._root.data_memory

    def _renew(self) -> None:
        old = self.data_memory
        self.data_memory = self._own = Memory((), old.raw)
        self.data_memory.takers = old.takers
        self._view = self._root = None
        if old.missing:
            self.data_memory.drop(old.missing)

    def stand_alone(self) -> None:
        """Share data with no other blob, now and later: a layer works on this blob in place."""
        shape = self.shape
        self.alone, self._root = True, None
        if self.data_memory.shared:
            self._renew()
        self.data_memory.reshape(shape)

    def use_data(self, other: ParamBlob) -> None:
        """Use the data of a parameter, and keep a diff of one's own."""
        self.data_memory = self._own = other.weights  # type: ignore[assignment]
        self._view = other._view

    def share(self, other: Blob, shape: tuple[int, ...], diff: bool = False) -> None:
        """Use the data of `other`, and with `diff` its diff, under a shape of the same number of elements."""
        self.data_memory, self._root = other.data_memory, other
        self.data_memory.shared = True
        self._view = None if shape == self.data_memory.shape else shape
        if diff:
            self.diff_memory = other.diff_memory

    def drop(self, reason: str) -> None:
        """Free the data; see Memory.drop."""
        self.data_memory.drop(reason)

    def drop_diff(self, reason: str) -> None:
        """Free the diff; see Memory.drop."""
        self.diff_memory.drop(reason)

    def read_diff(self) -> Tensor:
        """The diff for a layer, which must not write into it. Zeros where nobody has written it."""
        return self._fitting_diff().in_shape(self.shape)

    def write_diff(self, value: Tensor, private: bool = True) -> None:
        """Replace the diff; see Memory.write."""
        memory = self._fitting_diff()
        self.diff_memory.write(value if value.shape == memory.shape else value.reshape(memory.shape), private)

    def reset_diff(self, fill: float = 0.0) -> None:
        """Make every element of the diff `fill`."""
        self.diff_memory.reset(self.shape, fill)

    def stamp(self) -> tuple[Memory, int, int]:
        """Which memory holds the data, and its generation: changes when the data is another; see Memory.generation."""
        memory = self.data_memory
        return memory, *memory.generation

    def _fitting_diff(self) -> Memory:
        if self.diff_memory.count != self.data_memory.count:
            self.diff_memory.reset(self.shape)
        return self.diff_memory

    # -- torch side ------------------------------------------------------------------------------------------------

    @property
    def tensor(self) -> Tensor:
        """The data as a torch tensor without gradient history. The caller may write into it."""
        value = self.data_memory.private()
        return value if self._view is None else self.data_memory.in_c_order().view(self._view)

    @tensor.setter
    def tensor(self, value: Tensor) -> None:
        self.write(value)

    @property
    def grad(self) -> Tensor:
        """The diff as a torch tensor, which the caller may write into; zeros if nobody has written it yet."""
        self._fitting_diff().private()
        return self.read_diff()

    @grad.setter
    def grad(self, value: Tensor) -> None:
        self.write_diff(value)

    # -- numpy side ------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values, a writable float array of `shape`."""
        array, shape = self.data_memory.lend(), self.shape
        return array if array.shape == shape else array.reshape(shape)

    @property
    def diff(self) -> np.ndarray:
        """The gradient of the loss with respect to `data`, of the same shape."""
        array, shape = self._fitting_diff().lend(), self.shape
        return array if array.shape == shape else array.reshape(shape)

    # -- shape -----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data_memory.shape if self._view is None else self._view

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def reshape(self, *shape: int, **unknown: Any) -> None:
        """Change the shape; values are kept where the count stays the same, else they are zeros."""
        shape = sizes("reshape", shape, unknown)
        check_size(f'blob "{self.name}"', shape, device=self.data_memory.raw.device)
        if tuple(shape) == self.shape:
            return
        if self.data_memory.shared and math.prod(shape) == self.data_memory.count:
            self._view = None if tuple(shape) == self.data_memory.shape else tuple(shape)
            return
        if self.data_memory.shared:
            self._renew()
        self.data_memory.reshape(shape)

    @property
    def num(self) -> int:
        """Legacy name of axis 0 of a blob with at most 4 axes."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """Legacy name of axis 1."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """Legacy name of axis 2."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """Legacy name of axis 3."""
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise CaffeError(
                f'blob "{self.name}" has {len(self.shape)} axes; num, channels, height and width exist for at most 4: '
                "use shape"
            )
        return self.shape[axis] if axis < len(self.shape) else 1

    def __copy__(self) -> NoReturn:
        raise CaffeError(f"{self!r} cannot be copied without its memory; copy.deepcopy and blob.data.copy() copy it")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape={self.shape})"


def sizes(call: str, shape: tuple[Any, ...], unknown: dict[str, Any]) -> tuple[int, ...]:
    """The sizes given to `call` one by one, as whole numbers."""
    if unknown:
        raise ArgumentType(f"{call} takes no keyword arguments, got {list(unknown)}; give the sizes: {call}(2, 3)")
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        raise ArgumentType(f"{call} was given one {type(shape[0]).__name__}; give the sizes one by one: {call}(*shape)")
    return tuple([size if type(size) is int else as_index(f"{call}: a size", size) for size in shape])


class ParamBlob(Blob):
    """A blob of a layer: the layer's parameter `name` and, as diff, that parameter's gradient.

    Two layers that share a parameter have the same ParamBlob. A net that uses the weights of another net has a
    ParamBlob of its own for them, with the same data and a diff of its own.
    """

    __slots__ = ("_layer", "_parameter_name", "gradient", "weights")

    def __init__(self, layer: nn.Module, parameter_name: str, name: str = "") -> None:
        self._layer, self._parameter_name, self.name = layer, parameter_name, name
        self.weights = Weights(self._holder)
        self.gradient: Gradient | None = Gradient(self._holder)
        self.data_memory = self._own = self.weights  # type: ignore[assignment]
        self.diff_memory = self.gradient  # type: ignore[assignment]
        self._view = self._root = None
        self.alone = True

    def _holder(self) -> Tensor:
        layer, name = self._layer, self._parameter_name
        parameter = layer._parameters.get(name)
        tensor: Any = layer._buffers[name] if parameter is None else parameter
        return tensor

    @property
    def parameter(self) -> Tensor:
        """The layer's parameter, or its buffer where the blob is not trained."""
        return self._holder()

    @property
    def version(self) -> tuple[int, ...]:
        """Changes when the data may have changed: see Weights.version."""
        return self.weights.version

    def advance(self) -> None:
        """Say that the data was written by a way that torch does not count, such as `parameter.data`."""
        self.weights.advance()

    def add_diff(self, value: Tensor) -> None:
        """Add to the diff."""
        if self.gradient is not None:
            self.gradient.add(value)
        else:
            self.write_diff(self.read_diff() + value)

    def present_diff(self) -> Tensor | None:
        """The diff, or None where it is zero because nothing was added to it."""
        return self.read_diff() if self.gradient is None else self.parameter.grad

    def settle_diff(self) -> None:
        """Copy a diff that is borrowed from an update rule, which is about to change it."""
        if self.gradient is not None:
            self.gradient.settle()

    def clear_diff(self) -> None:
        """Make the diff zero."""
        if self.gradient is not None:
            self.gradient.clear()
        else:
            self.write_diff(torch.zeros(self.shape, device=self.parameter.device))

    def adopt_diff(self, value: Tensor) -> None:
        """Make `value` the diff: see Gradient.adopt."""
        if self.gradient is not None:
            self.gradient.adopt(value)
        else:
            self.write_diff(value, private=False)

    def borrow_diff(self, value: Tensor) -> None:
        """Make `value` the diff: see Gradient.borrow."""
        if self.gradient is not None:
            self.gradient.borrow(value)
        else:
            self.write_diff(value, private=False)

    def use_weights(self, other: ParamBlob) -> None:
        """Use the data of another net's blob; the diff becomes this blob's own.

        Nets that use the weights which this blob had go on using them, and so do arrays of them.
        """
        former = self.parameter
        if self.gradient is not None:
            diff = Memory(self.shape, former)
            diff.take_over(self.diff_memory)
            self.gradient.forget_loan()
            self.diff_memory = diff
        for memory in (self.weights, self.gradient):
            if memory is not None and memory.holder == self._holder:
                memory.holder = lambda: former  # the layer is about to have another parameter
        self.data_memory = self._own = self.weights = other.weights  # type: ignore[assignment]
        self._view, self.gradient = other._view, None

    def apart(self, layer: nn.Module, parameter_name: str) -> ParamBlob:
        """A blob for a layer that shares this one in its net and gets weights of its own: the diff stays shared."""
        if self._layer is layer:
            return self
        blob = ParamBlob(layer, parameter_name, self.name)
        blob.data_memory = blob._own = blob.weights = self.weights  # type: ignore[assignment]
        blob.diff_memory, blob.gradient, blob._view = self.diff_memory, None, self._view
        return blob

    def lie_over(self, other: ParamBlob, shape: tuple[int, ...]) -> None:
        """Be the data and diff of `other` under another shape. The layer's parameter becomes a view of the other's."""
        assert other.gradient is not None
        parameter = nn.Parameter(torch.empty(shape, device=other.parameter.device))
        setattr(self._layer, self._parameter_name, parameter)
        self.data_memory = self._own = self.weights = other.weights  # type: ignore[assignment]
        self.diff_memory = self.gradient = other.gradient  # type: ignore[assignment]
        self._view = shape
        for memory in (other.weights, other.gradient):
            memory.views.append(parameter)
        other.tie()

    def tie(self) -> None:
        """Point the parameters of other shapes at this blob's memory, after that was moved."""
        assert self.gradient is not None
        for memory in (self.weights, self.gradient):
            memory.in_c_order()
            memory.tie()

    @property
    def tied(self) -> bool:
        """Whether parameters of other shapes lie over this blob's memory."""
        return bool(self.weights.views)

    def write(self, value: Tensor, private: bool = True, foreign: bool = False) -> None:
        """Copy `value` into the parameter."""
        self.data_memory.write(value.view(self.data_memory.shape))

    @property
    def data(self) -> np.ndarray:
        self._use_c_order()
        return super().data

    @property
    def diff(self) -> np.ndarray:
        self._use_c_order()
        return super().diff

    def _use_c_order(self) -> None:
        """Lay data and diff out as users expect; from the first look on, this is how they stay."""
        self.weights.in_c_order()
        if self.gradient is not None and self.parameter.grad is not None:
            self.gradient.in_c_order()

    def reshape(self, *shape: int, **unknown: Any) -> None:
        shape = sizes("reshape", shape, unknown)
        if tuple(shape) != self.shape:
            raise CaffeError(
                f'parameter blob "{self.name}" has shape {self.shape}, which its layer fixes; it cannot become {shape}'
            )
