"""`caffe plot_training_log`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError


@command(task="tools", arguments="TYPE PICTURE LOG...")
def plot_training_log(flags: SimpleNamespace, display: Display) -> None:
    """Draw one quantity of training logs over iterations or seconds.

    TYPE is 0 or 1 for the test accuracy, 2 or 3 for the test loss, 4 or 5 for the learning rate, 6 or 7 for the
    training loss; even numbers are over iterations, odd ones over seconds. To draw all of them in one picture, use
    caffe plot.

        caffe plot_training_log 6 loss.png first.log second.log
    """
    from caffe import plot, train_log

    kind, picture, *logs = flags.arguments
    if not kind.isdecimal() or int(kind) >= len(train_log.CHARTS):
        kinds = ", ".join(f"{i} {quantity} vs. {unit}" for i, (quantity, unit, _) in enumerate(train_log.CHARTS))
        raise CaffeError(f'chart type "{kind}": expected one of: {kinds}')
    plot.check_output(picture)
    train_log.chart(int(kind), logs, picture)
    print(f"wrote {picture}")
