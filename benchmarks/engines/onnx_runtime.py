"""ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import onnxruntime


def infer(folder: str) -> Callable[[], dict[str, np.ndarray]]:
    """With all graph optimizations, which is the default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    session = onnxruntime.InferenceSession(folder + "/net.onnx", options, providers=["CPUExecutionProvider"])
    data = np.load(folder + "/data.npy")
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, {"data": data}), strict=True))
