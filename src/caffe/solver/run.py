"""The interface of a training run: the part of `Solver` that snapshots, resuming and watchers may use."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from caffe.net import Net
from caffe.solver.ema import MovingAverage
from caffe.solver.policy import Policy
from caffe.solver.rules import Rule
from caffe.solver.together import Together

__all__ = ["TrainingRun"]


class TrainingRun(Protocol):
    """A training run. `Solver` implements it."""

    param: Any
    """The SolverParameter."""
    net: Net
    test_nets: list[Net]
    policy: Policy
    rule: Rule
    history: list[Tensor]
    """The history tensors of the update rule."""
    average: MovingAverage
    together: Together
    """Coordinates the solvers of several processes."""
    iter: int
    """The number of updates so far."""
    current_step: int

    @property
    def stopped(self) -> bool:
        """Whether the last call of `solve` or `step` ended by a request to stop."""
        ...

    def request(self, action: str) -> None:
        """Request a "snapshot" or a "stop" at the next opportunity."""

    def save_average(self, path: str) -> None:
        """Write the moving average of the weights to a file."""

    @property
    def nets(self) -> tuple[Net, ...]:
        """The train net and the test nets, in the order in which snapshots number them."""
        ...
