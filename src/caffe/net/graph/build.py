"""Builds the steps of a net from its NetParameter: layers, blobs, shared parameters and required gradients."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from caffe import log
from caffe.blob import Blob
from caffe.errors import CaffeError, LayerError, NetError
from caffe.layers.base import Layer, Source, shape_text
from caffe.layers.support.types import layer_class
from caffe.limits import unchecked
from caffe.net.graph.gradients import mark_backward
from caffe.net.graph.shapes import infer_tops
from caffe.net.graph.step import Graph, LastRun, Learnable, Step
from caffe.proto import weights
from caffe.proto.forks import effects
from caffe.proto.forks.fields import WITHOUT_EFFECT

__all__ = ["adapting", "build"]

_AUTOMATIC = "(automatic)"
_ADAPTERS: ContextVar[tuple[Callable[[Layer], None], ...]] = ContextVar("adapters", default=())


def build(net: Any, device: torch.device, locate: Callable[[int], str]) -> Graph:
    """Build a net that is already filtered and has its Split layers.

    `locate(i)` gives the file and line of layer i for errors, such as "train.prototxt:41".
    """
    with _no_collection(), unchecked() if device.type == "meta" else nullcontext():
        return _Builder(net, device, locate).graph


@contextmanager
def adapting(adapt: Callable[[Layer], None]) -> Iterator[None]:
    """Call `adapt` with each layer that this thread builds in the block, after the layer's blobs are filled."""
    token = _ADAPTERS.set((*_ADAPTERS.get(), adapt))
    try:
        yield
    finally:
        _ADAPTERS.reset(token)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: a net consists of objects that stay, which each collection would visit again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Builder:
    def __init__(self, net: Any, device: torch.device, locate: Callable[[int], str]) -> None:
        self.graph = Graph()
        self.device = device
        self.latest: dict[str, Blob] = {}  # blob by name
        self.unread: dict[str, Blob] = {}
        self.needs_gradient: set[int] = set()  # ids of blobs
        self.namesakes: dict[str, list[int]] = {}  # indices of the steps by the name of their layer
        self.owners: dict[str, Learnable] = {}
        self.locate = locate
        self.memory = 0
        self.last_run = LastRun()
        for index, spec in enumerate(net.layer):
            try:
                self._add(spec, net.state.phase)
            except CaffeError as error:
                fault = self._without_shape(spec, error)
                raise fault or error.placed(locate(index)) from error.__cause__
        _warn_of_shared_names(self.graph.steps)
        mark_backward(self.graph.steps, net.force_backward)
        self.graph.outputs = sorted(self.unread)
        for name in self.graph.outputs:
            log.info("net.cpp:244", f"This network produces output {name}")

    def _without_shape(self, spec: Any, error: CaffeError) -> CaffeError | None:
        """The error to raise if a layer fails because an Input layer has no shape, so that its bottom has no axes."""
        steps, axes = self.graph.steps, [self.latest[name].shape for name in spec.bottom if name in self.latest]
        inputs = (index for index, step in enumerate(steps) if step.layer.user_fed and not step.layer.opt.shape)
        index = next(inputs, None)
        if index is None or () not in axes:
            return None
        fact = (
            f'layer "{steps[index].layer.name}" (Input): has no shape, and layer "{spec.name}" ({spec.type}) needs one'
        )
        way_out = "write input_param { shape { dim: ... } } with a dim for each axis"
        return LayerError(f"{fact}; {way_out} ({error})").placed(self.locate(index))

    def _add(self, spec: Any, phase: int) -> None:
        log.info("layer_factory.hpp:77", f"Creating layer {spec.name}")
        try:
            cls = layer_class(spec.type)
        except NetError as error:
            raise NetError(f'layer "{spec.name}": {error}') from None
        effects.refuse_layer(spec, cls.honours)
        if len(spec.propagate_down) not in (0, len(spec.bottom)):
            raise LayerError(
                f'layer "{spec.name}" ({spec.type}): propagate_down must be given for no bottom or for each: '
                f"{len(spec.propagate_down)} given, {len(spec.bottom)} bottoms"
            )
        if not spec.HasField("phase"):
            spec.phase = phase
        _warn_of_stray_options(spec, cls)
        named = list(spec.top)
        if cls.auto_tops:
            spec.top.extend([_AUTOMATIC] * (cls.tops[0] - len(spec.top)))
        step = Step(cls(spec, spec.phase), last_run=self.last_run)
        log.info("net.cpp:86", f"Creating Layer {spec.name}")
        self._connect_bottoms(step, spec)
        self._connect_tops(step, spec, named)
        self._set_up(step)
        self._check_name(step.layer)
        self._share_parameters(step, spec)
        step.layer.allocate(self.device)
        self._adopt_stored_blobs(step.layer, spec)
        for adapt in _ADAPTERS.get():
            adapt(step.layer)
        self._learn(step, spec)
        self.graph.steps.append(step)

    # -- blobs -----------------------------------------------------------------------------------------------------

    def _connect_bottoms(self, step: Step, spec: Any) -> None:
        for index, name in enumerate(spec.bottom):
            if name not in self.unread:
                step.layer.error(f'unknown bottom blob "{name}" (bottom index {index})')
            log.info("net.cpp:408", f"{spec.name} <- {name}")
            blob = self.unread.pop(name)
            step.bottoms.append(blob)
            given = id(blob) in self.needs_gradient
            step.needs.append(spec.propagate_down[index] if spec.propagate_down else given)
            step.backward = step.backward or given

    def _connect_tops(self, step: Step, spec: Any, named: list[str]) -> None:
        for index, name in enumerate(spec.top):
            in_place = index < len(spec.bottom) and spec.bottom[index] == name
            log.info("net.cpp:369" if in_place else "net.cpp:382", f"{spec.name} -> {name}{' (in-place)' * in_place}")
            if in_place:
                blob = self.latest[name]
            elif name in self.latest and name != _AUTOMATIC:
                step.layer.error(f'top blob "{name}" is already made by an earlier layer; give it another name')
            else:
                blob = Blob(name=name, device=self.device)
                self.graph.blobs.append(blob)
            self.latest[name] = blob
            step.tops.append(blob)
            if index < len(named):
                self.unread[name] = blob
            if step.layer.user_fed:
                self.graph.inputs.append(name)

    def _set_up(self, step: Step) -> None:
        layer, spec = step.layer, step.layer.spec
        layer.attach(step.bottoms, step.tops)
        if layer.inner_layer:
            log.info("layer_factory.hpp:77", f"Creating layer {spec.name}")
        shapes = infer_tops(step, first=True)
        step.in_place = any(top is bottom for top in step.tops for bottom in step.bottoms)
        step.shares = layer.shares and not step.in_place
        if step.in_place:
            for blob in step.tops:
                blob.stand_alone()
        step.loss_weights = self._loss_weights(step)
        step.weighted = any(step.loss_weights)
        log.info("net.cpp:124", f"Setting up {spec.name}")
        for blob, shape, weight in zip(step.tops, shapes, step.loss_weights, strict=True):
            step.shape_top(blob, shape)
            if weight:
                self._weigh(blob, weight)
            log.info("net.cpp:131", f"Top shape: {shape_text(shape)}")
            if weight:
                log.info("net.cpp:134", f"    with loss weight {log.number(weight)}")
            self.memory += 4 * math.prod(shape)
        log.info("net.cpp:139", f"Memory required for data: {self.memory}")
        layer.requires_grad_(True)

    def _weigh(self, blob: Blob, weight: float) -> None:
        """Initialize the blob's diff to its loss weight. An in-place layer also changes that of earlier layers."""
        blob.reset_diff(weight)
        for step in self.graph.steps:
            own = zip(step.tops, step.loss_weights, strict=True)
            step.loss_weights = [weight if old and top is blob else old for top, old in own]

    def _loss_weights(self, step: Step) -> list[float]:
        spec, count = step.layer.spec, len(step.tops)
        if not spec.loss_weight:
            return [step.layer.default_loss_weight * (index == 0) for index in range(count)]
        if len(spec.loss_weight) != count:
            step.layer.error(
                f"loss_weight must be given for no top or once for each: {len(spec.loss_weight)} given, {count} tops"
            )
        return list(spec.loss_weight)

    def _check_name(self, layer: Layer) -> None:
        """Raise an error for a duplicate layer name if either layer has blobs or a state, which files store by name."""
        namesakes = list(self.namesakes.get(layer.name, ()))
        self.namesakes.setdefault(layer.name, []).append(len(self.graph.steps))
        keepers = [index for index in namesakes if _is_stored(self.graph.steps[index].layer)]
        if not namesakes or not (keepers or _is_stored(layer)):
            return
        (index, *_) = keepers or namesakes
        other = f"({self.graph.steps[index].layer.type}, {self.locate(index) or f'layer number {index + 1}'})"
        layer.error(
            (
                f"has the name of an earlier layer {other}"
                if layer.name
                else f"has no name, like an earlier layer {other}"
            )
            + "; weights and snapshots are stored by layer name, so those of one layer would be lost: give each layer "
            "a name of its own (equal names in `param { name }` share weights)"
        )

    # -- parameters ------------------------------------------------------------------------------------------------

    def _share_parameters(self, step: Step, spec: Any) -> None:
        layer = step.layer
        names = layer._blob_names
        if len(spec.param) > len(names):
            layer.error(f"has {len(spec.param)} param blocks, but only {len(names)} blob(s)")
        for index, param in enumerate(spec.param):
            owner = self.owners.get(param.name) if param.name else None
            if owner is None:
                continue
            tensor, own = owner.tensor, getattr(layer, names[index])
            permissive = param.share_mode == param.PERMISSIVE
            if tensor.numel() != own.numel() or (not permissive and tensor.shape != own.shape):
                layer.error(
                    f"cannot share param '{param.name}' owned by layer \"{owner.layer}\": its shape is "
                    f"{shape_text(tensor.shape)}, this layer needs {shape_text(own.shape)}"
                    + ("" if permissive or tensor.numel() != own.numel() else "; share_mode: PERMISSIVE allows that")
                )
            log.info(
                "net.cpp:486",
                f"Sharing parameters '{param.name}' owned by layer '{owner.layer}', param index {owner.index}",
            )
            layer.share_blob(index, owner.blob)

    def _adopt_stored_blobs(self, layer: Layer, spec: Any) -> None:
        """Copy the weights that the NetParameter contains."""
        if not spec.blobs:
            return
        if len(spec.blobs) != len(layer.tensors):
            layer.error(f"the prototxt holds {len(spec.blobs)} blobs, expected {len(layer.tensors)}")
        for blob, proto in zip(layer.tensors, spec.blobs, strict=True):
            array = weights.blob_from_proto(proto)
            if array.size != blob.numel():
                layer.error(f"a blob in the prototxt has shape {array.shape}, expected {tuple(blob.shape)}")
            blob.data.copy_(torch.from_numpy(array).reshape(blob.shape))

    def _learn(self, step: Step, spec: Any) -> None:
        layer = step.layer
        for index, blob_name in enumerate(layer._blob_names):
            tensor = getattr(layer, blob_name)
            param = spec.param[index] if index < len(spec.param) else None
            name = param.name if param is not None else ""
            rate = param.lr_mult if param is not None else 1.0
            decay = param.decay_mult if param is not None else 1.0
            trained = isinstance(tensor, nn.Parameter)
            owner = self.owners.get(name) if name else None
            if owner is not None and param is not None:
                self._agree(layer, owner, param)
            else:
                blob = layer.param_blobs[index]
                entry = Learnable(blob, rate if trained else 0.0, decay if trained else 0.0, layer.name, index, name)
                if param is not None:
                    entry.has_lr, entry.has_decay = param.HasField("lr_mult"), param.HasField("decay_mult")
                self.graph.learnable.append(entry)
                if name:
                    self.owners[name] = entry
            if trained and rate != 0:
                step.params.append(layer.param_blobs[index])
                step.backward = True
        if step.backward:
            self.needs_gradient.update(id(blob) for blob in step.tops)

    @staticmethod
    def _agree(layer: Layer, owner: Learnable, param: Any) -> None:
        for has, value in (("has_lr", "lr_mult"), ("has_decay", "decay_mult")):
            if not param.HasField(value):
                continue
            if getattr(owner, has) and getattr(owner, value) != getattr(param, value):
                layer.error(
                    f"shared param '{param.name}' has {value} {getattr(param, value):g}, but its owner, layer "
                    f'"{owner.layer}", gives {getattr(owner, value):g}: write the same in both or only in one'
                )
            setattr(owner, has, True)
            setattr(owner, value, getattr(param, value))


def _is_stored(layer: Layer) -> bool:
    """Whether a layer has blobs or a state, which weight files and snapshots store by its name."""
    moves = isinstance(layer, Source) and type(layer).position is not Source.position
    return moves or bool(layer.state_dict(keep_vars=True))


def _warn_of_shared_names(steps: Sequence[Step]) -> None:
    """Warn if layers without blobs share a name, since a look-up by name finds only one of them."""
    counts = Counter(step.layer.name for step in steps)
    if names := [name for name, count in counts.items() if count > 1]:
        listed = ", ".join(f'"{name}" ({counts[name]} layers)' for name in names)
        log.warning(
            "net.cpp",
            f"layers share a name: {listed}; start= and end= of forward and backward take the first, layer_dict, "
            "top_names and bottom_names hold the last",
        )


def _warn_of_stray_options(spec: Any, cls: type[Layer]) -> None:
    """Warn if a layer has options of another layer type, which Caffe ignores silently."""
    used = {cls.options, "python_param", *cls.more_options}
    for name in (given.name for given, _ in spec.ListFields()):
        if name.endswith("_param") and name not in used and name not in WITHOUT_EFFECT["LayerParameter"]:
            log.warning("net.cpp", f'layer "{spec.name}" ({spec.type}): {name} has no effect on this type')
