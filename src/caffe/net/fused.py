"""How a net runs as one piece: in training, for inference, through torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from caffe import log
from caffe.blob import Blob
from caffe.errors import NetError, did_you_mean, require_extra
from caffe.net.batches import Batches
from caffe.net.build import Step
from caffe.net.engines.compiled import Compiled
from caffe.net.run.inference import Inference
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.module import NetModule
from caffe.net.run.partial import Partial
from caffe.net.run.pieces import Pieces
from caffe.net.turns import Turns
from caffe.parameter_memory import lent_copies_follow
from caffe.proto import caffe_pb2

__all__ = ["Fused"]


class Fused(Batches):
    """Base of `Net`: the runners that take the whole graph at once."""

    name: str
    phase: int
    device: torch.device
    steps: list[Step]
    outputs: list[str]
    precision: torch.dtype
    loss_scale: LossScale | None
    turns: Turns
    _module: NetModule | None = None
    _inference: Partial | None = None
    _optimized = False  # whether forward() runs for inference
    _shown: frozenset[str] = frozenset()  # what `optimize` was told to keep
    _compiled = False  # whether a step is compiled
    _kept: frozenset[str] | None = None  # the blobs that a step fills, None for every blob

    @property
    def module(self) -> NetModule:
        """The same graph as one `torch.nn.Module`, over the same parameters."""
        if self._module is None:
            if self._kept is None:
                self._module = NetModule(self.steps, self.name, self.precision, self.loss_scale)
            else:
                runner = Compiled if self._compiled else Partial
                self._module = runner(self.steps, self.name, self._kept, self.precision, self.loss_scale)
            if not self._compiled:
                self._module.record_on(self.device)
        return self._module

    @property
    def runner(self) -> NetModule:
        """What runs the net as one piece: for inference in TEST, else `module`."""
        return self._for_inference() if self.phase == caffe_pb2.TEST else self.module

    def optimize(self, keep: Sequence[str] = (), compile: bool = False, engine: str = "torch") -> None:
        """Let `forward()` of the whole net run as one piece that computes its outputs and the blobs `keep`, only.

        For nets in TEST. Layers are merged and their weights laid out anew; weights that change later are taken up.
        Reading another blob's data is an error then. A forward from or to a layer, and one with callbacks, still runs
        layer by layer; `stepwise()` returns to that for good. What an earlier call kept stays kept until then. With
        `compile` the first run compiles the net through torch.compile, weights as constants: once they change, the net
        runs uncompiled. The `engine` "openvino" runs the net on a CPU by OpenVINO. Raises NetError, and CaffeError
        where there is no compiler or no OpenVINO.
        """
        if self.phase != caffe_pb2.TEST:
            raise NetError(f'net "{self.name}": optimize is for a net in TEST, this one is in TRAIN; build one in TEST')
        shown = self._shown.union(self._blob(name).name for name in keep)
        wanted = shown.union(self.outputs)
        self._inference = self._runner(engine, compile)(self.steps, self.name, wanted, self.precision, self.loss_scale)
        self._optimized, self._shown = True, shown

    def _runner(self, engine: str, compile: bool) -> Callable[..., Partial]:
        """What makes a runner for inference."""
        if engine == "torch":
            return partial(Compiled, frozen=True) if compile else Inference
        if engine != "openvino":
            hint = did_you_mean(engine, ("torch", "openvino"))
            raise NetError(f'unknown engine "{engine}", expected "torch" or "openvino"{hint}')
        if compile:
            raise NetError('the engine "openvino" does not take compile, which is for the engine "torch"; drop one')
        if self.device.type != "cpu":
            raise NetError(f'the engine "openvino" runs on the CPU, and the net "{self.name}" is on {self.device}')
        require_extra("openvino", "openvino", 'the engine "openvino"')
        from caffe.net.engines.open_vino import OpenVino

        return OpenVino

    def compile(self, keep: Sequence[str] = ()) -> None:
        """Let training steps (`forward_backward`) run through torch.compile.

        The first step compiles, for seconds to minutes; what it makes is kept on disk for later processes. From then on
        a step fills the outputs and the blobs `keep` of this call and of calls of `slim` only, and reading another
        blob's data is an error; `stepwise()` returns to steps that are not compiled. Raises CaffeError where there is
        no compiler.
        """
        wanted = self._with_kept(keep)
        self._module = Compiled(self.steps, self.name, wanted, self.precision, self.loss_scale)
        self._compiled, self._kept = True, wanted

    def slim(self, keep: Sequence[str] = ()) -> None:
        """Let training steps (`forward_backward`) fill the outputs and the blobs `keep` only.

        That takes less memory and lets more layers run as one; reading another blob's data is an error then, and
        `stepwise()` returns to steps that fill every blob. Further calls, and `compile` before or after, add to the
        blobs that are kept. `caffe train` runs this way.
        """
        wanted = self._with_kept(keep)
        if wanted != self._kept:
            self._module, self._kept = None, wanted

    def _with_kept(self, keep: Sequence[str]) -> frozenset[str]:
        """The outputs, the blobs `keep`, and those that steps keep already."""
        return frozenset([*self.outputs, *(self._kept or ()), *(self._blob(name).name for name in keep)])

    def stepwise(self) -> None:
        """Let `forward()` run layer by layer again, and every run fill every blob: undo the three above."""
        self._optimized, self._inference, self._shown = False, None, frozenset()
        self._module, self._compiled, self._kept = None, False, None

    def _for_inference(self) -> Partial:
        if self._inference is None:
            self._inference = Inference(self.steps, self.name, self.outputs, self.precision, self.loss_scale)
        return self._inference

    def _infer(self, more: Sequence[str] = ()) -> float:
        """One pass forward as one piece that computes the outputs, what is kept, and `more`; returns the loss."""
        self.turns.check_inputs()
        runner = self._for_inference()
        missing = {*more, *runner.held()} - runner.wanted
        if isinstance(runner, Pieces) and (reason := runner.outdated()):
            log.warning("net.py", f'net "{self.name}": {reason}')
            runner = Inference(self.steps, self.name, runner.wanted | missing, self.precision, self.loss_scale)
        elif missing:
            runner = runner.with_more(missing)
        self._inference = runner
        with lent_copies_follow():
            return runner.evaluate()

    def _step(self) -> float:
        """One pass forward and backward as one piece; returns the loss."""
        module = self.module
        if isinstance(module, Partial) and (held := module.held()):
            self.slim(held)
        return self.module.forward_backward()

    def _rebuild_runners(self) -> None:
        """Have the runners made anew: layers have got other parameters."""
        self._module = None
        if self._inference is not None:
            self._inference = self._inference.with_more(())

    def _blob(self, name: str) -> Blob:
        if name not in self.blobs:
            raise NetError(f'the net has no blob "{name}"{did_you_mean(name, self.blobs)}')
        return self.blobs[name]
