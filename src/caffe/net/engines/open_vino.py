"""A net for inference on OpenVINO."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import numpy as np
import openvino
import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Effects, Layer
from caffe.net.build import Step
from caffe.net.engines.open_vino_graph import convert, in_its_terms, without_memory
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.pieces import Piece, Pieces
from caffe.net.run.rewrite import Call, Rewrite
from caffe.net.run.rewrite.dead import drop_dead, forget_history
from caffe.net.run.rewrite.dropout import drop_dropout
from caffe.parameter_memory import WeightWatch

__all__ = ["OpenVino"]

_SHAPES = 8  # for so many shapes of the inputs a piece keeps what was made


class OpenVino(Pieces):
    """A net in TEST whose layers OpenVINO runs, converted at the first run and for each new shape.

    Layers that OpenVINO cannot take run on torch, between the pieces that it runs. Weights become constants; where they
    change, the next run converts anew, and where they may change from run to run, `outdated` says so.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        wanted: Collection[str],
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        self._arithmetic = precision  # OpenVINO's own affair: values are float32
        self._apart: set[str] = set()  # layers that OpenVINO cannot take
        self._changes = 0  # how many runs in a row found new weights
        super().__init__(steps, name, wanted)
        self._watch = self._watched_parts()

    def _rewrites(self) -> Sequence[Rewrite]:
        return [forget_history, drop_dropout, drop_dead]  # OpenVINO folds and fuses by itself

    def with_more(self, names: Collection[str]) -> Self:
        return type(self)(self._steps, self.name, self.wanted.union(names), self._arithmetic)

    @property
    def owns_values(self) -> bool:
        return False  # OpenVINO writes into the same tensors at each run

    def outdated(self) -> str:
        if self._watch.changed():
            self._pieces = self._cut()
            self._changes += 1
        elif self._changes:
            self._changes = 0
        reason = "its weights change from run to run, or somebody holds an array of them: it runs without OpenVINO"
        return reason if self._changes > 2 else ""  # the first time they are new to the watch

    def evaluate(self) -> float:
        with torch.no_grad():
            values = self._run({})
            loss = float(self._loss(values)) if self._losses else 0.0
        self._fill(values)
        if unfit := [layer for piece in self._parts() for layer in piece.unfit]:
            self._set_apart(unfit)
        return loss

    def _parts(self) -> list[_Piece]:
        return [piece for piece in self._pieces if isinstance(piece, _Piece)]

    def _watched_parts(self) -> WeightWatch:
        """Watches the weights that OpenVINO has as constants."""
        return WeightWatch(
            [blob.weights for piece in self._parts() for layer in piece.layers for blob in layer.param_blobs]
        )

    def _set_apart(self, layers: Sequence[Layer]) -> None:
        """Run these layers on torch from now on."""
        self._apart.update(layer.name for layer in layers)
        self._pieces = self._cut()
        self._watch = self._watched_parts()
        self._watch.changed()  # nothing has, since this run began
        names = ", ".join(f'"{layer.name}" ({layer.type})' for layer in layers)
        log.warning("open_vino.py", f'net "{self.name}": OpenVINO cannot take the layers {names}: they run on torch')

    def _takes(self, call: Call) -> bool:
        remembers = call.layer.effects_now & Effects.BUFFERS
        return super()._takes(call) and bool(call.writes) and not remembers and call.layer.name not in self._apart

    def _piece(self, calls: Sequence[Call], needed: Collection[int]) -> Piece:
        return _Piece(calls, needed, self._arithmetic)


class _Piece(Piece):
    """Layers that OpenVINO runs together."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int], arithmetic: torch.dtype) -> None:
        super().__init__(calls, needed)
        self.unfit: list[Layer] = []
        self._arithmetic = arithmetic
        self._terms = [in_its_terms(call) for call in calls]
        self._runs: dict[Any, Callable[[Sequence[Tensor]], list[Tensor]]] = {}  # the one used last at the end

    def run(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """The values: OpenVINO's, but where there is a NaN or an infinity, which its ReLU would lose."""
        if not all(map(_finite, given)):
            return self.compute(given)
        key = (torch.get_num_threads(), *[value.shape for value in given])
        self._runs[key] = run = self._runs.pop(key, None) or self._make(given)
        if len(self._runs) > _SHAPES:
            del self._runs[next(iter(self._runs))]
        return run(given)

    def _make(self, given: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """What runs the layers for values of these shapes: OpenVINO, or torch where that cannot be."""
        weights = [tensor for layer in self.layers for tensor in layer.tensors]
        if not all(value.numel() for value in given) or not all(bool(tensor.isfinite().all()) for tensor in weights):
            return self.compute
        try:
            return self._converted(given)
        except Exception:  # whatever torch and OpenVINO raise about what they cannot take
            self.unfit = self._culprits(given)
            return self.compute

    def _converted(self, given: Sequence[Tensor]) -> _Model:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._arithmetic is torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        model = convert(self._terms, self.writes, given)
        return _Model(model, _core().compile_model(model, "CPU", settings))

    def _culprits(self, given: Sequence[Tensor]) -> list[Layer]:
        """The layers that cannot be converted by themselves; all, if each of them can."""
        values, unfit = without_memory(self.reads, given), []
        for call in self._terms:
            bottoms = [torch.zeros(values[place].shape) for place in Piece([call], call.writes).reads]
            try:
                convert([call], call.writes, bottoms)
            except Exception:
                unfit.append(call.layer)
            tops = call.layer.infer(*(values[place] for place, _ in call.reads))
            values.update(zip(call.writes, tops, strict=True))
        return unfit or self.layers


def _finite(value: Tensor) -> bool:
    """Whether all numbers are finite; by numpy, since torch's threads go on spinning, in the way of OpenVINO's."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.sum(value.detach().numpy()))


class _Model:
    """What OpenVINO has compiled, for values of fixed shapes. It writes into the same tensors at each run."""

    def __init__(self, model: Any, compiled: Any) -> None:
        if [port.shape for port in compiled.outputs] != [port.shape for port in model.outputs]:
            raise ValueError("OpenVINO has made tops of other shapes")
        self._request = compiled.create_infer_request()
        self._given: list[Tensor] = [torch.empty(0)] * len(compiled.inputs)
        self._tops = [torch.empty(tuple(port.shape)) for port in compiled.outputs]
        for index, top in enumerate(self._tops):
            self._request.set_output_tensor(index, openvino.Tensor(top.numpy(), shared_memory=True))

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        for index, value in enumerate(given):
            if value.data_ptr() != self._given[index].data_ptr() or not value.is_contiguous():
                self._given[index] = value = value.contiguous()
                self._request.set_input_tensor(index, openvino.Tensor(value.detach().numpy(), shared_memory=True))
        self._request.infer()
        return self._tops


@functools.cache
def _core() -> Any:
    return openvino.Core()
