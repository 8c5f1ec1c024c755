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
    """pycaffe's solver classes: a solver of the type in their name, whatever type the file has."""

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
    """The solver for a path or a SolverParameter; of pycaffe's class for its type where there is one.

    `source` is the file that a SolverParameter came from, for messages; `python_layers` as in `Net`.
    """
    loaded, source = load(param), param if isinstance(param, (str, Path)) else source
    classes: list[type[Solver]] = [SGDSolver, *SGDSolver.__subclasses__()]
    named = {cls.forced_type: cls for cls in classes}
    return named.get(loaded.type, Solver)(loaded, device, python_layers, source)
