"""The Python layer, which runs users' layers written with numpy, as pycaffe does."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from caffe import user_code
from caffe.blob import Blob
from caffe.blob_vec import BlobVec
from caffe.errors import CaffeError, LayerError, did_you_mean
from caffe.layers.base import Layer, has_values
from caffe.layers.support.effects import Effects
from caffe.proto import caffe_pb2

__all__ = ["PythonLayer"]


class _EveryLayer(type):
    """Makes `isinstance(layer, caffe.Layer)` true for every layer of a net, as in pycaffe."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (cls is PythonLayer and isinstance(instance, Layer))


class PythonLayer(metaclass=_EveryLayer):
    """Base class of users' layers for `type: "Python"`, exported as `caffe.Layer`.

        setup(bottom, top)                      once: read param_str, check counts, self.blobs.add_blob(2, 3)
        reshape(bottom, top)                    before every forward: top[0].reshape(*bottom[0].data.shape)
        forward(bottom, top)                    top[0].data[...] = ...
        backward(top, propagate_down, bottom)   bottom[0].diff[...] = ... where propagate_down[0]

    `bottom` and `top` are the net's own blobs. An array that the layer stores, such as `bottom[0].data`, shows the data
    of each later run. `self` has `param_str` (also `param_str_`), `phase` and `blobs`, the learnable parameters. Their
    `diff` is set to zero before each backward and accumulated afterwards.
    """

    type = "Python"
    param_str: str
    param_str_: str
    phase: int
    share_in_parallel: bool
    blobs: BlobVec

    def __init__(self, *_: Any) -> None:
        pass

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Prepare the layer; called once."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the data of the tops."""
        raise NotImplementedError(f"{type(self).__name__} has no method forward(bottom, top)")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the diffs of the bottoms from the diffs of the tops."""
        raise NotImplementedError(
            f"{type(self).__name__} has no method backward(top, propagate_down, bottom), but the net asks for its "
            "gradient; write it, or propagate_down: false for each bottom"
        )


class _Phase(int):
    """caffe.TRAIN or caffe.TEST as a number, as in BVLC's Caffe. `str` gives the name, which R-CNN's layers use
    (`cfg[str(self.phase)]`)."""

    def __str__(self) -> str:
        return str(caffe_pb2.Phase.Name(self))


class _UserCode(Layer, abstract=True):
    """A layer that forwards attributes to the user's object: in pycaffe `net.layers[i]` is that object."""

    guest: _Instance
    effects = Effects.CALLS

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "guest" not in self.__dict__:
                raise
            return getattr(self.guest.user, name)

    def __setattr__(self, name: str, value: Any) -> None:
        guest = self.__dict__.get("guest")
        if guest is not None and name not in self.__dict__ and name in vars(guest.user):
            setattr(guest.user, name, value)
        else:
            super().__setattr__(name, value)


class Python(_UserCode, bottoms=(0, None), tops=(0, None)):
    """Runs the class `layer` of the Python module `module`. The class derives from `caffe.Layer`.

    bottoms and tops: any number; the class determines the shapes

    The module is searched on sys.path, which includes $PYTHONPATH, and then in the working directory. An exception in
    the class is raised as a LayerError that names the layer and the line; its `__cause__` is the original exception.
    Source: BVLC python_layer.hpp.
    """

    device = torch.device("cpu")
    _net_blobs: tuple[Sequence[Blob], Sequence[Blob]] | None = None

    def attach(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        self._net_blobs = bottoms, tops

    def setup(self, *bottoms: Tensor) -> None:
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        fact = (
            "share_in_parallel: true needs one process for all devices; here each process has its own layer: remove it"
        )
        self.require(alone or not self.opt.share_in_parallel, fact)
        self.guest = _Instance(self, bottoms)
        self._adopt()
        self.uncompiled = torch.compiler.disable(_tops)  # takes a second to import

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        shapes = self.guest.reshape([x.shape for x in bottoms])
        self._adopt()
        return tuple(torch.empty(shape, device="meta") for shape in shapes)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return self.uncompiled(self, bottoms)

    def allocate(self, device: torch.device | str = "cpu") -> None:
        super().allocate(device)
        self.to(device)
        self.device = torch.device(device)

    def _adopt(self) -> None:
        """Register the blobs that the user's code added as parameters, with their values."""
        for index in range(len(self._blob_names), len(self.guest.user.blobs)):
            blob = self.guest.user.blobs[index]
            self.add_blob(f"blob{index}", blob.shape)
            setattr(self, f"blob{index}", nn.Parameter(blob.tensor.clone()))
            blob.use_data(self.param_blobs[index])


class _Instance:
    """The user's object and the blobs that it reads and writes: the net's, or its own if the layer is not in a net."""

    source: str | None = None  # the file of the user's class

    def __init__(self, layer: Python, bottoms: Sequence[Tensor]) -> None:
        self.layer, spec = layer, layer.spec
        cls = self._find(layer.opt.module, layer.opt.layer)
        self.source = inspect.getsourcefile(cls)
        self.label = f"{layer.opt.module}.{layer.opt.layer}"
        self.user: PythonLayer = self._call("__init__", cls, spec)
        self.user.param_str = self.user.param_str_ = layer.opt.param_str
        self.user.phase, self.user.share_in_parallel = _Phase(layer.phase), layer.opt.share_in_parallel
        self.user.blobs = BlobVec()
        self.bottoms, self.tops = layer._net_blobs or self._own_blobs([x.shape for x in bottoms])
        self._call("setup", self.user.setup, self.bottoms, self.tops)

    def _own_blobs(self, shapes: Sequence[Sequence[int]]) -> tuple[list[Blob], list[Blob]]:
        """Create bottoms of these shapes, and tops."""
        spec = self.layer.spec
        bottoms = [Blob(*shape, name=name) for shape, name in zip(shapes, spec.bottom, strict=True)]
        tops = [
            bottoms[i] if i < len(bottoms) and name == spec.bottom[i] else Blob(name=name)
            for i, name in enumerate(spec.top)
        ]
        return bottoms, tops

    def reshape(self, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The tops' shapes for bottoms of these shapes. Uses temporary blobs if the net's blobs have other shapes."""
        bottoms, tops = self.bottoms, self.tops
        fits = all(blob.shape == tuple(shape) for blob, shape in zip(bottoms, shapes, strict=True))
        if not fits or any(blob.data_memory.missing for blob in (*bottoms, *tops)):
            bottoms, tops = self._own_blobs(shapes)
            for blob, own in zip(tops, self.tops, strict=True):
                if not any(blob is bottom for bottom in bottoms):
                    blob.reshape(*own.shape)
        self._call("reshape", self.user.reshape, bottoms, tops)
        return [blob.shape for blob in tops]

    def forward(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run the user's reshape and forward. Returns copies of the tops."""
        kind = bottoms[0] if bottoms else torch.empty(0, device=self.layer.device)
        for blob, x in zip(self.bottoms, bottoms, strict=True):
            if any(blob is top for top in self.tops):
                blob.write(x.detach().clone())
            elif not blob.data_memory.holds(x):
                blob.write(x.detach(), private=not x._is_view(), foreign=blob.data_memory.lies_in(x))
        for blob in self.tops:
            memory = blob.data_memory
            if memory.missing or (memory.raw.dtype != kind.dtype and memory.raw.dtype.is_floating_point):
                blob.write(kind.new_zeros(blob.shape))
        self._take_parameters()
        self._call("reshape", self.user.reshape, self.bottoms, self.tops)
        self._call("forward", self.user.forward, self.bottoms, self.tops)
        return tuple(blob.read().to(kind.device, copy=True) for blob in self.tops)

    def backward(self, top_grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
        """Run the user's backward. `needs` says for each bottom, then each parameter, if its gradient is needed."""
        self._take_parameters()
        for blob in [*self.bottoms, *self.user.blobs]:
            blob.write_diff(torch.zeros_like(blob.read(), memory_format=torch.contiguous_format))
        for blob, grad in zip(self.tops, top_grads, strict=True):
            blob.write_diff(grad.detach().clone())
        wanted = [bool(need) for need in needs[: len(self.bottoms)]]
        self._call("backward", self.user.backward, self.tops, wanted, self.bottoms)
        pairs = zip([*self.bottoms, *self.user.blobs], needs, strict=True)
        return [blob.read_diff().clone() if need else None for blob, need in pairs]

    def _take_parameters(self) -> None:
        """Point the user's blobs to the layer's parameters, which may since be shared with another net."""
        for blob, parameter in zip(self.user.blobs, self.layer.param_blobs, strict=True):
            blob.use_data(parameter)

    def _find(self, module_name: str, class_name: str) -> type[PythonLayer]:
        """Import the user's class."""
        require = self.layer.require
        require(bool(module_name and class_name), "needs python_param { module: ... layer: ... }")
        if "" not in sys.path:
            sys.path.append("")
        importlib.invalidate_caches()
        self.label = module_name
        module = self._call("import", self._import, module_name)
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        fact = f'module "{module_name}" ({getattr(module, "__file__", None)}) has no class "{class_name}"'
        require(class_name in classes, f"{fact}{did_you_mean(class_name, classes)}")
        cls = getattr(module, class_name)
        require(issubclass(cls, PythonLayer), f"class {module_name}.{class_name} must derive from caffe.Layer")
        return cls

    def _import(self, name: str) -> Any:
        """Import the module. If it is the running script, return `__main__`, so that its code does not run twice."""
        script = sys.modules["__main__"]
        try:
            if name not in sys.modules and hasattr(script, self.layer.opt.layer) and _is_file_of(script, name):
                return script
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            places = f"the working directory ({os.getcwd()}), $PYTHONPATH and the installed packages"
            raise LayerError(
                f'layer "{self.layer.name}" (Python): no module "{name}"; looked in {places}; put {name}.py there'
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
        place = user_code.place(error, own=(__file__,), source=self.source)
        fact = f"{action} of {self.label} failed{f' ({place})' if place else ''}: {type(error).__name__}: {error}"
        remedy = user_code.remedy(error)
        if not remedy and isinstance(error, ModuleNotFoundError):
            remedy = f"install what has this module for {sys.executable}, or put it on $PYTHONPATH"
        raise LayerError(f'layer "{self.layer.name}" (Python): {"; ".join(filter(None, (fact, remedy)))}') from error


def _is_file_of(script: Any, name: str) -> bool:
    """Whether a module of this name would be loaded from the file of the running script."""
    path = getattr(script, "__file__", None)
    if not path or os.path.splitext(os.path.basename(path))[0] != name:
        return False
    spec = importlib.util.find_spec(name)
    return bool(spec and spec.origin and os.path.exists(path) and os.path.samefile(spec.origin, path))


def _tops(layer: Python, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    guest, example = layer.guest, bottoms[0] if bottoms else torch.empty(0, device=layer.device)
    if not has_values(example):
        return tuple(example.new_empty(blob.shape) for blob in guest.tops)
    if not guest.tops:
        return guest.forward(bottoms)
    return _Run.apply(guest, len(bottoms), *bottoms, *layer.tensors)


class _Run(torch.autograd.Function):
    """One run of a user's layer as a node in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, guest: _Instance, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.guest = guest
        return guest.forward(tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, None, *ctx.guest.backward(grads, ctx.needs_input_grad[2:])
