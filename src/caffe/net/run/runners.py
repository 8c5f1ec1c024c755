"""The mode of a net, and the modules that run the whole net in training and for inference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch

from caffe import log
from caffe.errors import NetError, did_you_mean
from caffe.net.engines import Compiled, Eager, Engine, Inference, Recomputing
from caffe.net.graph.step import Step
from caffe.net.plan.loss_scale import LossScale
from caffe.net.run.module import NetModule

__all__ = ["Mode", "Runners"]


_ONE = (
    'net "{}": a net is either compiled or computes its blobs again in backward, because compiled steps choose '
    "themselves what they keep; remove recompute, or do not compile"
)


@dataclass(frozen=True)
class Mode:
    """How a net runs. The default: `forward` runs layer by layer, and every run fills every blob."""

    optimized: bool = False
    """Whether `forward` of the whole net uses the engine that `optimize` selected."""
    shown: frozenset[str] = frozenset()
    """The blobs that such a run fills, besides the outputs."""
    compiled: bool = False
    """Whether training steps are compiled with torch.compile."""
    kept: frozenset[str] | None = None
    """The blobs that a training step fills; None for every blob."""
    recomputed: bool = False
    """Whether backward computes most values again instead of keeping them."""


class Runners:
    """The modules that run the whole net. Each is created when first needed, and again when the mode changes."""

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        outputs: Sequence[str],
        device: torch.device,
        precision: torch.dtype,
        scale: LossScale | None,
    ) -> None:
        self.mode = Mode()
        self._steps, self._name, self._outputs = steps, name, frozenset(outputs)
        self._device, self._precision, self._scale = device, precision, scale
        self._training: NetModule | None = None
        self._inference: NetModule | None = None
        self._make_engine: Callable[[], Engine] = Inference
        self._divided: Callable[[], Engine] | None = None

    @property
    def training(self) -> NetModule:
        """The module that runs training steps."""
        if self._training is None:
            if self._divided is not None:
                self._training = self._module(self._divided(), self._with_kept(()))
                return self._training
            self._training = self._module(self._training_engine(), self.mode.kept)
            if not (self.mode.compiled or self.mode.recomputed):
                self._training.record_on(self._device)
        return self._training

    def _training_engine(self) -> Engine:
        if self.mode.recomputed:
            return Recomputing()
        return Compiled() if self.mode.compiled else Eager()

    @property
    def inference(self) -> NetModule:
        """The module that runs a net in TEST."""
        if self._inference is None:
            make = self._divided or self._make_engine
            self._inference = self._module(make(), self._outputs | self.mode.shown)
        return self._inference

    def divide(self, make_engine: Callable[[], Engine]) -> None:
        """Run the whole net, in training or in TEST, by engines for a net that is divided over processes.

        Runs fill the outputs only.
        """
        self._divided = make_engine
        self._training = self._inference = None

    def _refuse_divided(self, call: str) -> None:
        if self._divided is not None:
            raise NetError(f'net "{self._name}": {call} is for a net that one process runs, and this one is divided')

    def optimize(self, keep: Collection[str], compiled: bool, engine: str) -> None:
        """See Net.optimize."""
        self._refuse_divided("optimize")
        if engine not in Engine.named:
            names, hint = " or ".join(f'"{name}"' for name in Engine.named), did_you_mean(engine, Engine.named)
            raise NetError(f'unknown engine "{engine}", expected {names}{hint}')
        chosen, device, precision = Engine.named[engine], self._device, self._precision
        chosen.for_inference(device, precision, compiled)  # raises an error if it is not available
        self._make_engine = lambda: chosen.for_inference(device, precision, compiled)
        self.mode = replace(self.mode, optimized=True, shown=self.mode.shown.union(keep))
        self._inference = None

    def compile(self, keep: Collection[str]) -> None:
        """See Net.compile."""
        self._refuse_divided("compile")
        if self.mode.recomputed:
            raise NetError(_ONE.format(self._name))
        training = self._module(Compiled(), self._with_kept(keep))
        self.mode = replace(self.mode, compiled=True, kept=self._with_kept(keep))
        self._training = training

    def slim(self, keep: Collection[str], recompute: bool = False) -> None:
        """See Net.slim."""
        if recompute:
            self._refuse_divided("slim(recompute=True)")
            if self.mode.compiled:
                raise NetError(_ONE.format(self._name))
        mode = replace(self.mode, kept=self._with_kept(keep), recomputed=self.mode.recomputed or recompute)
        if mode != self.mode:
            self.mode, self._training = mode, None

    def stepwise(self) -> None:
        """See Net.stepwise."""
        self._refuse_divided("stepwise")
        self.mode, self._make_engine = Mode(), Inference
        self._training = self._inference = None

    def infer(self, more: Collection[str] = ()) -> float:
        """Run forward; fills the outputs, the kept blobs and `more`. Returns the loss."""
        runner = self.inference
        wanted = runner.plan.wanted or frozenset()
        missing = {*more, *runner.filling.held()} - wanted
        if reason := runner.engine.outdated():
            log.warning("net.py", f'net "{self._name}": {reason}')
            self._make_engine = Inference
            self._inference = runner = self._module(Inference(), wanted | missing)
        elif missing:
            self._inference = runner = self._module((self._divided or self._make_engine)(), wanted | missing)
        return runner.evaluate()

    def step(self) -> float:
        """Run forward and backward; returns the loss."""
        if held := self.training.filling.held():
            self.slim(held)
        return self.training.forward_backward()

    def rebuild(self) -> None:
        """Create the modules again after the parameters of layers were replaced."""
        self._training = None
        if self._inference is not None:
            make = self._divided or self._make_engine
            self._inference = self._module(make(), self._inference.plan.wanted)

    def forget_shapes(self) -> None:
        """Must be called after blobs have been reshaped."""
        for runner in (self._training, self._inference):
            if runner is not None:
                runner.filling.forget_shapes()

    def _with_kept(self, keep: Collection[str]) -> frozenset[str]:
        """The outputs, the blobs `keep`, and the blobs that earlier calls keep."""
        return frozenset([*self._outputs, *(self.mode.kept or ()), *keep])

    def _module(self, engine: Engine, wanted: Collection[str] | None) -> NetModule:
        return NetModule(self._steps, self._name, engine, wanted, self._precision, self._scale)
