"""Recomputes the statistics of BatchNorm layers, for weights that do not come from the end of a training run."""

from __future__ import annotations

from collections.abc import Callable

from caffe.errors import NetError
from caffe.layers.normalization import BatchNorm
from caffe.net import Net

__all__ = ["recompute"]


def recompute(net: Net, iterations: int, tell: Callable[[int], None] = lambda done: None) -> list[str]:
    """Set the statistics of a net's BatchNorm layers to the mean over `iterations` batches, by forward passes only.

    The net must have the phase TRAIN, so that its BatchNorm layers compute the statistics of each batch. It cannot be
    trained afterwards. Returns the names of these layers.
    Source: Izmailov et al., arXiv:1803.05407, section 3.3; torch.optim.swa_utils.update_bn.
    """
    layers = [layer for layer in net.layers if isinstance(layer, BatchNorm)]
    for layer in layers:
        if layer.uses_running:
            raise NetError(
                f'layer "{layer.name}" (BatchNorm): has fixed statistics (use_global_stats), so none can be computed; '
                "use a net whose TRAIN phase computes the statistics of the batch"
            )
    for layer in layers:
        layer.opt.moving_average_fraction = 1  # all batches have the same weight
        for blob in (layer.mean, layer.variance, layer.factor):
            blob.zero_()
    for iteration in range(iterations if layers else 0):
        net.evaluate()
        tell(iteration + 1)
    return [layer.name for layer in layers]
