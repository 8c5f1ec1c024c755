"""OpenVINO on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import openvino


def infer(folder: str, precision: str = "f32") -> Callable[[], dict[str, np.ndarray]]:
    """Compiled for latency, with this arithmetic precision."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": os.environ["OMP_NUM_THREADS"],
    }
    request = openvino.Core().compile_model(folder + "/net.onnx", "CPU", settings).create_infer_request()
    data = np.load(folder + "/data.npy")

    def work() -> dict[str, np.ndarray]:
        found = request.infer([data], share_inputs=True, share_outputs=True)
        return {key.get_any_name(): array for key, array in found.items()}

    return work
