"""Watchers: objects that a solver tells what it does, such as progress bars and recorders of curves."""

from __future__ import annotations

from caffe.solver.run import TrainingRun

__all__ = ["Watcher"]


class Watcher:
    """Base of what may stand in `solver.watchers`; override what you want to hear of."""

    def started(self, solver: TrainingRun) -> None:
        """`solve` begins; a snapshot, if any, is restored."""

    def begins(self, solver: TrainingRun, iteration: int) -> None:
        """Iteration `iteration` begins: its first batch is not read yet."""

    def computed(self, solver: TrainingRun, iteration: int, loss: float) -> None:
        """The loss and the gradients of an iteration are known; the weights are those that gave them."""

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        """Iteration `iteration` is done: its own loss (not smoothed) and the rate it used."""

    def displayed(self, solver: TrainingRun, iteration: int, loss: float, outputs: dict[str, list[float]]) -> None:
        """The display lines of `iteration` were due: smoothed loss and the train net's outputs."""

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        """A test of training is done, of test net `net_index` after `iteration` updates: its mean outputs.

        What the program tests by `solver.test` is returned to it and told nobody else.
        """

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        """A snapshot was written; `path` is its solver state."""

    def finished(self, solver: TrainingRun) -> None:
        """`solve` ends, after the last snapshot and test, or early on request."""
