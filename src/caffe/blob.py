"""Blob: an N-dimensional array with its gradient, which layers read and write."""

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

    `data` and `diff` are writable numpy arrays. They are views: an array that you keep shows the values of later runs.
    `tensor` and `grad` are the same values as torch tensors. Each is backed by a `caffe.memory.Memory`, which several
    blobs can share.
    """

    __slots__ = ("_own", "_root", "_view", "alone", "data_memory", "diff_memory", "name")

    def __init__(self, *shape: int, name: str = "", device: torch.device | str = "cpu") -> None:
        check_size(f'blob "{name}"', shape, device=device)
        like = torch.zeros((), device=device)
        self.data_memory = self._own = Memory(shape, like)
        self.diff_memory = Memory(shape, like)
        self._view: tuple[int, ...] | None = None  # the shape, if it differs from the memory's
        self._root: Blob | None = None  # the blob whose data this one shares
        self.alone = False
        self.name = name

    # -- the net's side --------------------------------------------------------------------------------------------

    def read(self) -> Tensor:
        """The data for a layer, which must not write into it."""
        value = self.data_memory.read()
        return value if self._view is None else self.data_memory.in_c_order().view(self._view)

    def write(self, value: Tensor, private: bool = True, foreign: bool = False) -> None:
        """Replace the data, also for blobs that share it; see Memory.write.

        If the number of elements changes, the owner of the memory gets a new one, and other blobs keep the old one.
        """
        if self.data_memory.shared:
            if value.numel() == self.data_memory.count:
                value = value if self._view is None else value.reshape(self.data_memory.shape)
            elif self.data_memory is self._own:
                self._renew()
            else:  # during a run, for a layer that reads this blob before it is filled at the end of the run
                self._follow()
                fits = value.numel() == self.data_memory.count
                self._view = tuple(value.shape) if fits and value.shape != self.data_memory.shape else None
                value = value.reshape(self.data_memory.shape) if fits else value
        self.data_memory.write(value, private, foreign)

    def _follow(self) -> None:
        """Use the current memory of the blob whose data this blob shares."""
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
        """Stop sharing data with other blobs permanently, since a layer works on this blob in place."""
        shape = self.shape
        self.alone, self._root = True, None
        if self.data_memory.shared:
            self._renew()
        self.data_memory.reshape(shape)

    def use_data(self, other: ParamBlob) -> None:
        """Use the data of a parameter, but a separate diff."""
        self.data_memory = self._own = other.weights  # type: ignore[assignment]
        self._view = other._view

    def share(self, other: Blob, shape: tuple[int, ...], diff: bool = False) -> None:
        """Use the data (and with `diff` the diff) of `other`, with a shape of the same number of elements."""
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
        """The diff for a layer, which must not write to it. Zeros if it was never written."""
        memory = self._fitting_diff()
        return memory.read() if self._view is None else memory.in_shape(self._view)

    def write_diff(self, value: Tensor, private: bool = True) -> None:
        """Replace the diff; see Memory.write."""
        if value.shape != self.diff_memory.shape:
            value = value.reshape(self._fitting_diff().shape)
        self.diff_memory.write(value, private)

    def reset_diff(self, fill: float = 0.0) -> None:
        """Set every element of the diff to `fill`."""
        self.diff_memory.reset(self.shape, fill)

    def stamp(self) -> tuple[Memory, int, int]:
        """The memory that holds the data, and its generation. It changes when the data is replaced."""
        memory = self.data_memory
        return memory, *memory.generation

    def _fitting_diff(self) -> Memory:
        memory, data = self.diff_memory, self.data_memory
        if memory.count != data.count:
            memory.reset(self.shape)
        elif self._view is None and memory.shape != data.shape:
            memory.reshape(data.shape)
        return memory

    # -- torch side ------------------------------------------------------------------------------------------------

    @property
    def tensor(self) -> Tensor:
        """The data as a torch tensor without autograd history. The caller may write to it."""
        value = self.data_memory.private()
        return value if self._view is None else self.data_memory.in_c_order().view(self._view)

    @tensor.setter
    def tensor(self, value: Tensor) -> None:
        self.write(value)

    @property
    def grad(self) -> Tensor:
        """The diff as a torch tensor, to which the caller may write. Zeros if it was never written."""
        self._fitting_diff().private()
        return self.read_diff()

    @grad.setter
    def grad(self, value: Tensor) -> None:
        self.write_diff(value)

    # -- numpy side ------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values, a writable float array with the shape `shape`."""
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
        """Change the shape. Values are kept if the number of elements stays the same, else they are set to zero."""
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
    """A blob of a layer: `data` is the layer's parameter `name`, `diff` is the parameter's gradient.

    Layers of a net that share a parameter have the same ParamBlob. A net that uses the weights of another net has a
    separate ParamBlob, with the same data and a separate diff.
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
    def parameter_name(self) -> str:
        """The name of the layer's parameter or buffer, such as "weight"."""
        return self._parameter_name

    @property
    def parameter(self) -> Tensor:
        """The layer's parameter, or its buffer if the blob is not trained."""
        return self._holder()

    @property
    def version(self) -> tuple[int, ...]:
        """Changes when the data may have changed: see Weights.version."""
        return self.weights.version

    def advance(self) -> None:
        """Report a write to the data that torch's version counter does not see, such as by `parameter.data`."""
        self.weights.advance()

    def add_diff(self, value: Tensor) -> None:
        """Add to the diff."""
        if self.gradient is not None:
            self.gradient.add(value)
        else:
            self.write_diff(self.read_diff() + value)

    def read_diff(self) -> Tensor:
        gradient = self.gradient
        if gradient is None or self._view is not None:
            return super().read_diff()
        return gradient.read()

    def present_diff(self) -> Tensor | None:
        """The diff, or None if nothing was added to it, so that it is zero."""
        return self.read_diff() if self.gradient is None else self.parameter.grad

    def settle_diff(self) -> None:
        """Copy a diff that is borrowed from an update rule. Called before the rule changes it."""
        if self.gradient is not None:
            self.gradient.settle()

    def clear_diff(self) -> None:
        """Set the diff to zero."""
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
        """Use the data of another net's blob, with a separate diff.

        Nets and arrays that share the former data of this blob keep it.
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
        """A blob for a layer that shared this blob and gets separate weights. The diff stays shared."""
        if self._layer is layer:
            return self
        blob = ParamBlob(layer, parameter_name, self.name)
        blob.data_memory = blob._own = blob.weights = self.weights  # type: ignore[assignment]
        blob.diff_memory, blob.gradient, blob._view = self.diff_memory, None, self._view
        return blob

    def lie_over(self, other: ParamBlob, shape: tuple[int, ...]) -> None:
        """Use the data and diff of `other` with another shape. The layer's parameter becomes a view of the other's."""
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
        """Update parameters that are views of this blob in other shapes, after its memory was moved."""
        assert self.gradient is not None
        for memory in (self.weights, self.gradient):
            memory.in_c_order()
            memory.tie()

    @property
    def tied(self) -> bool:
        """Whether parameters of other shapes are views of this blob's memory."""
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
        """Store data and diff in C order, as users expect, from the first access on."""
        self.weights.in_c_order()
        if self.gradient is not None and self.parameter.grad is not None:
            self.gradient.in_c_order()

    def reshape(self, *shape: int, **unknown: Any) -> None:
        shape = sizes("reshape", shape, unknown)
        if tuple(shape) != self.shape:
            raise CaffeError(
                f'parameter blob "{self.name}" has shape {self.shape}, which its layer fixes; it cannot become {shape}'
            )
