"""Watchers: objects that a solver notifies of events, such as progress bars and recorders of curves."""

from __future__ import annotations

from caffe.solver.run import TrainingRun

__all__ = ["Watcher"]


class Watcher:
    """Base class of the objects in `solver.watchers`. Override the methods of the events you need."""

    def started(self, solver: TrainingRun) -> None:
        """`solve` starts. A snapshot, if given, is already restored."""

    def begins(self, solver: TrainingRun, iteration: int) -> None:
        """Iteration `iteration` starts. Its first batch has not been read yet."""

    def computed(self, solver: TrainingRun, iteration: int, loss: float) -> None:
        """The loss and gradients of an iteration are computed. The weights are not updated yet."""

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        """Iteration `iteration` is done. `loss` is not smoothed; `rate` is the learning rate that was used."""

    def displayed(self, solver: TrainingRun, iteration: int, loss: float, outputs: dict[str, list[float]]) -> None:
        """The display lines of `iteration` are due. Gives the smoothed loss and the train net's outputs."""

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        """A test in training is done: test net `net_index` after `iteration` updates, with its mean outputs.

        Not called for tests that the program runs by `solver.test`; these only return their results.
        """

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        """A snapshot was written. `path` is the solver state."""

    def finished(self, solver: TrainingRun) -> None:
        """`solve` ends, after the last snapshot and test or after a request to stop."""
