"""The flow of Caffe's python/train.py, on CPUs: `python -m tests.parallel.train_flow SOLVER OUTPUT`."""

from __future__ import annotations

import sys
from multiprocessing import Process

import numpy as np

import caffe

COUNT = 2


def train(solver: str, output: str) -> None:
    """Train in as many processes as `COUNT`."""
    uid = caffe.NCCL.new_uid()
    caffe.init_log(2, True)
    processes = []
    for rank in range(COUNT):
        process = Process(target=solve, args=(solver, uid, rank, output))
        process.daemon = True
        process.start()
        processes.append(process)
    for process in processes:
        process.join(100)
    sys.exit(any(process.exitcode != 0 for process in processes))


def solve(proto: str, uid: str, rank: int, output: str) -> None:
    """What each process does."""
    caffe.set_mode_cpu()
    caffe.set_solver_count(COUNT)
    caffe.set_solver_rank(rank)
    caffe.set_multiprocess(True)

    solver = caffe.SGDSolver(proto)
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    solver.step(solver.param.max_iter)
    np.savez(f"{output}_{rank}.npz", **{name: blobs[0].data for name, blobs in solver.net.params.items()})


if __name__ == "__main__":
    train(*sys.argv[1:])
