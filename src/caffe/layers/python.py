"""Layers that users write in Python with numpy, as pycaffe runs them."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from caffe.blob import Blob
from caffe.errors import CaffeError, LayerError, did_you_mean
from caffe.layers.base import Layer, has_values

__all__ = ["PythonLayer"]


class PythonLayer:
    """Base of a user's layer for `type: "Python"`; users know it as `caffe.Layer`.

        setup(bottom, top)                      once: read param_str, check counts, self.blobs.add_blob(2, 3)
        reshape(bottom, top)                    before every forward: top[0].reshape(*bottom[0].data.shape)
        forward(bottom, top)                    top[0].data[...] = ...
        backward(top, propagate_down, bottom)   bottom[0].diff[...] = ... where propagate_down[0]

    `bottom` and `top` are lists of `caffe.blob.Blob`. `self` has `param_str` (also as `param_str_`), `phase` and
    `blobs`, the learnable parameters; their `diff` is zero at each backward, and what it then holds is added up.
    """

    type = "Python"
    param_str: str
    param_str_: str
    phase: int
    share_in_parallel: bool
    blobs: BlobList

    def __init__(self, *_: Any) -> None:
        pass

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Prepare the layer; called once."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the tops' data."""
        raise NotImplementedError(f"{type(self).__name__} has no method forward(bottom, top)")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottoms' diffs from the tops'."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method backward(top, propagate_down, bottom), but the net asks for its "
            "gradient; write it, or propagate_down: false for each bottom"
        )


class BlobList(list[Blob]):
    """A user layer's parameters."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros."""
        self.append(Blob(*shape))


class Python(Layer, bottoms=(0, None), tops=(0, None)):
    """Runs `layer`, a class of the Python file or package `module`, that derives from `caffe.Layer`.

    bottoms and tops: any number, of the shapes that the class gives

    The module is looked for on sys.path, which has $PYTHONPATH, and then in the working directory. An error inside the
    class becomes a LayerError that names the layer and the line; the class's own exception is its cause.
    Source: BVLC python_layer.hpp.
    """

    source: str | None = None  # the file of the user's class
    uncompiled: ClassVar[Callable[[Python, tuple[Tensor, ...]], tuple[Tensor, ...]]]

    def setup(self, *bottoms: Tensor) -> None:
        cls = self._find()
        self.source = inspect.getsourcefile(cls)
        self.label = f"{self.opt.module}.{self.opt.layer}"
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        fact = (
            "share_in_parallel: true needs one process for all devices; here each process has its own layer: remove it"
        )
        self.require(alone or not self.opt.share_in_parallel, fact)
        self.user: PythonLayer = self._call("__init__", cls, self.spec)
        self.user.param_str = self.user.param_str_ = self.opt.param_str
        self.user.phase, self.user.share_in_parallel = self.phase, self.opt.share_in_parallel
        self.user.blobs = BlobList()
        self.bottom_blobs = [Blob(*x.shape, name=name) for x, name in zip(bottoms, self.spec.bottom, strict=True)]
        self.top_blobs = [
            self.bottom_blobs[i] if i < len(bottoms) and name == self.spec.bottom[i] else Blob(name=name)
            for i, name in enumerate(self.spec.top)
        ]
        self._call("setup", self.user.setup, self.bottom_blobs, self.top_blobs)
        self._adopt()
        if Python.uncompiled is Python._forward:
            Python.uncompiled = staticmethod(torch.compiler.disable(Python._forward))  # takes a second to import

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        for blob, x in zip(self.bottom_blobs, bottoms, strict=True):
            blob.reshape(*x.shape)
        self._call("reshape", self.user.reshape, self.bottom_blobs, self.top_blobs)
        self._adopt()
        return tuple(torch.empty(blob.shape, device="meta") for blob in self.top_blobs)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return self.uncompiled(self, bottoms)

    def _forward(self, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        example = bottoms[0] if bottoms else torch.empty(0)
        if has_values(example):
            return _Run.apply(self, len(bottoms), *bottoms, *self.tensors) if self.top_blobs else self.run(bottoms)
        return tuple(example.new_empty(blob.shape) for blob in self.top_blobs)

    def allocate(self, device: torch.device | str = "cpu") -> None:
        super().allocate(device)
        self.to(device)

    # In pycaffe `net.layers[i]` is the user's object: its attributes and methods are reached through this layer too.

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "user" not in self.__dict__:
                raise
            return getattr(self.user, name)

    def __setattr__(self, name: str, value: Any) -> None:
        user = self.__dict__.get("user")
        if user is not None and name not in self.__dict__ and name in vars(user):
            setattr(user, name, value)
        else:
            super().__setattr__(name, value)

    def run(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The user's reshape and forward."""
        kind = bottoms[0] if bottoms else torch.empty(0)
        for blob in self.top_blobs:
            if blob.tensor.dtype != kind.dtype:
                blob.tensor = blob.tensor.to(kind.dtype)
        for blob, x in zip(self.bottom_blobs, bottoms, strict=True):
            in_place = any(blob is top for top in self.top_blobs)
            blob.tensor = x.detach().clone() if in_place else x.detach().cpu()
        self._lend_parameters()
        self._call("reshape", self.user.reshape, self.bottom_blobs, self.top_blobs)
        self._call("forward", self.user.forward, self.bottom_blobs, self.top_blobs)
        return tuple(blob.tensor.to(kind.device, copy=True) for blob in self.top_blobs)

    def run_backward(self, top_grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
        """The user's backward; `needs` tells for each bottom and then each parameter whether its gradient is wanted."""
        self._lend_parameters()
        for blob in [*self.bottom_blobs, *self.user.blobs]:
            blob.grad = torch.zeros_like(blob.tensor)
        for blob, grad in zip(self.top_blobs, top_grads, strict=True):
            blob.grad = grad.detach().to("cpu", copy=True)
        wanted = [bool(need) for need in needs[: len(self.bottom_blobs)]]
        self._call("backward", self.user.backward, self.top_blobs, wanted, self.bottom_blobs)
        device = top_grads[0].device
        pairs = zip([*self.bottom_blobs, *self.user.blobs], needs, strict=True)
        return [blob.grad.to(device, copy=True) if need else None for blob, need in pairs]

    def _lend_parameters(self) -> None:
        for blob, parameter in zip(self.user.blobs, self.tensors, strict=True):
            blob.tensor = parameter.detach().cpu()

    def _adopt(self) -> None:
        """Make parameters of the blobs that the user's code has added, with the values that it gave them."""
        for index in range(len(self._blob_names), len(self.user.blobs)):
            blob = self.user.blobs[index]
            self.add_blob(f"blob{index}", blob.shape)
            setattr(self, f"blob{index}", nn.Parameter(blob.tensor))

    def _find(self) -> type[PythonLayer]:
        """The user's class."""
        module_name, class_name = self.opt.module, self.opt.layer
        self.require(bool(module_name and class_name), "needs python_param { module: ... layer: ... }")
        if "" not in sys.path:
            sys.path.append("")
        importlib.invalidate_caches()
        self.label = module_name
        module = self._call("import", self._import, module_name)
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        fact = f'module "{module_name}" ({getattr(module, "__file__", None)}) has no class "{class_name}"'
        self.require(class_name in classes, f"{fact}{did_you_mean(class_name, classes)}")
        cls = getattr(module, class_name)
        self.require(issubclass(cls, PythonLayer), f"class {module_name}.{class_name} must derive from caffe.Layer")
        return cls

    def _import(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            places = f"the working directory ({os.getcwd()}), $PYTHONPATH and the installed packages"
            raise LayerError(
                f'layer "{self.name}" (Python): no module "{name}"; looked in {places}; put {name}.py there'
            ) from error

    def _call(self, action: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the user's code; an exception becomes a LayerError that names the layer and the place."""
        try:
            return function(*arguments)
        except CaffeError:
            raise
        except Exception as error:
            self._blame(action, error)

    def _blame(self, action: str, error: Exception) -> NoReturn:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        frames = [frame for frame in frames if "importlib" not in frame.filename]
        frames = [frame for frame in frames if frame.filename == self.source] or frames
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        raise LayerError(
            f'layer "{self.name}" (Python): {action} of {self.label} failed{place}: {type(error).__name__}: {error}'
        ) from error


Python.uncompiled = staticmethod(Python._forward)


class _Run(torch.autograd.Function):
    """One run of a user's layer as a node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, layer: Python, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.layer = layer
        return layer.run(tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, None, *ctx.layer.run_backward(grads, ctx.needs_input_grad[2:])
