"""Engines execute plans: eager torch, torch for inference, torch.compile, OpenVINO; and CUDA graphs.

An engine is a subclass of `Engine`. `Net.optimize(engine=NAME)` and `--engine NAME` select an engine with a `name`.
All modules of this folder are imported automatically.
"""

import importlib
import pkgutil

from caffe.net.engines.compiled import Compiled
from caffe.net.engines.engine import Eager, Engine
from caffe.net.engines.inference import Inference
from caffe.net.engines.recomputing import Recomputing

__all__ = ["Compiled", "Eager", "Engine", "Inference", "Recomputing"]

for _module in pkgutil.iter_modules(__path__):  # importing a class registers its engine
    importlib.import_module(f"{__name__}.{_module.name}")
