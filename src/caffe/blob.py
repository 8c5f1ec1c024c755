"""Blob: the N-dimensional array that Caffe passes between layers, as two torch tensors seen through numpy."""

from __future__ import annotations

import math
import weakref
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from caffe.errors import CaffeError
from caffe.writes import writes_of

__all__ = ["Blob", "ParamBlob", "clear_diff", "diff_of", "promise_diff", "settle_diff"]

_NARROW = (torch.bfloat16, torch.float16)


class _Half:
    """One of a blob's two arrays: a tensor, and the numpy array that a user may hold of it.

    On the CPU the array aliases the tensor. On another device it is a host copy, and whichever side was handed out or
    written last is the one that counts, as in Caffe's SyncedMemory. A tensor of 16 bits is converted when asked for.
    """

    __slots__ = ("_host", "_host_ahead", "_tensor", "_view")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._view: weakref.ref[np.ndarray] | None = None
        self._host: np.ndarray | None = None
        self._host_ahead = False

    def get(self) -> Tensor:
        """The tensor, as float32, brought up to date with what the user wrote into the host copy."""
        if self._tensor.dtype in _NARROW:
            self._tensor = self._tensor.float()
        if 0 in self._tensor.stride():  # zeros that nobody has asked for yet
            self._tensor = self._tensor.contiguous()
        if self._host_ahead and self._host is not None:
            self._tensor.copy_(torch.from_numpy(self._host))
            self._host_ahead = False
        return self._tensor

    def put(self, value: Tensor) -> None:
        """Make `value` the content: in place where somebody still holds the array, else by taking the tensor over."""
        self._host_ahead = False
        if value is self._tensor:
            return
        if self._view is None:
            self._tensor = value
            return
        view = self._view()
        if view is not None and value.shape == self._tensor.shape:
            self._tensor.copy_(value)
        else:
            self._tensor = value
            self._view = None

    @property
    def held(self) -> bool:
        """Whether somebody may hold an array of the content: on another device than the CPU the host copy counts."""
        return self._host is not None or (self._view is not None and self._view() is not None)

    def numpy(self) -> np.ndarray:
        """A writable array of the content."""
        if not self._host_ahead:
            self.get()
        if self._tensor.device.type != "cpu":
            if not self._host_ahead:
                fresh = self._tensor.cpu().numpy()
                if self._host is not None and self._host.shape == fresh.shape:
                    self._host[...] = fresh
                else:
                    self._host = fresh
            self._host_ahead = True
            assert self._host is not None
            return self._host
        view = self._view() if self._view is not None else None
        if view is None:
            if not self._tensor.is_contiguous():
                self._tensor = self._tensor.contiguous()
            view = self._tensor.numpy()
            self._view = weakref.ref(view)
        return view


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros that take no memory, until a `_Half` is asked for them."""
    return like.new_zeros((), dtype=torch.float32 if like.dtype in _NARROW else like.dtype).expand(shape)


class Blob:
    """An array with its gradient: `data` and `diff`, of any number of axes.

    `data` and `diff` are writable numpy arrays; one that is still held shows the new values after the next run of the
    net. `tensor` and `grad` are the torch tensors behind them.
    """

    __slots__ = ("_data", "_diff", "absent", "name", "stale")

    def __init__(self, *shape: int, name: str = "", device: torch.device | str = "cpu") -> None:
        self._data = _Half(_zeros(torch.zeros((), device=device), shape))
        self._diff: _Half | None = None
        self.name = name
        self.absent = False
        """Whether the last run of the net did not compute the values."""
        self.stale = False

    # -- torch side ------------------------------------------------------------------------------------------------

    @property
    def tensor(self) -> Tensor:
        """The data as a torch tensor without gradient history."""
        if self.absent:
            self._refuse()
        return self._data.get()

    @tensor.setter
    def tensor(self, value: Tensor) -> None:
        self.absent = False
        self._data.put(value)

    def drop(self) -> None:
        """Forget the values and their memory: the run that is done did not compute them. The shape stays."""
        self._data = _Half(_zeros(self._data._tensor, self.shape))
        self.absent = True

    def _refuse(self) -> NoReturn:
        raise CaffeError(
            f'blob "{self.name}": the last run computed only what the outputs need, and not this blob; to have it, '
            f'say net.optimize(keep=["{self.name}"]), in training net.slim(keep=["{self.name}"]) or '
            f'net.compile(keep=["{self.name}"]); or run the net layer by layer: net.stepwise(), net.forward()'
        )

    @property
    def held(self) -> bool:
        """Whether somebody holds the array that `data` returned, or a part of it."""
        return self._data.held

    @property
    def grad(self) -> Tensor:
        """The diff as a torch tensor, zeros if nobody has written it yet."""
        return self._half_diff().get()

    @grad.setter
    def grad(self, value: Tensor) -> None:
        self.stale = False
        if self._diff is None:
            self._diff = _Half(value)
        else:
            self._diff.put(value)

    def forget_diff(self) -> None:
        """Give the diff's memory back; asking for the diff is an error until it is written again."""
        self._diff, self.stale = None, True

    def _half_diff(self) -> _Half:
        if self.stale:
            raise CaffeError(
                f'blob "{self.name}": the last training step, which ran the net as one piece, did not keep its diff; '
                "to see it, run net.forward() and net.backward(), or set net.keep_diffs = True before the step"
            )
        if self._diff is None or self._diff._tensor.shape != self._data._tensor.shape:
            self._diff = _Half(torch.zeros_like(self._data._tensor, memory_format=torch.contiguous_format))
        return self._diff

    # -- numpy side ------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values, a writable float array of `shape`."""
        if self.absent:
            self._refuse()
        return self._data.numpy()

    @property
    def diff(self) -> np.ndarray:
        """The gradient of the loss with respect to `data`, of the same shape."""
        return self._half_diff().numpy()

    # -- shape -----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._data._tensor.shape)

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def reshape(self, *shape: int) -> None:
        """Change the shape; values are kept where the count stays the same, else they are zeros."""
        if any(size < 0 for size in shape):
            raise CaffeError(f'blob "{self.name}": cannot take the shape {tuple(shape)}; every size must be at least 0')
        if tuple(shape) == self.shape:
            return
        same_count = math.prod(shape) == self.count
        self._data = _Half(self._data.get().reshape(shape) if same_count else _zeros(self._data._tensor, shape))
        self._diff = None

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape={self.shape})"


class ParamBlob(Blob):
    """A blob of a layer: its storage is the torch parameter's, its diff is `parameter.grad`."""

    __slots__ = ("parameter",)

    def __init__(self, parameter: Tensor, name: str = "") -> None:
        self.parameter = parameter
        self._data = _Half(parameter.detach())
        self._diff = None
        self.name = name
        self.absent = self.stale = False

    @property
    def tensor(self) -> Tensor:
        return self._current().get()

    @tensor.setter
    def tensor(self, value: Tensor) -> None:
        self.tensor.copy_(value)

    @property
    def grad(self) -> Tensor:
        return self._half_diff().get()

    @grad.setter
    def grad(self, value: Tensor) -> None:
        self.grad.copy_(value)

    @property
    def data(self) -> np.ndarray:
        self._use_c_order()
        half = self._current()
        view = half.numpy()
        writes_of(self.parameter).lend(half)
        return view

    @property
    def diff(self) -> np.ndarray:
        self._use_c_order()
        view = self._half_diff().numpy()
        self.parameter.held_diff = weakref.ref(view)  # type: ignore[attr-defined]
        return view

    def _use_c_order(self) -> None:
        """Lay data and diff out as users expect; from the first look on, this is how they stay."""
        if not self.parameter.is_contiguous():
            self.parameter.data = self.parameter.detach().contiguous()
        if self.parameter.grad is not None and not self.parameter.grad.is_contiguous():
            self.parameter.grad = self.parameter.grad.contiguous()

    def _current(self) -> _Half:
        tensor = self.parameter.detach()
        if self._data._tensor.data_ptr() != tensor.data_ptr():
            self._data = _Half(tensor)
        return self._data

    def _half_diff(self) -> _Half:
        grad = diff_of(self.parameter)
        if self._diff is None or self._diff._tensor.data_ptr() != grad.data_ptr():
            self._diff = _Half(grad)
        return self._diff

    def reshape(self, *shape: int) -> None:
        if tuple(shape) != self.shape:
            raise CaffeError(
                f'parameter blob "{self.name}" has shape {self.shape}, which its layer fixes; it cannot become {shape}'
            )


def diff_of(parameter: Tensor) -> Tensor:
    """A parameter's gradient; what was promised for it, or zeros, where there is none yet."""
    if parameter.grad is None:
        promised = getattr(parameter, "promised_diff", None)
        if promised is None:
            parameter.grad = torch.zeros_like(parameter, requires_grad=False)
        else:
            parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(promised)
    parameter.promised_diff = None  # type: ignore[attr-defined]
    return parameter.grad


def promise_diff(parameter: Tensor, value: Tensor) -> None:
    """Make `value` a parameter's gradient, copied when somebody asks: before `value` changes it must be cleared."""
    if _held(parameter):
        diff_of(parameter).copy_(value)
    else:
        parameter.grad, parameter.promised_diff = None, value  # type: ignore[attr-defined]


def settle_diff(parameter: Tensor) -> None:
    """Copy the gradient that was promised, if any: its source is about to change."""
    if getattr(parameter, "promised_diff", None) is not None:
        diff_of(parameter)


def clear_diff(parameter: Tensor, keep_memory: bool = False) -> None:
    """Make a parameter's gradient zero, by forgetting it where nobody looks: the next one then needs no addition."""
    parameter.promised_diff = None  # type: ignore[attr-defined]
    if parameter.grad is None:
        return
    if keep_memory or not parameter.requires_grad or _held(parameter):
        parameter.grad.zero_()
    else:
        parameter.grad = None


def _held(parameter: Tensor) -> bool:
    """Whether somebody holds the numpy array of the gradient."""
    held = getattr(parameter, "held_diff", None)
    return held is not None and held() is not None
