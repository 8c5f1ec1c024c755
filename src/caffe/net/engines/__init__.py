"""Engines execute plans: eager torch, torch for inference, torch.compile, OpenVINO; and CUDA graphs.

An engine is a subclass of `Engine`. `Net.optimize(engine=NAME)` and `--engine NAME` select an engine with a `name`.
"""

from caffe.net.engines import open_vino  # importing the class registers the engine
from caffe.net.engines.compiled import Compiled
from caffe.net.engines.engine import Eager, Engine
from caffe.net.engines.inference import Inference
from caffe.net.engines.recomputing import Recomputing

__all__ = ["Compiled", "Eager", "Engine", "Inference", "Recomputing", "open_vino"]
