"""Engines execute plans: torch call by call, torch for inference, torch.compile, OpenVINO; and CUDA graphs.

An engine is a subclass of `Engine`. One with a `name` can be chosen by `Net.optimize(engine=NAME)` and `--engine NAME`.
"""

from caffe.net.engines import open_vino  # defining the class registers the engine
from caffe.net.engines.compiled import Compiled
from caffe.net.engines.engine import Eager, Engine
from caffe.net.engines.inference import Inference

__all__ = ["Compiled", "Eager", "Engine", "Inference", "open_vino"]
