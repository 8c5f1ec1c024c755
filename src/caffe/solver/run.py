"""A training run, as those see it who save, restore and watch it: the part of `Solver` that they may use."""

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
    """What a run consists of. `Solver` is one."""

    param: Any
    """The SolverParameter."""
    net: Net
    test_nets: list[Net]
    policy: Policy
    rule: Rule
    history: list[Tensor]
    """What the update rule keeps of earlier gradients."""
    average: MovingAverage
    together: Together
    """What the solvers of several processes do together."""
    iter: int
    """The number of updates done."""
    current_step: int

    @property
    def stopped(self) -> bool:
        """Whether the last run of `solve` or `step` ended on request."""
        ...

    def request(self, action: str) -> None:
        """Ask for "snapshot" or "stop" at the next chance."""

    def save_average(self, path: str) -> None:
        """Write the moving average of the weights."""

    @property
    def nets(self) -> tuple[Net, ...]:
        """The train net and the test nets, as snapshots number them."""
        ...
