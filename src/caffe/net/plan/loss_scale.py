"""Loss scaling, which keeps gradients in float16 from vanishing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from caffe import log
from caffe.errors import SolverError

__all__ = ["LossScale"]


class LossScale:
    """The factor by which float16 gradients are multiplied. It adapts to the largest value without overflow.

        some gradient overflowed        value <- value / 2, and the update is skipped
        `patience` updates without      value <- value * 2

    float16 cannot represent numbers between 0 and 6e-8, where most gradients are, nor numbers above 65504.
    Source: Micikevicius et al., arXiv:1710.03740, section 3.2; the constants are those of torch.amp.GradScaler.
    """

    first, least, most = 2.0**16, 2.0**-10, 2.0**32
    patience = 2000

    def __init__(self) -> None:
        self.value = self.first
        self.good = 0  # updates since the last change

    def accepts(self, grads: Iterable[Tensor], iteration: int) -> bool:
        """Whether all unscaled gradients are finite, so that the solver may update. Adapts the scale."""
        norms = [torch.linalg.vector_norm(grad) for grad in grads]
        if norms and not bool(torch.stack(norms).isfinite().all()):
            self._set(self.value / 2, f"Iteration {iteration}: gradients overflowed FLOAT16, no update")
            return False
        self.good += 1
        if self.good >= self.patience and self.value < self.most:
            self._set(self.value * 2, f"Iteration {iteration}: no overflow in {self.good} updates")
        return True

    def _set(self, value: float, why: str) -> None:
        if value < self.least:
            raise SolverError(
                f"{why}; it would be {value:g} now: training has diverged, or the net does not fit into FLOAT16. Try a "
                "lower base_lr, or precision: BFLOAT16"
            )
        self.value, self.good = value, 0
        log.info("precision.py", f"{why}; loss scale {log.number(value)}")

    def memory(self) -> dict[str, float]:
        """The state for a snapshot."""
        return {"value": self.value, "good": self.good}

    def check_memory(self, memory: Mapping[str, float]) -> None:
        """Raise a `SolverError` if `recall` cannot restore this state. Changes nothing."""
        if not memory:
            return
        value, good = memory.get("value", math.nan), memory.get("good", math.nan)
        if not (self.least <= value <= self.most and good >= 0 and float(good).is_integer() and len(memory) == 2):
            raise SolverError(
                f"its loss scale is {dict(memory)}, expected a value from {self.least:g} to {self.most:g} and good, "
                "a whole number of at least 0"
            )

    def recall(self, memory: Mapping[str, float]) -> None:
        """Restore a state that `memory` returned. If it is empty, start from the initial scale."""
        self.value, self.good = memory.get("value", self.first), int(memory.get("good", 0))
