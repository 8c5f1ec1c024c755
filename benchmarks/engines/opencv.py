"""OpenCV's DNN module."""

from __future__ import annotations

import os
from collections.abc import Callable

import cv2
import numpy as np

cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))


def infer(folder: str) -> Callable[[], dict[str, np.ndarray]]:
    """Runs the unchanged prototxt and weight file."""
    net, data = _net(folder), np.load(folder + "/data.npy")
    names = net.getUnconnectedOutLayersNames()

    def work() -> dict[str, np.ndarray]:
        net.setInput(data)
        return dict(zip(names, net.forward(names), strict=True))

    return work


def load(folder: str) -> Callable[[], object]:
    """Builds the net with its weights, then returns its outputs."""
    nets: list[cv2.dnn.Net] = []
    data = np.load(folder + "/data.npy")

    def work() -> None:
        if not nets:
            nets.append(_net(folder))
        else:
            nets[0].setInput(data)
            nets[0].forward()

    return work


def _net(folder: str) -> cv2.dnn.Net:
    return cv2.dnn.readNetFromCaffe(folder + "/net.prototxt", folder + "/net.caffemodel")
