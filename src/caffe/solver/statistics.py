"""The statistics of BatchNorm layers, computed anew for weights that no training run ended with."""

from __future__ import annotations

from collections.abc import Callable

from caffe.errors import NetError
from caffe.layers.normalization import BatchNorm
from caffe.net import Net

__all__ = ["recompute"]


def recompute(net: Net, iterations: int, tell: Callable[[int], None] = lambda done: None) -> list[str]:
    """Replace the statistics in a net's BatchNorm layers by the mean over `iterations` batches, forward only.

    The net is one of the phase TRAIN, whose BatchNorm layers look at the batch, and is of no use for training after
    this. Returns the names of these layers.
    Source: Izmailov et al., arXiv:1803.05407, section 3.3; torch.optim.swa_utils.update_bn.
    """
    layers = [layer for layer in net.layers if isinstance(layer, BatchNorm)]
    for layer in layers:
        if layer.uses_running:
            raise NetError(
                f'layer "{layer.name}" (BatchNorm): keeps its statistics (use_global_stats), so none can be computed; '
                "give a net whose TRAIN phase looks at the batch"
            )
    for layer in layers:
        layer.opt.moving_average_fraction = 1  # every batch counts alike
        for blob in (layer.mean, layer.variance, layer.factor):
            blob.zero_()
    for iteration in range(iterations if layers else 0):
        net.evaluate()
        tell(iteration + 1)
    return [layer.name for layer in layers]
