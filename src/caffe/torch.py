"""Loads a Caffe net as an ordinary `torch.nn.Module`.

    import caffe.torch

    module = caffe.torch.load("deploy.prototxt", "net.caffemodel")
    probabilities = module(images)                        # tensors for the net's inputs, in order or by name
    module.conv1.weight                                   # sub-modules and parameters under the layers' names

The module trains in any PyTorch loop, moves by `.to(...)`, follows `.train()` and `.eval()` (TRAIN and TEST), takes
hooks and is exported by `torch.export`. `caffe.torch.save` writes its weights as a .caffemodel again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from caffe.blob import Blob
from caffe.errors import ArgumentType, CaffeError, InputError, NetError, did_you_mean
from caffe.layers.base import Layer, Source, as_tuple, is_exported, shape_text
from caffe.net import Net
from caffe.net.graph.gradients import loss_with_gradient_of, roots, trace_back
from caffe.net.graph.step import Step
from caffe.net.run.module import module_name
from caffe.proto import caffe_pb2, upgrade
from caffe.proto import weights as weight_files

__all__ = ["Module", "load", "save"]


class Module(nn.Module):
    """A net's layers as sub-modules under their names, and its graph as `forward`.

    `inputs` and `outputs` are the names of inputs and outputs. `shapes` are the input shapes that the net was built
    for; sizes that no layer depends on, such as the batch size, may differ. The tops of data layers are inputs. The
    outputs are the net's outputs, and losses that other layers read. Each layer is called as a module, so its hooks
    run. Parameters with `lr_mult: 0` do not require a gradient. Autograd replaces `Split` layers.
    """

    def __init__(self, net: Net) -> None:
        """Use the layers of `net`. Do not use `net` afterwards."""
        super().__init__()
        self.name = net.name
        self.spec = net.to_proto()
        self.inputs: list[str] = []
        self.outputs: list[str] = list(net.outputs)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.loss_weights: dict[str, float] = {}
        self._calls: list[tuple[str, list[str], list[bool], list[str], dict[str, int]]] = []
        self._tied = [entry.blob for entry in net.learnable if entry.blob.tied]
        names = _names(net)
        last = {blob: name for step, own in zip(net.steps, names, strict=True) for blob, name in own.items()}
        self._roots = {last[blob]: weight for blob, weight in roots(_wanting_all(net)).items()}
        used = set(dir(self))  # names that a layer's module cannot have
        for step, own in zip(net.steps, names, strict=True):
            layer, tops = step.layer, step.top_names
            weights = dict(zip(own.values(), step.loss_weights, strict=True))
            named = {name: index for index, (name, weight) in enumerate(weights.items()) if weight}
            self.loss_weights.update({name: weights[name] for name in named})
            if isinstance(layer, Source) and not step.bottoms:
                layer.close()
                self.inputs += tops
                self.shapes.update({name: blob.shape for name, blob in zip(tops, step.tops, strict=True)})
                continue
            module = "" if layer.splits else module_name(layer.name, used)
            if module:
                self.add_module(module, layer)
            cut = [not way for way in layer.spec.propagate_down] or [False] * len(step.bottoms)
            self._calls.append((module, step.bottom_names, cut, tops, named))
        self.outputs = [name for name in self.outputs if name not in self.inputs] or self.outputs
        self.outputs += [name for name in {**self.loss_weights, **self._roots} if name not in self.outputs]
        for entry in net.learnable:
            if isinstance(entry.tensor, nn.Parameter):
                entry.tensor.requires_grad_(entry.lr_mult != 0)
                entry.tensor.grad = None

    if TYPE_CHECKING:  # the prototxt determines which attributes exist, such as module.conv1.weight

        def __getattr__(self, name: str) -> Any: ...

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The output's tensor; a dictionary of them if the net has several outputs."""
        with _quiet_trace():
            values = self.blobs(*args, **kwargs)
        if len(self.outputs) == 1:
            return values[self.outputs[0]]
        return {name: values[name] for name in self.outputs}

    def blobs(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """All blobs as tensors by name, with the values after in-place layers.

        A loss that another layer then modifies in place is included as "BLOB of LAYER".
        """
        if is_exported():
            self._check_exported()
        values = self._given(args, kwargs)
        for name, bottoms, cut, tops, named in self._calls:
            reads = [values[b].detach() if stop else values[b] for b, stop in zip(bottoms, cut, strict=True)]
            made = as_tuple(self._call(name, bottoms, reads)) if name else reads * len(tops)
            values.update(zip(tops, made, strict=True))
            values.update({loss: made[index] for loss, index in named.items()})
        return values

    def total_loss(self, outputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the net's losses, computed from the result of `forward`.

        Value and gradient equal Caffe's. If the prototxt gives no weight to a loss, and another layer computes its
        gradient, the loss contributes its value, and its gradient is the one from that layer.
        """
        named = {self.outputs[0]: outputs} if isinstance(outputs, Tensor) else outputs
        loss = _weighted(named, self.loss_weights)
        if loss is None:
            raise NetError(f'net "{self.name}" has no loss among its outputs {self.outputs}; compute one of your own')
        if self._roots == self.loss_weights:
            return loss
        root = _weighted(named, self._roots)
        return loss.detach() if root is None else loss_with_gradient_of(loss, root)

    def _given(self, args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        if len(args) > len(self.inputs) or len(values) < len(args) + len(kwargs) or set(values) != set(self.inputs):
            unknown = [name for name in kwargs if name not in self.inputs]
            hint = did_you_mean(unknown[0], self.inputs) if unknown else ""
            given = [f"{len(args)} tensors", *kwargs]
            raise NetError(f'net "{self.name}" takes the inputs {self.inputs}, but was given {", ".join(given)}{hint}')
        for name, value in values.items():
            if not isinstance(value, Tensor):
                way = "; torch.from_numpy(array) makes one" if type(value).__module__ == "numpy" else ""
                raise ArgumentType(f'input "{name}" is {_kind(value)}, expected a torch.Tensor{way}')
        return values

    def _call(self, name: str, bottoms: Sequence[str], reads: Sequence[Tensor]) -> Any:
        """Run a layer. An exception of torch is raised as an error that names the layer and its inputs."""
        layer = self.get_submodule(name)
        if torch.compiler.is_compiling():  # the compiler relies on torch's own errors
            return layer(*reads)
        try:
            return layer(*reads)
        except (CaffeError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            fact = self._blame(layer, bottoms, reads, error)
            raise InputError(fact).at(getattr(layer, "name", None)) from error

    def _blame(self, layer: nn.Module, bottoms: Sequence[str], reads: Sequence[Tensor], error: Exception) -> str:
        given = ", ".join(f'"{blob}" {shape_text(x.shape)} {_type(x)}' for blob, x in zip(bottoms, reads, strict=True))
        built = ", ".join(f'"{name}" {shape_text(shape)}' for name, shape in self.shapes.items())
        own = next((_type(parameter) for parameter in layer.parameters()), _type(torch.empty(0)))
        wrong = [blob for blob, x in zip(bottoms, reads, strict=True) if _type(x) != own]
        way = f'; give "{wrong[0]}" as torch.{own}, on the device of the module' if wrong else ""
        text = str(error).partition("\n")[0]
        return (
            f'layer "{getattr(layer, "name", "")}" ({type(layer).__name__}) cannot run on the bottoms {given}: {text}; '
            f"the net was built for the inputs {built or 'none'}{way}"
        )

    def _check_exported(self) -> None:
        """Raise a `NetError` for a layer that cannot be exported as a graph of torch's operators."""
        for layer in self.children():
            if isinstance(layer, Layer) and layer.effects_now.needs_calls:
                raise NetError(
                    f'layer "{layer.name}" ({layer.type}) cannot be exported: it needs values on the host, or does '
                    "more than torch's operators; export the part of the net before or after it"
                )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Module:
        super()._apply(fn, recurse)
        for blob in self._tied:  # parameters shared under another shape are views of their owners
            blob.tie()
        return self


def _kind(value: Any) -> str:
    """`a numpy.ndarray`."""
    module = type(value).__module__
    return f"a {type(value).__name__}" if module == "builtins" else f"a {module}.{type(value).__name__}"


def _type(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


@contextmanager
def _quiet_trace() -> Iterator[None]:
    """A context without warnings of `torch.jit.trace` about constant sizes, which the prototxt determines."""
    if not torch.jit.is_tracing():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        yield


def _names(net: Net) -> list[dict[Blob, str]]:
    """For each step, a name for each top: the blob's name, unless a later step writes a blob of that name."""
    latest = {name: step for step in net.steps for name in step.top_names}
    return [
        {blob: blob.name if latest[blob.name] is step else f"{blob.name} of {step.layer.name}" for blob in step.tops}
        for step in net.steps
    ]


def _wanting_all(net: Net) -> list[Step]:
    """The net's steps as if every blob needed a gradient, except where propagate_down is false."""
    steps = []
    for step in net.steps:
        needs = list(step.layer.spec.propagate_down) or [True] * len(step.bottoms)
        steps.append(replace(step, backward=True, needs=needs))
    trace_back(steps)
    return steps


def _weighted(values: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor | None:
    """The sum of those of the values that have a weight, each with its weight; None if there is none."""
    parts = [weight * values[name].sum() for name, weight in weights.items() if name in values]
    return torch.stack(parts).sum() if parts else None


def load(
    prototxt: str | Path | Any,
    weights: str | Path | None = None,
    phase: int = caffe_pb2.TEST,
    shapes: Mapping[str, Sequence[int]] | None = None,
    stages: Sequence[str] = (),
    python_layers: bool | None = None,
) -> Module:
    """Load a prototxt (or NetParameter), with the weights of a .caffemodel or .h5 file, as a PyTorch module.

    `phase` selects the layers and the initial training mode of the module. Data layers do not run: their tops are
    inputs of the module. If `shapes` gives the shapes of these tops, the data is not even opened. `python_layers` is as
    in `Net`. Raises FileError, ProtoError, NetError and LayerError.
    """
    param = upgrade.read_net(prototxt) if isinstance(prototxt, (str, Path)) else prototxt
    if shapes:
        param = _with_inputs(param, shapes)
    net = Net(param, phase, stages=stages, weights=weights, device="cpu", python_layers=python_layers)
    module = Module(net)
    module.train(phase == caffe_pb2.TRAIN)
    return module


def save(module: Module, path: str | Path) -> None:
    """Write the module's net and weights as a .caffemodel; atomically."""
    arrays = {}
    layers = {layer.name: layer for layer in module.children() if isinstance(layer, Layer)}
    for spec in module.spec.layer:
        if spec.name in layers and layers[spec.name].tensors:
            arrays[spec.name] = [tensor.detach().cpu().numpy() for tensor in layers[spec.name].tensors]
    weight_files.write(path, module.spec, arrays)


def _with_inputs(param: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Replace the layers without bottoms that produce the blobs `shapes` by Input layers."""
    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(param)
    made = set()
    for layer in changed.layer:
        if layer.bottom or not any(top in shapes for top in layer.top):
            continue
        if missing := [top for top in layer.top if top not in shapes]:
            raise NetError(f'shapes has no "{missing[0]}", which layer "{layer.name}" makes with {list(layer.top)}')
        made.update(layer.top)
        kept = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
        kept.include.extend(layer.include)
        kept.exclude.extend(layer.exclude)
        for top in layer.top:
            kept.input_param.shape.add(dim=shapes[top])
        layer.CopyFrom(kept)
    if unknown := [name for name in shapes if name not in made]:
        tops = [top for layer in param.layer if not layer.bottom for top in layer.top]
        raise NetError(f'no layer without bottoms makes "{unknown[0]}"{did_you_mean(unknown[0], tops)}')
    return changed
