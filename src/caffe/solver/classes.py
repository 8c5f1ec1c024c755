"""pycaffe's solver classes, and the one for a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from caffe.solver.settings import load
from caffe.solver.solver import Solver

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
]


class SGDSolver(Solver):
    """Base of pycaffe's solver classes. The class name fixes the solver type and overrides the `type` of the file."""

    forced_type = "SGD"


class NesterovSolver(SGDSolver):
    forced_type = "Nesterov"


class AdaGradSolver(SGDSolver):
    forced_type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    forced_type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    forced_type = "AdaDelta"


class AdamSolver(SGDSolver):
    forced_type = "Adam"


def get_solver(
    param: str | Path | Any,
    device: torch.device | str | None = None,
    python_layers: bool | None = None,
    source: str | Path | None = None,
) -> Solver:
    """Create the solver for a path or a SolverParameter.

    Types that pycaffe has a class for give an instance of that class.

    `source` is the file that a SolverParameter was read from; error messages name it. `python_layers` as in `Net`.
    """
    loaded, source = load(param), param if isinstance(param, (str, Path)) else source
    classes: list[type[Solver]] = [SGDSolver, *SGDSolver.__subclasses__()]
    named = {cls.forced_type: cls for cls in classes}
    return named.get(loaded.type, Solver)(loaded, device, python_layers, source)
