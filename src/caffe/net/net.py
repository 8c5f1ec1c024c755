"""Net: a graph of layers that runs layer by layer, with every blob and gradient in sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe import log, mode
from caffe.blob import Blob, ParamBlob
from caffe.errors import CaffeError, LayerError, NetError, did_you_mean
from caffe.layers.base import Layer, Source, as_tuple
from caffe.net import debug, store
from caffe.net.build import Learnable, Step, build, infer_tops, parameter_blobs, tie
from caffe.net.graph import filter_net, insert_splits
from caffe.net.module import NetModule
from caffe.proto import caffe_pb2, text, upgrade

__all__ = ["Net"]


class Net:
    """A net built from a prototxt.

        net = Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")
        net.blobs["data"].data[...] = image
        probabilities = net.forward()["prob"]

    `network` is a path or a NetParameter. `phase` is caffe.TRAIN or caffe.TEST; `level` and `stages` select layers by
    their include and exclude rules. Files of the older V0 and V1 formats are upgraded. Raises FileError, ProtoError,
    NetError and LayerError, with file and line where they are known.

    Two runners share the layers and parameters: `forward` and `backward` run layer by layer and fill every blob and
    diff; `forward_backward` runs the graph as one piece (NetModule), and keeps the diffs of parameters only, unless
    `keep_diffs` is set.
    """

    def __init__(
        self,
        network: str | Path | Any,
        phase: int | str | None = None,
        level: int | None = None,
        stages: Sequence[str] | int | None = None,
        weights: str | Path | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if isinstance(phase, (str, Path)):  # pycaffe's older order: Net(file, weights, phase)
            weights, phase, level = phase, level, None
        param, self.path = _load(network)
        if phase is not None:
            param.state.phase = phase
        if level is not None:
            param.state.level = level
        if stages is not None:
            param.state.stage.extend([stages] if isinstance(stages, str) else stages)
        self.device = torch.device(device) if device is not None else mode.device()
        self._build(param)
        self.debug_info: bool = param.debug_info
        self.keep_diffs = False
        self._module: NetModule | None = None
        self.callbacks: dict[str, list[Callable[[int], Any]]] = {
            f"{when}_{what}": [] for when in ("before", "after") for what in ("forward", "backward")
        }
        if weights is not None:
            for path in str(weights).split(","):
                self.copy_from(path)

    def _build(self, param: Any) -> None:
        upgrade.check_modern(param, str(self.path or ""))
        filtered, indices = filter_net(param)
        log.info("net.cpp:53", f"Initializing net from parameters: \n{text.dumps(filtered)}")
        split = insert_splits(filtered)
        origin = _origins(filtered, split, indices)

        def locate(index: int) -> str:
            if self.path is None:
                return ""
            at = origin[index]
            line = None if at is None else text.layer_line(self.path, at, split.layer[index].name)
            return f"{self.path}:{line}" if line else str(self.path)

        graph = build(split, self.device, locate)
        self.name: str = param.name
        self.phase: int = param.state.phase
        self.steps: list[Step] = graph.steps
        self.layers: list[Layer] = [step.layer for step in graph.steps]
        self.layer_names: list[str] = [layer.name for layer in self.layers]
        self.blobs: OrderedDict[str, Blob] = OrderedDict((blob.name, blob) for blob in graph.blobs)
        self.inputs: list[str] = graph.inputs
        self.outputs: list[str] = graph.outputs
        self.learnable: list[Learnable] = graph.learnable
        self._aliases = graph.aliases
        self._refresh_params()
        log.info("net.cpp:257", "Network initialization done.")

    # -- views -----------------------------------------------------------------------------------------------------

    @property
    def layer_dict(self) -> OrderedDict[str, Layer]:
        """Layers by name."""
        return OrderedDict(zip(self.layer_names, self.layers, strict=True))

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's tops."""
        return OrderedDict((step.layer.name, step.top_names) for step in self.steps)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's bottoms, with those of automatic splits."""
        return OrderedDict((step.layer.name, step.bottom_names) for step in self.steps)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """What each blob counts in the net's loss; 0 for most."""
        weights = OrderedDict((name, 0.0) for name in self.blobs)
        for step in self.steps:
            weights.update({name: w for name, w in zip(step.top_names, step.loss_weights, strict=True) if w})
        return weights

    @property
    def sources(self) -> dict[str, Source]:
        """The layers that bring data in, by name."""
        return {layer.name: layer for layer in self.layers if isinstance(layer, Source)}

    @property
    def module(self) -> NetModule:
        """The same graph as one `torch.nn.Module`, over the same parameters."""
        if self._module is None:
            self._module = NetModule(self.steps, self.name)
        return self._module

    # -- running ---------------------------------------------------------------------------------------------------

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """Run the layers from `start` to `end`, both included; by default all.

        Keyword arguments are arrays for the net's inputs. Returns the output blobs' arrays (all inputs must then be
        named or set), or the tops of `end`, and those named in `blobs`.
        """
        if inputs:
            self._feed(inputs)
        first = self._index(start) if start is not None else 0
        last = self._index(end) if end is not None else len(self.steps) - 1
        names = self.steps[last].top_names if end is not None else self.outputs
        self._forward_steps(first, last)
        return {name: self.blobs[name].data for name in [*names, *(blobs or [])]}

    def forward_loss(self) -> float:
        """Run all layers; returns the loss: each top with a loss weight, summed and weighted."""
        return self._forward_steps(0, len(self.steps) - 1)

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **tops: Any
    ) -> dict[str, np.ndarray]:
        """Run backward from layer `start` down to `end`, both included; by default all.

        Keyword arguments are arrays for the diffs of output blobs. Blob diffs are overwritten, parameter diffs added
        to. Returns the diffs of the net's inputs, or of the bottoms of `end`, and those named in `diffs`.
        """
        for name, value in tops.items():
            self._blob(name).diff[...] = value
        first = self._index(start) if start is not None else len(self.steps) - 1
        last = self._index(end) if end is not None else 0
        names = self.steps[last].bottom_names if end is not None else self.inputs
        for index in range(first, last - 1, -1):
            self._call("before_backward", index)
            self.backward_step(index)
            self._call("after_backward", index)
        if self.debug_info and start is None and end is None:
            debug.log_norms(self.learnable)
        return {name: self.blobs[name].diff for name in [*names, *(diffs or [])]}

    def forward_backward(self) -> float:
        """One pass forward and backward for training; returns the loss and adds to the parameter diffs."""
        if self.debug_info or self.keep_diffs or any(self.callbacks.values()):
            loss = self.forward_loss()
            self.backward()
            return loss
        return self.module.forward_backward()

    def evaluate(self) -> float:
        """One pass forward without gradients, as one piece where nobody watches the layers; returns the loss."""
        if self.debug_info or any(self.callbacks.values()):
            return self.forward_loss()
        return self.module.evaluate()

    def _forward_steps(self, first: int, last: int) -> float:
        losses = []
        for index in range(first, last + 1):
            self._call("before_forward", index)
            losses += self.forward_step(index)
            self._call("after_forward", index)
        return float(sum(loss.item() for loss in losses))

    def forward_step(self, index: int) -> list[torch.Tensor]:
        """Run one layer forward and fill its tops; returns its weighted losses."""
        step = self.steps[index]
        tops = run_step(step)
        losses = []
        for blob, top, weight in zip(step.tops, tops, step.loss_weights, strict=True):
            blob.tensor = top.detach()
            blob.stale = False
            if weight:
                losses.append(weight * top.detach().sum())
        if self.debug_info:
            debug.log_forward(step)
        return losses

    def backward_step(self, index: int) -> None:
        """Run one layer backward: overwrite its bottoms' diffs, add to its parameters' diffs."""
        step = self.steps[index]
        if not step.backward:
            return
        for bottom, need in enumerate(step.needs):
            if need and bottom in step.layer.constant:
                step.layer.error(
                    f"has no gradient for {step.layer.bottom_name(bottom)}, but the net asks for one; write "
                    "propagate_down: false for that bottom, or leave out force_backward"
                )
        if step.record is None:
            if step.fused:
                step.layer.error(
                    "cannot run backward by itself: the last run was one of the whole net, which keeps no layer's "
                    "history; run net.forward() before net.backward()"
                )
            run_step(step)
        assert step.record is not None
        bottoms, tops = step.record
        pairs = [(top, blob.grad) for top, blob in zip(tops, step.tops, strict=True) if top.requires_grad]
        wanted = [x for x, need in zip(bottoms, step.needs, strict=True) if need]
        targets = [blob for blob, need in zip(step.bottoms, step.needs, strict=True) if need]
        grads: Sequence[torch.Tensor | None] = [None] * (len(wanted) + len(step.params))
        if pairs:
            with torch.autograd.set_multithreading_enabled(False):
                grads = torch.autograd.grad(
                    [top for top, _ in pairs],
                    [*wanted, *step.params],
                    [diff for _, diff in pairs],
                    retain_graph=True,
                    allow_unused=True,
                )
        for blob, grad in zip(targets, grads, strict=False):
            blob.grad = torch.zeros_like(blob.tensor) if grad is None else grad
        for param, grad in zip(step.params, grads[len(wanted) :], strict=True):
            if param.grad is None:
                param.grad = torch.zeros_like(param, requires_grad=False)
            if grad is not None:
                param.grad.data.add_(grad)
        if self.debug_info:
            debug.log_backward(step)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for entry in self.learnable:
            if entry.tensor.grad is not None:
                entry.tensor.grad.zero_()

    def reshape(self) -> None:
        """Give every blob the shape that follows from the present shapes of the inputs."""
        for step in self.steps:
            if isinstance(step.layer, Source):
                continue
            for blob, shape in zip(step.tops, infer_tops(step), strict=True):
                if blob.shape != shape:
                    blob.reshape(*shape)

    # -- weights ---------------------------------------------------------------------------------------------------

    def copy_from(self, path: str | Path) -> None:
        """Load the weights of layers with equal names from a .caffemodel or HDF5 file; other layers keep theirs."""
        store.copy_from(self, path)

    load_hdf5 = copy_from

    def save(self, path: str | Path, diffs: bool = False) -> None:
        """Write the net with its weights as a .caffemodel; atomically."""
        store.save(self, path, diffs)

    def save_hdf5(self, path: str | Path, diffs: bool = False) -> None:
        """Write the weights as HDF5, in Caffe's layout; atomically."""
        store.save_hdf5(self, path, diffs)

    def to_proto(self) -> Any:
        """The NetParameter of the net as it runs: filtered, with automatic splits, without weights."""
        param = caffe_pb2.NetParameter(name=self.name)
        for layer in self.layers:
            spec = param.layer.add()
            spec.CopyFrom(layer.spec)
            spec.ClearField("blobs")
            if "(automatic)" in spec.top:
                spec.top[:] = [name for name in spec.top if name != "(automatic)"]
        return param

    def share_with(self, other: Net) -> None:
        """Use the parameters of the layers of `other` that have the same names: one memory for both nets."""
        mine, changed = self.layer_dict, False
        for theirs in other.layers:
            layer = mine.get(theirs.name)
            if layer is None:
                log.info("net.cpp:677", f"Ignoring source layer {theirs.name}")
                continue
            store.check_blobs(layer, layer.blobs, [tuple(b.shape) for b in theirs.blobs], str(other.path or other.name))
            for name, blob in zip(layer._blob_names, theirs.blobs, strict=True):
                changed = changed or getattr(layer, name) is not blob
                setattr(layer, name, blob)
        if changed:
            self._refresh_params()
            self._module = None

    def retie(self) -> None:
        """Point parameters shared under another shape at their owners' memory again, after that was moved."""
        for alias, owner in self._aliases:
            tie(alias, owner, tuple(alias.shape))

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Give the net's MemoryData layer its arrays: data (N, C, H, W) and labels (N, 1, 1, 1)."""
        for source in self.sources.values():
            if source.type == "MemoryData":
                source.set_arrays(data, labels)
                return
        raise NetError(f'net "{self.name}": set_input_arrays needs a MemoryData layer, and the net has none')

    def close(self) -> None:
        """Stop data threads and close files."""
        for source in self.sources.values():
            source.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _refresh_params(self) -> None:
        self.params: OrderedDict[str, list[ParamBlob]] = OrderedDict(
            (layer.name, parameter_blobs(layer)) for layer in self.layers if layer.blobs
        )

    def _feed(self, inputs: Mapping[str, Any]) -> None:
        if set(inputs) != set(self.inputs):
            raise NetError(f"forward was given the inputs {sorted(inputs)}, but the net has {sorted(self.inputs)}")
        for name, value in inputs.items():
            array, blob = np.asarray(value), self.blobs[name]
            if array.shape[:1] != blob.shape[:1]:
                raise NetError(f'input "{name}" has {array.shape[:1]} rows, the blob holds {blob.shape[:1]}')
            blob.data[...] = array

    def _index(self, layer_name: str) -> int:
        try:
            return self.layer_names.index(layer_name)
        except ValueError:
            hint = did_you_mean(layer_name, self.layer_names)
            raise NetError(f'the net has no layer "{layer_name}"{hint}') from None

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f'the net has no blob "{name}"{did_you_mean(name, self.blobs)}')
        return self.blobs[name]

    def _call(self, event: str, index: int) -> None:
        for callback in self.callbacks[event]:
            callback(index)


def run_step(step: Step) -> tuple[torch.Tensor, ...]:
    """The tops of one layer for the present data of its bottoms; keeps autograd's history where backward needs it."""
    layer = step.layer
    bottoms = [blob.tensor for blob in step.bottoms]
    if step.backward:
        bottoms = [x.detach().requires_grad_(need) for x, need in zip(bottoms, step.needs, strict=True)]
    try:
        with torch.set_grad_enabled(step.backward):
            tops = layer.forward(*bottoms)
    except CaffeError:
        raise
    except RuntimeError as error:
        shapes = ", ".join(f'"{blob.name}" {blob.shape}' for blob in step.bottoms)
        raise LayerError(f'layer "{layer.name}" ({layer.type}): {error} (bottoms: {shapes})') from error
    tops = tuple(blob.tensor for blob in step.tops) if tops is None else as_tuple(tops)
    step.record = (bottoms, list(tops)) if step.backward else None
    step.fused = False
    return tops


def _origins(filtered: Any, split: Any, indices: Sequence[int]) -> list[int | None]:
    """For each layer of `split` its index in the file; None for an automatic Split."""
    given = iter(zip(filtered.layer, indices, strict=True))
    origins: list[int | None] = []
    following = next(given, None)
    for layer in split.layer:
        if following is not None and (layer.name, layer.type) == (following[0].name, following[0].type):
            origins.append(following[1])
            following = next(given, None)
        else:
            origins.append(None)
    return origins


def _load(network: str | Path | Any) -> tuple[Any, Path | None]:
    if isinstance(network, (str, Path)):
        return upgrade.read_net(network), Path(network)
    param = caffe_pb2.NetParameter()
    param.CopyFrom(network)
    upgrade.upgrade_net(param, "NetParameter")
    return param, None
