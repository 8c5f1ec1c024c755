"""Tests: the mean loss and mean outputs of a test net over its batches."""

from __future__ import annotations

from collections.abc import Callable

from caffe import log
from caffe.solver.outputs import gathering, log_outputs, outputs_of
from caffe.solver.run import TrainingRun

__all__ = ["run_test"]


def run_test(solver: TrainingRun, index: int, stopped: Callable[[], bool]) -> tuple[float, dict[str, list[float]]]:
    """Return the mean loss and outputs of test net `index`.

    `stopped` is called before each batch; True aborts the test.
    """
    log.info("solver.cpp:347", f"Iteration {solver.iter}, Testing net (#{index})")
    net, count = solver.test_nets[index], solver.param.test_iter[index]
    net.share_with(solver.net)
    solver.together.share_statistics()
    results = solver.together.batches(index, count, lambda: (net.evaluate(), outputs_of(net)), stopped)
    if results is None:
        log.info("solver.cpp:396", "Test interrupted.")
        return 0.0, {}
    loss, gathered = 0.0, gathering(solver.param)
    for batch_loss, batch in results:
        loss += batch_loss
        gathered.add(batch)
    outputs = gathered.outputs(count)
    loss /= max(count, 1)
    if solver.param.test_compute_loss:
        log.info("solver.cpp:401", f"Test loss: {log.number(loss)}")
    log_outputs("solver.cpp:414", "Test", net, outputs)
    return loss, outputs
