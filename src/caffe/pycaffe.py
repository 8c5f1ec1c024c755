"""The functions of pycaffe's core: logging, layer types, and process-wide settings of multi-GPU scripts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NoReturn

import numpy as np

from caffe import log
from caffe.data.pipeline import shard
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from caffe.timer import Timer

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Net",
    "OrderedDict",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "np",
    "set_multiprocess",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Send log lines of severity `level` (0 info, 1 warning, 2 error, 3 fatal) and above to standard error.

    `stderr` is there for old scripts: the lines go nowhere else.
    """
    if level not in range(4):
        raise CaffeError(f"init_log: level is {level}, expected 0 (info), 1 (warning), 2 (error) or 3 (fatal)")
    if not stderr:
        raise CaffeError(
            "init_log: stderr=False asks for glog's own files; add a logging.FileHandler to "
            'logging.getLogger("caffe") instead'
        )
    log.start((20, 30, 40, 50)[level])


def layer_type_list() -> list[str]:
    """All layer types, sorted."""
    from caffe.layers import layer_types

    return layer_types()


# -- several solvers: each process of a multi-GPU script sets its rank -------------------------------------------------


def solver_count() -> int:
    """The number of solvers that train together."""
    return shard.count()


def set_solver_count(count: int) -> None:
    """Set the number of solvers that train together. Layers that are created later read their share of the data."""
    if count < 1:
        raise CaffeError(f"set_solver_count: {count} solvers, expected at least 1")
    shard.assign(count=count)


def solver_rank() -> int:
    """The rank of this process's solver, from 0."""
    return shard.rank()


def set_solver_rank(rank: int) -> None:
    """Set the rank of this process's solver."""
    if rank < 0:
        raise CaffeError(f"set_solver_rank: {rank}, expected a number from 0")
    shard.assign(rank=rank)


def set_multiprocess(multiprocess: bool) -> None:
    """For old scripts. Has no effect: solvers of one process never share a data reader here."""


def has_nccl() -> bool:
    """Whether `NCCL` can be used. Always False, as in a Caffe built without it."""
    return False


class NCCL:
    """pycaffe's handle of a group of GPUs that train together. It is not supported here.

    Scripts should check `has_nccl()`. Otherwise they get an error that names the alternative.
    """

    def __init__(self, solver: Any, uid: str) -> None:
        self._refuse()

    @staticmethod
    def new_uid() -> str:
        """Raises CaffeError: see the class."""
        NCCL._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise CaffeError(
            "caffe.NCCL is not available here (caffe.has_nccl() is False); train with the command "
            "`caffe train -solver FILE -gpu all`, or on one device without NCCL"
        )
