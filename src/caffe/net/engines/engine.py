"""The base class of all engines, which execute plans, and the engine that runs a plan call by call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from caffe.layers.base import Source
from caffe.net.plan.plan import Plan, Rounding
from caffe.net.plan.rewrite import REWRITES, Call, Rewrite
from caffe.torch_internals import set_grad_enabled

__all__ = ["NO_INPUTS", "Eager", "Engine", "tops_made"]

NO_INPUTS: Mapping[str, Tensor] = MappingProxyType({})


class Engine(ABC):
    """Executes the calls of a plan, in training, for inference, or both."""

    named: ClassVar[dict[str, type[Engine]]] = {}
    """The inference engines that users select by name. A class statement with a `name` registers the engine."""
    rewrites: Sequence[Rewrite] = REWRITES
    """The rewrites that are applied to the engine's plans."""
    rounding: ClassVar[Rounding] = Rounding.FIRST
    frees_first: ClassVar[bool] = True
    """Whether blobs are freed before a run without gradients. An engine that computes few blobs need not do so."""
    owns_values: bool = True
    """Whether each run allocates its values, so that blobs can use their memory without a copy."""

    def __init_subclass__(cls, name: str = "") -> None:
        if name:
            Engine.named[name] = cls

    @classmethod
    def for_inference(cls, device: torch.device, precision: torch.dtype, compiled: bool) -> Engine:
        """Create the engine for a net in TEST. Raises CaffeError if it is not available. For engines with a name."""
        raise NotImplementedError

    @abstractmethod
    def prepare(self, plan: Plan) -> None:
        """Receive the plan. Called once, before the first run."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Execute the plan; returns the values at all places. Values that are not needed may be None.

        `inputs` are the values of Input blobs by name. `given` are the values of the sources, if they have already run.
        """

    def learn(self, given: Sequence[Tensor]) -> tuple[list[Tensor], Tensor] | None:
        """Run forward and backward; returns the values at all places and the loss, without autograd's history.

        None where the caller runs backward, from the loss of a `run` with gradients, which is what most engines need.
        """
        return None

    def follow(self, calls: list[Call]) -> bool:
        """Run these calls instead of the plan's, for a trace. Returns False if the engine cannot."""
        return False

    def outdated(self) -> str:
        """The reason why the engine must not run any more because weights changed. Empty if it may run."""
        return ""


class Eager(Engine):
    """Runs the calls one by one on torch, with autograd if gradients are enabled."""

    def prepare(self, plan: Plan) -> None:
        self._plan, self._calls = plan, plan.calls

    def follow(self, calls: list[Call]) -> bool:
        self._calls = calls
        return True

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        values = self._plan.begin(given)
        grad = torch.is_grad_enabled()
        try:
            for call in self._calls:
                if given is not None and isinstance(call.layer, Source):
                    continue
                set_grad_enabled(grad and call.backward)
                made = tops_made(call, values, inputs)
                for place, value in zip(call.writes, made, strict=True):
                    values[place] = value
                for place in call.frees:
                    values[place] = None  # type: ignore[call-overload]
                made = ()
        finally:
            set_grad_enabled(grad)
        return values


def tops_made(
    call: Call, values: Sequence[Tensor] | Mapping[int, Tensor], inputs: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """Run the call; returns its tops."""
    bottoms = [values[place].detach() if cut else values[place] for place, cut in call.reads]
    made = None if inputs and call.layer.user_fed else call.run(*bottoms)
    return call.tops(made, inputs)
