"""The mean average precision of a detector over the batches of a test, for `eval_type: "detection"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from caffe import log
from caffe.errors import SolverError

__all__ = ["VERSIONS", "Precisions", "average_precision"]

VERSIONS = ("Integral", "MaxIntegral", "11point")
EVALUATIONS = ("classification", "detection", "detection_segmentation")
_SAME = 1e-6
"""Recall values that differ by less than this are treated as equal."""


class Precisions:
    """Collects the outputs of DetectionEvaluate layers over the batches of a test.

    A row is [image, label, score, true positive, false positive] for a detection, or [-1, label, number of ground-truth
    boxes, -1, -1] for a class.
    """

    def __init__(self, version: str = "", show: bool = False) -> None:
        """`version` is the ap_version; `show` logs the average precision of each class."""
        self.version, self.show = version or VERSIONS[0], show
        self.rows: dict[str, list[np.ndarray]] = {}

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Add the outputs of one batch, given by name."""
        for name, values in batch.items():
            if values.ndim != 4 or values.shape[3] != 5:
                raise SolverError(
                    f'test output "{name}" has shape {values.shape}, expected the (1, 1, K, 5) of a DetectionEvaluate '
                    'layer, as eval_type is "detection"; end other outputs in a Silence layer'
                )
            self.rows.setdefault(name, []).append(values.reshape(-1, 5).astype(np.float64))

    def outputs(self, count: int, version: str = "") -> dict[str, list[float]]:
        """Return the mean average precision of each output.

        The mean is taken over the classes that occur in its rows.
        """
        wanted = version or self.version
        return {name: [self._mean(np.concatenate(parts), wanted)] for name, parts in self.rows.items()}

    def _mean(self, rows: np.ndarray, version: str) -> float:
        special, found = rows[rows[:, 0] == -1], rows[(rows[:, 0] != -1) & (rows[:, 3:] != 0).any(1)]
        labels = np.unique(special[:, 1])
        total = 0.0
        for label in labels:
            mine = found[found[:, 1] == label]
            if not len(mine):
                log.warning("solver.cpp:433", f"Missing true_pos for label: {label:g}")
                continue
            positives = special[special[:, 1] == label, 2].sum()
            precision = average_precision(mine[:, 2], mine[:, 3], positives, version)
            if self.show:
                log.info("solver.cpp:449", f"class{label:g}: {log.number(precision)}")
            total += precision
        return total / max(1, len(labels))


def average_precision(score: np.ndarray, right: np.ndarray, positives: float, version: str) -> float:
    """Compute the area under the precision-recall curve of K detections.

    `right` is 1 for a true positive, 0 for a false one.

    Integral: the area under the curve itself. MaxIntegral (VOC 2012, ILSVRC): the precision at each recall is first
    replaced by the largest precision at this or a higher recall. 11point (VOC 2007): the mean of that maximum at the
    recalls 0, 0.1 ... 1.
    """
    if not len(score) or not positives:
        return 0.0
    hits = right[np.argsort(-score, kind="stable")].cumsum()
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / positives
    if version == "Integral":
        steps = np.diff(recall, prepend=0)
        return float((precision * steps)[steps > _SAME].sum())
    most = np.maximum.accumulate(precision[::-1])[::-1]
    if version == "MaxIntegral":
        steps = np.diff(recall)
        return float((most[:-1] * steps)[steps > _SAME].sum() + recall[0] * most[0])
    recall = recall.astype(np.float32).astype(np.float64)  # the original compares float32 recalls with 0.1, 0.2 ...
    first = np.searchsorted(recall, np.arange(11) / 10)
    return float(sum(most[i] for i in first if i < len(most)) / 11)


def check_evaluation(param: Any) -> None:
    """Raise a `SolverError` for an unknown eval_type or ap_version."""
    if param.eval_type not in ("", *EVALUATIONS):
        known = ", ".join(f'"{kind}"' for kind in EVALUATIONS)
        raise SolverError(f'eval_type is "{param.eval_type}", expected one of {known}')
    if param.ap_version and param.ap_version not in VERSIONS:
        known = ", ".join(f'"{version}"' for version in VERSIONS)
        raise SolverError(f'ap_version is "{param.ap_version}", expected one of {known}')
