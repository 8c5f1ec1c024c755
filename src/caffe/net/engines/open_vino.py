"""The engine for inference on OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caffe import log
from caffe.errors import NetError, require_extra
from caffe.layers.base import Effects, Layer
from caffe.net.engines.engine import NO_INPUTS, Engine
from caffe.net.engines.pieces import Piece, cut, run_pieces
from caffe.net.plan.plan import Plan, Rounding
from caffe.net.plan.rewrite import Call
from caffe.net.plan.rewrite.dead import drop_dead, forget_history
from caffe.net.plan.rewrite.dropout import drop_dropout
from caffe.parameter_memory import WeightWatch

if TYPE_CHECKING:
    from caffe.net.engines.vino.run import OpenVinoRun

__all__ = ["OpenVino"]


class OpenVino(Engine, name="openvino"):
    """Runs the layers of a net in TEST on OpenVINO. Layers are converted at the first run and for each new shape.

    Layers that OpenVINO does not support run on torch, between the pieces. Weights become constants. After a change of
    weights the next run converts the layers again. If weights change in every run, `outdated` reports it.
    """

    rewrites = (forget_history, drop_dropout, drop_dead)  # OpenVINO folds and fuses layers itself
    rounding = Rounding.NEVER
    frees_first = False
    owns_values = False  # OpenVINO writes to the same tensors in each run

    def __init__(self, arithmetic: torch.dtype = torch.float32) -> None:
        self._arithmetic = arithmetic
        self._apart: set[str] = set()  # layers that OpenVINO does not support
        self._changes = 0  # number of consecutive runs that found new weights

    @classmethod
    def for_inference(cls, device: torch.device, precision: torch.dtype, compiled: bool) -> OpenVino:
        if compiled:
            raise NetError(
                'the engine "openvino" cannot be combined with compile, which is for the engine "torch"; remove one'
            )
        if device.type != "cpu":
            raise NetError(f'the engine "openvino" runs on the CPU, and the net is on {device}')
        require_extra("openvino", "openvino", 'the engine "openvino"')
        return cls(precision)

    def prepare(self, plan: Plan) -> None:
        self._plan = plan
        self._cut()
        self._weight_watch = self._watched_weights()

    def outdated(self) -> str:
        if self._weight_watch.changed():
            self._cut()
            self._changes += 1
        elif self._changes:
            self._changes = 0
        reason = "its weights change from run to run, or the program holds an array of them: it runs without OpenVINO"
        return reason if self._changes > 2 else ""  # the first check always reports new weights

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        values = run_pieces(self._plan, self.pieces, inputs, given)
        if unfit := [layer for run in self.runs for layer in run.unfit]:
            self._set_apart(unfit)
        return values

    def _cut(self) -> None:
        self.runs: list[OpenVinoRun] = []
        self.pieces = cut(self._plan, self._takes, self._make_run)

    def _watched_weights(self) -> WeightWatch:
        """Watches the weights that are constants in OpenVINO's models."""
        layers = [layer for run in self.runs for layer in run.piece.layers]
        return WeightWatch([blob.weights for layer in layers for blob in layer.param_blobs])

    def _make_run(self, piece: Piece) -> OpenVinoRun:
        from caffe.net.engines.vino.run import OpenVinoRun  # openvino is an optional dependency

        self.runs.append(OpenVinoRun(piece, self._arithmetic))
        return self.runs[-1]

    def _takes(self, call: Call) -> bool:
        layer = call.layer
        remains = layer.effects_now & (Effects.BUFFERS | Effects.RANDOM)  # torch's generator draws all random numbers
        return layer.traceable and bool(call.writes) and not remains and layer.name not in self._apart

    def _set_apart(self, layers: Sequence[Layer]) -> None:
        """Run these layers on torch from now on."""
        self._apart.update(layer.name for layer in layers)
        self._cut()
        self._weight_watch = self._watched_weights()
        self._weight_watch.changed()  # reset the watch: no weights changed since this run began
        names = ", ".join(f'"{layer.name}" ({layer.type})' for layer in layers)
        log.warning(
            "open_vino.py", f'net "{self._plan.name}": OpenVINO cannot run the layers {names}: they run on torch'
        )
