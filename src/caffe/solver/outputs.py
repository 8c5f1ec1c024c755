"""Outputs of a net in tests and displays: means over the batches, and their log lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caffe import log
from caffe.errors import SolverError
from caffe.net import Net
from caffe.solver.detections import Precisions

__all__ = ["DetectionsAndMeans", "Means", "gathering", "log_outputs", "outputs_of"]


def log_outputs(place: str, kind: str, net: Net, outputs: dict[str, list[float]]) -> None:
    """Log one line for each value of each output, with its contribution to the loss."""
    if not log.enabled():
        return
    weights, number = net.blob_loss_weights, 0
    for name, values in outputs.items():
        weight = weights[name]
        for value in values:
            part = f" (* {log.number(weight)} = {log.number(weight * value)} loss)" if weight else ""
            log.info(place, f"    {kind} net output #{number}: {name} = {log.number(value)}{part}")
            number += 1


def gathering(param: Any) -> Means | Precisions | DetectionsAndMeans:
    """Create the collector for the outputs of a test that the solver's `eval_type` asks for."""
    if param.eval_type == "detection":
        return Precisions(param.ap_version, param.show_per_class_result)
    if param.eval_type == "detection_segmentation":
        return DetectionsAndMeans(Precisions(param.ap_version, param.show_per_class_result))
    return Means()


def outputs_of(net: Net, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return copies of a net's outputs of the last batch, or of the blobs in `names`."""
    return {name: net.blobs[name].data.copy() for name in (net.outputs if names is None else names)}


class Means:
    """The mean of each output over the batches, element by element."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Add the outputs of one batch, given by name."""
        for name, array in batch.items():
            values = array.ravel().astype(np.float64)
            if name in self.sums and self.sums[name].shape != values.shape:
                fact = f"{values.size} values in one batch and {self.sums[name].size} in another"
                raise SolverError(
                    f'test output "{name}" has {fact}, so they have no mean; end it in a Silence layer, or, if a '
                    'DetectionEvaluate layer makes it, set eval_type: "detection"'
                )
            self.sums[name] = self.sums[name] + values if name in self.sums else values

    def outputs(self, count: int) -> dict[str, list[float]]:
        """Return the means over `count` batches, flattened."""
        return {name: (total / count).tolist() for name, total in self.sums.items()}


class DetectionsAndMeans:
    """The mean average precision of a net's first output, and the means of the others.

    The others are, for example, the intersection over union of a SegmentationEvaluate layer.
    Source: eric612/MobileNet-YOLO, solver.cpp.
    """

    def __init__(self, precisions: Precisions) -> None:
        self.precisions, self.means = precisions, Means()

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Add the outputs of one batch, given by name."""
        first = next(iter(batch), "")
        self.precisions.add({name: array for name, array in batch.items() if name == first})
        self.means.add({name: array for name, array in batch.items() if name != first})

    def outputs(self, count: int) -> dict[str, list[float]]:
        """Return the mean average precision, then the means over `count` batches."""
        return {**self.precisions.outputs(count), **self.means.outputs(count)}
