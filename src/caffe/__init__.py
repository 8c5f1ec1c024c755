"""Caffe on PyTorch, with the same files, API and commands.

    import caffe
    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")

Names are imported on first use, so that commands that compute nothing start quickly. `caffe.layers` and `caffe.params`
are those of NetSpec (`from caffe import layers as L, params as P`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caffe import limits, stand_ins
from caffe.errors import CaffeError

limits.limit_pixels()
stand_ins.install()

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.classifier import Classifier
    from caffe.detector import Detector
    from caffe.ensemble.net import Ensemble
    from caffe.layers.python import PythonLayer as Layer
    from caffe.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
    from caffe.net import Net
    from caffe.net_spec import NetSpec, params, to_proto
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
        get_solver,
    )
    from caffe.timer import Timer

__version__ = (
    "1.0.0"  # the Caffe version of this API, which scripts compare; this package's version is the distribution's
)
TRAIN = 0
TEST = 1

_HOMES = {
    "Blob": "caffe.blob",
    "Classifier": "caffe.classifier",
    "Detector": "caffe.detector",
    "Ensemble": "caffe.ensemble.net",
    "Layer": "caffe.layers.python:PythonLayer",
    "NetSpec": "caffe.net_spec",
    "Timer": "caffe.timer",
    "layers": "caffe.net_spec",
    "params": "caffe.net_spec",
    "to_proto": "caffe.net_spec",
    **dict.fromkeys(["set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"], "caffe.mode"),
    **dict.fromkeys(
        [
            *("NCCL", "Net", "get_solver", "has_nccl", "init_log", "layer_type_list", "set_multiprocess"),
            *("set_solver_count", "set_solver_rank", "solver_count", "solver_rank"),
            *(f"{name}Solver" for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")),
        ],
        "caffe.pycaffe",
    ),
}
_MODULES = (
    *("classifier", "coord_map", "detector", "draw", "io", "log", "models", "net_spec", "proto", "pycaffe"),
    *("torch", "_caffe"),
)

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "CaffeError",
    "Classifier",
    "Detector",
    "Ensemble",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "params",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"caffe.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'caffe' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
