"""NetModule: a net as one `torch.nn.Module`, whose graph an engine runs as a whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor, nn

from caffe.errors import NetError, did_you_mean
from caffe.layers.base import Source
from caffe.net.engines.cudagraph import Record, Recorder, cuda_recorder, recorded
from caffe.net.engines.denormals import FlushedDenormals
from caffe.net.engines.engine import NO_INPUTS, Eager, Engine
from caffe.net.graph.step import Step
from caffe.net.plan.loss_scale import LossScale
from caffe.net.plan.plan import make_plan
from caffe.net.plan.rewrite import Call
from caffe.net.run.allocator import keep_freed_memory, large_blocks_apart
from caffe.net.run.filling import Filling
from caffe.parameter_memory import collect_lent_copies

__all__ = ["NetModule", "module_name"]


@final
class NetModule(nn.Module):
    """A net's layers as sub-modules, under their names, and its graph as `forward`.

    `forward(**inputs)` takes tensors for the net's Input blobs, by default the data they hold, and returns the loss (a
    scalar with autograd's history) and the tensors of the blobs that it fills, by name. `wanted` are the blobs to fill,
    besides those of data layers; None means every blob.

    The module joins three parts. Its `plan` says what a run computes (`caffe.net.plan`), its `engine` executes the plan
    (`caffe.net.engines`), and a `Filling` gives the blobs their values. With a `precision` of 16 bits layers run as
    `caffe.net.plan.precision` says; blobs, weights and gradients are float32 all the same.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str = "",
        engine: Engine | None = None,
        wanted: Collection[str] | None = None,
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.engine = Eager() if engine is None else engine
        rewrites, rounding = self.engine.rewrites, self.engine.rounding
        self.plan = make_plan(name, steps, wanted, rewrites, rounding, precision, scale)
        self.filling = Filling(self.plan)
        self.record: Record | None = None
        self._scale = scale
        self._trained = False  # whether a training pass was made
        used = set(dir(self))  # names that a layer's module cannot have
        for step in steps:
            if not step.layer.splits:
                self.add_module(module_name(step.layer.name, used), step.layer)
        self.engine.prepare(self.plan)
        keep_freed_memory()

    def follow(self, calls: list[Call]) -> None:
        """Run these calls instead of the plan's. They must read and write the same places."""
        if self.engine.follow(calls):
            self.plan.calls = calls

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        self._check(inputs)
        collect_lent_copies()
        values = self.engine.run(inputs)
        return self.plan.loss(values), self.plan.named(values)

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        """Raise NetError for an unknown input, or a tensor whose shape differs in more than the number of rows."""
        known = {blob.name: blob for step in self.plan.steps if step.layer.user_fed for blob in step.tops}
        for name, value in inputs.items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise NetError(f'net "{self.name}" has no input "{name}"{hint} (inputs: {", ".join(known) or "none"})')
            shape = known[name].shape
            if not isinstance(value, Tensor) or value.dim() != len(shape) or tuple(value.shape[1:]) != shape[1:]:
                given = (
                    f"of shape {tuple(value.shape)}"
                    if isinstance(value, Tensor)
                    else f"not a tensor, but {type(value)}"
                )
                raise NetError(
                    f'net "{self.name}": the value of input "{name}" is {given}; expected a tensor of shape '
                    f"{shape}, or of another number of rows; for another shape, reshape the blob and call net.reshape()"
                ).at(shape=value.shape if isinstance(value, Tensor) else None)

    def forward_backward(self) -> float:
        """Run forward and backward. Adds to the parameters' gradients, fills the blobs and returns the loss."""
        self.filling.free()
        given = self.plan.source_values()
        scale = 0.0 if self._scale is None else self._scale.value
        with nullcontext() if self._trained else large_blocks_apart():
            values, loss = self.training_pass(given) if self.record is None else self.record.run(given, scale)
        self._trained = True
        self._fill(values)
        self.filling.drop_diffs()
        return float(loss)

    def training_pass(self, given: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run forward and backward on the values of the sources. Returns all values and the loss; fills no blobs."""
        if (own := self.engine.learn(given)) is not None:
            return own
        with torch.enable_grad():
            values = self.engine.run(NO_INPUTS, given)
            loss = self.plan.loss(values)
        if loss.requires_grad:
            with FlushedDenormals() if loss.device.type == "cpu" else nullcontext():
                loss.backward()
        return values, loss.detach()

    def record_on(self, device: torch.device, recorder: Recorder = cuda_recorder) -> None:
        """Replay training passes from a CUDA graph if `device` is a GPU; see caffe.net.engines.cudagraph."""
        if recorded(device):
            layers = [call.layer for call in self.plan.calls if not isinstance(call.layer, Source)]
            self.record = Record(self.training_pass, list(self.parameters()), recorder, layers)

    def evaluate(self) -> float:
        """Run forward without autograd. Fills the blobs and returns the loss."""
        if self.engine.frees_first:
            self.filling.free()
        with torch.no_grad():
            values = self.engine.run()
            loss = float(self.plan.loss(values)) if self.plan.losses else 0.0
        self._fill(values)
        return loss

    def _fill(self, values: Sequence[Tensor]) -> None:
        replays = self.record is not None and self.record.replays
        self.filling.fill(values, self.engine.owns_values and not replays)


def module_name(layer_name: str, used: set[str]) -> str:
    """A name that torch accepts for a sub-module: dots become underscores, and repeats are numbered."""
    base = name = re.sub(r"\.", "_", layer_name) or "layer"
    count = 1
    while name in used or name in dir(nn.Module):
        count += 1
        name = f"{base}_{count}"
    used.add(name)
    return name
