"""A net's outputs over the batches of a test or a display: their sums and their lines in the log."""

from __future__ import annotations

import numpy as np

from caffe import log
from caffe.errors import SolverError
from caffe.net import Net

__all__ = ["add_outputs", "log_outputs"]


def log_outputs(place: str, kind: str, net: Net, outputs: dict[str, list[float]]) -> None:
    """A line for each value of each output, with its share of the loss."""
    if not log.enabled():
        return
    weights, number = net.blob_loss_weights, 0
    for name, values in outputs.items():
        weight = weights[name]
        for value in values:
            part = f" (* {log.number(weight)} = {log.number(weight * value)} loss)" if weight else ""
            log.info(place, f"    {kind} net output #{number}: {name} = {log.number(value)}{part}")
            number += 1


def add_outputs(net: Net, sums: dict[str, np.ndarray]) -> None:
    """Add the net's outputs, flattened, to `sums`."""
    for name in net.outputs:
        values = net.blobs[name].data.ravel().astype(np.float64)
        if name in sums and sums[name].shape != values.shape:
            raise SolverError(
                f'test output "{name}" has {values.size} values in one batch and {sums[name].size} in another, so they '
                "have no mean; end it in a Silence layer"
            )
        sums[name] = sums[name] + values if name in sums else values
