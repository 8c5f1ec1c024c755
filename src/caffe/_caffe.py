"""The name of pycaffe's extension module, for scripts that import classes and functions from it."""

from __future__ import annotations

from caffe import __version__, log
from caffe.blob import Blob
from caffe.blob_vec import BlobVec
from caffe.layers.python import PythonLayer as Layer
from caffe.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from caffe.net import Net
from caffe.proto.caffe_pb2 import LayerParameter, SolverParameter
from caffe.pycaffe import (
    NCCL,
    has_nccl,
    init_log,
    layer_type_list,
    set_multiprocess,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
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

BoolVec = DtypeVec = IntVec = LayerVec = NetVec = RawBlobVec = StringVec = list
"""The extension's vector types are Python lists here."""

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "BoolVec",
    "DtypeVec",
    "IntVec",
    "Layer",
    "LayerParameter",
    "LayerVec",
    "NesterovSolver",
    "Net",
    "NetVec",
    "RMSPropSolver",
    "RawBlobVec",
    "SGDSolver",
    "Solver",
    "SolverParameter",
    "StringVec",
    "Timer",
    "__version__",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]
