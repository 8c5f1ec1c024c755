"""The functions of pycaffe's core: logging, layer types, and process-wide settings of multi-GPU scripts."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import numpy as np
import torch.distributed as dist

from caffe import log
from caffe.data.pipeline import shard
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.parallel.group import Member
from caffe.parallel.processes import Processes
from caffe.solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
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

    `stderr` exists for old scripts. Only True is supported.
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
    """Whether several processes can train together here, by `NCCL`: on torch.distributed, also without a GPU."""
    return dist.is_available()


class NCCL(Member):
    """pycaffe's handle of the processes that train together: NCCL between GPUs, gloo between CPUs.

        uid = caffe.NCCL.new_uid()                 # once; then in each process, after set_solver_count and -rank:
        nccl = caffe.NCCL(solver, uid)
        nccl.bcast()
        solver.add_callback(nccl)
        solver.step(1000)

    The constructor waits for all processes. Gradients are averaged before the solver's callbacks are called.
    """

    _stores: ClassVar[list[dist.TCPStore]] = []
    """The stores through which the processes of a uid that this process created find each other."""

    def __init__(self, solver: Solver, uid: str) -> None:
        host, _, port = str(uid).rpartition(":")
        if not host or not port.isdigit():
            raise CaffeError(f"NCCL: the uid is {uid!r:.80}, expected one that caffe.NCCL.new_uid() returned")
        place = shard.current()
        if not isinstance(solver, Solver):
            raise CaffeError(f"NCCL: got {solver!r:.80} as solver, expected one such as caffe.SGDSolver(file)")
        if place.size == 1:
            raise CaffeError("NCCL: needs several processes; call caffe.set_solver_count(N) first")
        store = dist.TCPStore(host, int(port), is_master=False, wait_for_workers=False)
        self.group = Processes(store, place.rank, place.size, solver.net.device)
        self._solver = solver

    @staticmethod
    def new_uid() -> str:
        """Return a name by which a group of processes finds each other. The calling process must stay alive."""
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        NCCL._stores.append(store)
        return f"localhost:{store.port}"

    def bcast(self) -> None:
        """Copy the weights and the data positions of process 0 to every process."""
        self._solver.join(self.group)
        self._solver.together.equalize()
