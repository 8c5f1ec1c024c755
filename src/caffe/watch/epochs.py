"""Log lines per epoch, if the length of the training data is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caffe import log
from caffe.solver import Watcher
from caffe.solver.epochs import records
from caffe.solver.run import TrainingRun

__all__ = ["Epochs"]

_LINES, _LOOKS = 100, 50


class Epochs(Watcher):
    """Logs `epoch 3/10: loss 0.12, train accuracy 0.95, test accuracy 0.94, lr 0.01` at the end of epochs.

    The loss is the mean over the epoch's iterations. The train accuracy is the mean of some dozen batches, if the TRAIN
    net has such an output. The test accuracy is that of the last test. At most a hundred epochs of a run are logged.
    """

    def __init__(self) -> None:
        self.length = 0.0  # iterations per epoch
        self.total = self.every = 0
        self.accuracy = ""
        self._sum, self._count, self._next = 0.0, 0, 0
        self._right: list[float] = []
        self._tested: float | None = None

    def started(self, solver: TrainingRun) -> None:
        batch, count = records(solver.net)
        if not count or solver.param.max_iter * batch * solver.param.iter_size < count:
            return
        self.length = count / (batch * solver.param.iter_size)
        self.total = math.ceil(solver.param.max_iter / self.length)
        self.every = max(1, math.ceil(self.total / _LINES))
        self.accuracy = _accuracy(solver.net.outputs)
        self._plan(int(solver.iter / self.length), solver.param.max_iter)

    def _plan(self, done: int, most: int) -> None:
        """Find the iteration after which the next line is due, after `done` epochs."""
        self._next = min(most, math.ceil((done // self.every + 1) * self.every * self.length))

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        if not self.length:
            return
        self._sum, self._count = self._sum + loss, self._count + 1
        if self.accuracy and iteration % max(1, int(self.length * self.every) // _LOOKS) == 0:
            self._right.append(float(solver.net.blobs[self.accuracy].data.mean()))
        if iteration + 1 >= self._next:
            last = iteration + 1 >= solver.param.max_iter
            over = int((iteration + 1) / self.length)
            self._tell(self.total if last else over, rate)
            self._plan(over, solver.param.max_iter)

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        name = _accuracy(list(outputs))
        if net_index == 0 and name and len(outputs[name]) == 1:
            self._tested = outputs[name][0]

    def _tell(self, epoch: int, rate: float) -> None:
        facts = [f"loss {log.number(self._sum / self._count)}"]
        if self._right:
            facts.append(f"train accuracy {log.number(sum(self._right) / len(self._right))}")
        if self._tested is not None:
            facts.append(f"test accuracy {log.number(self._tested)}")
        log.info("watch", f"epoch {epoch}/{self.total}: {', '.join(facts)}, lr {log.number(rate)}")
        self._sum, self._count, self._right = 0.0, 0, []


def _accuracy(names: Sequence[str]) -> str:
    """Return the first output whose name contains "accuracy"."""
    return next((name for name in names if "accuracy" in name.lower()), "")
