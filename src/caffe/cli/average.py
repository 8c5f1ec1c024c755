"""`caffe average`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.plot import OUT
from caffe.errors import CaffeError


@command("model", "iterations", "gpu", "level", "stage", OUT, task="train", arguments="FILE...")
def average(flags: SimpleNamespace, display: Display) -> None:
    """Average the weights of snapshots, or take out a moving average.

    Writes the mean of weight files of one run (.caffemodel or HDF5) to -out. For a .solverstate, the moving average in
    it (ema_decay in the solver) is used. Averaged weights need new BatchNorm statistics: with -model, the net
    of that prototxt runs over -iterations training batches to compute them.

        caffe average net_iter_8000.caffemodel net_iter_9000.caffemodel -o net_mean.caffemodel
        caffe average net_iter_9000.solverstate -o net_ema.caffemodel
        caffe average a.caffemodel b.caffemodel -o c.caffemodel -model train_val.prototxt -iterations 100
    """
    if not flags.out:
        raise CaffeError("Need a file for the averaged weights: give one with -out FILE")
    if flags.model and flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: expected at least 1")
    from caffe.proto import weight_average as average

    net, arrays = average.average(flags.arguments)
    if flags.model:
        _recompute(flags, display, net, arrays)
    average.save(flags.out, net, arrays)
    log.info("caffe", f"Wrote the average of {len(flags.arguments)} file(s) to {flags.out}")
    display.say(f"wrote {flags.out}")


def _recompute(flags: SimpleNamespace, display: Display, spec: Any, arrays: dict[str, Any]) -> None:
    """Write the BatchNorm statistics of the averaged weights, computed on the training data, into `arrays`."""
    from caffe.cli import _device, _nets
    from caffe.ensemble import members
    from caffe.solver import statistics

    _device.use(flags.gpu, "caffe", f'"-gpu {flags.gpu}"')
    net = _nets.open_net(flags, "TRAIN")
    try:
        members.assign(net, spec, arrays)
        with display.bar("statistics", flags.iterations) as bar:
            names = statistics.recompute(net, flags.iterations, lambda done: bar.update(done, ""))
        for name in names:
            if name not in arrays:
                raise CaffeError(
                    f'layer "{name}" (BatchNorm) of {flags.model} is not in the averaged files; use their net'
                )
            arrays[name] = [blob.data.copy() for blob in net.params[name]]
    finally:
        net.close()
    what = f"{len(names)} BatchNorm layer(s)" if names else "no layer: the net has no BatchNorm"
    log.info("caffe", f"Computed the statistics of {what}")
    display.say(f"statistics of {what}")
