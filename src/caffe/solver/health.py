"""Whether a run is healthy: losses that are no numbers, weights that are none, and the last good snapshot."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from caffe import log
from caffe.errors import SolverError
from caffe.net.graph.step import Learnable

__all__ = ["Health", "broken_layer"]


class Health:
    """Hears of each loss, and stops training after `nan_patience` in a row that are NaN or infinite.

    Only the loss is looked at, which the loop reads anyway. `good` is the path of the last state that was written or
    restored with weights that are numbers, `good_iter` its iteration.
    """

    def __init__(self, param: Any) -> None:
        self.param = param
        self.good = ""
        self.good_iter = -1
        self._bad = 0
        self._warned = False

    def hear(self, iteration: int, loss: float) -> None:
        """Take note of an iteration's loss. Raises `SolverError` at the end of the patience; warns once before."""
        if math.isfinite(loss):
            self._bad = 0
            return
        self._bad += 1
        fact = f"Iteration {iteration}: the loss is {log.number(loss)}"
        advice = "Try a lower base_lr, clip_gradients, or debug_info: true to see where it begins"
        if self._bad == self.param.nan_patience:
            raise SolverError(
                f"{fact}, as in all of the last {self._bad} iterations: training stops, without a snapshot. "
                f"{self.way_back()}. {advice}. To go on all the same: nan_patience: 0 in the solver, or -nan warn"
            )
        if not self._warned:
            self._warned = True
            log.warning("solver.py", f"{fact}: training has diverged, or the data holds such values. {advice}")

    def may_save(self, iteration: int, name: str | None) -> bool:
        """Whether weights may be saved, of which those of layer `name` are no numbers; a warning where they may not."""
        if name is None:
            return True
        fact = f'Iteration {iteration}: no snapshot, as weights of layer "{name}" are NaN or infinite'
        log.warning("solver.py", f"{fact}. {self.way_back()}")
        return False

    def saved(self, path: str, iteration: int) -> None:
        """A state was written or restored whose weights are numbers."""
        self.good, self.good_iter = path, iteration

    def way_back(self) -> str:
        """Which snapshot to go on from."""
        return f"The last good snapshot is {self.good}" if self.good else "There is no good snapshot of this run"


def broken_layer(learnable: Iterable[Learnable]) -> str | None:
    """The first layer with weights that are NaN or infinite."""
    return next((entry.layer for entry in learnable if not bool(entry.tensor.isfinite().all())), None)
