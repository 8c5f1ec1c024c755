"""Detects a diverged run: NaN losses, NaN weights, and the last snapshot before them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from caffe import log
from caffe.errors import SolverError
from caffe.net.graph.step import Learnable

__all__ = ["Health", "broken_layer"]


class Health:
    """Checks each loss, and stops training after `nan_patience` consecutive losses that are NaN or infinite.

    Only the loss is checked in each iteration, because the training loop reads it anyway. `good` is the path of the
    last solver state that was written or restored with finite weights; `good_iter` is its iteration.
    """

    def __init__(self, param: Any) -> None:
        self.param = param
        self.good = ""
        self.good_iter = -1
        self._bad = 0
        self._warned = False

    def hear(self, iteration: int, loss: float) -> None:
        """Check the loss of an iteration.

        Warns on the first bad loss; raises `SolverError` when `nan_patience` is reached.
        """
        if math.isfinite(loss):
            self._bad = 0
            return
        self._bad += 1
        fact = f"Iteration {iteration}: the loss is {log.number(loss)}"
        advice = "Try a lower base_lr, clip_gradients, or debug_info: true to see where it begins"
        if self._bad == self.param.nan_patience:
            raise SolverError(
                f"{fact}, as in all of the last {self._bad} iterations: training stops, without a snapshot. "
                f"{self.way_back()}. {advice}. To continue anyway: nan_patience: 0 in the solver, or -nan warn"
            )
        if not self._warned:
            self._warned = True
            log.warning("solver.py", f"{fact}: training has diverged, or the data holds such values. {advice}")

    def may_save(self, iteration: int, name: str | None) -> bool:
        """Return whether weights may be saved, given the name of a layer whose weights are not finite, if there is one.

        If there is such a layer, a warning says that no snapshot is written.
        """
        if name is None:
            return True
        fact = f'Iteration {iteration}: no snapshot, as weights of layer "{name}" are NaN or infinite'
        log.warning("solver.py", f"{fact}. {self.way_back()}")
        return False

    def saved(self, path: str, iteration: int) -> None:
        """Record the path of a state with finite weights that was written or restored."""
        self.good, self.good_iter = path, iteration

    def way_back(self) -> str:
        """Return a sentence that names the snapshot to continue from."""
        return f"The last good snapshot is {self.good}" if self.good else "There is no good snapshot of this run"


def broken_layer(learnable: Iterable[Learnable]) -> str | None:
    """Return the name of the first layer with weights that are NaN or infinite, or None."""
    return next((entry.layer for entry in learnable if not bool(entry.tensor.isfinite().all())), None)
