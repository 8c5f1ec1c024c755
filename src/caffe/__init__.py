"""Caffe for today: the same files, API and commands, on PyTorch.

    import caffe
    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")

Names are imported when they are first used, so that commands which compute nothing start at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caffe.errors import CaffeError

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.layers import layer_types as layer_type_list
    from caffe.layers.python import PythonLayer as Layer
    from caffe.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
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

__version__ = "0.1.0"
TRAIN = 0
TEST = 1

_HOMES = {
    "Blob": "caffe.blob",
    "Layer": "caffe.layers.python:PythonLayer",
    "Net": "caffe.net",
    "get_solver": "caffe.solver",
    "layer_type_list": "caffe.layers:layer_types",
    "set_device": "caffe.mode",
    "set_mode_cpu": "caffe.mode",
    "set_mode_gpu": "caffe.mode",
    "set_random_seed": "caffe.mode",
    **{f"{name}Solver": "caffe.solver" for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")},
}

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "CaffeError",
    "Layer",
    "Net",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "__version__",
    "get_solver",
    "layer_type_list",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'caffe' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value
