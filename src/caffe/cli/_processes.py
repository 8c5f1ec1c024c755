"""`caffe train` with several processes: starts them, selects their devices, and connects them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from caffe import log, mode
from caffe.cli import _device
from caffe.data.pipeline import shard
from caffe.data.pipeline.pool import cores
from caffe.errors import CaffeError, ParallelError
from caffe.parallel import environment, group
from caffe.parallel.environment import launched
from caffe.parallel.launch import launch

__all__ = ["device_of", "joined", "launched", "started"]


def started(command: str, flags: SimpleNamespace, check: Callable[[], object]) -> int | None:
    """Start the command in the processes that the flags ask for, and return their exit code.

    `check` raises the errors of the files that all processes read, so that they are shown once. Returns None if this
    process must do the work itself, because it is one of them or the only one.
    """
    if environment.launched():
        return None
    if flags.procs < 0:
        raise CaffeError(f"-procs {flags.procs}: expected the number of processes, 1 or more")
    numbers = _device.gpus(flags.gpu)
    count = flags.procs or max(1, len(numbers))
    if len(numbers) > 1 and count != len(numbers):
        raise CaffeError(f"-procs {count} and -gpu {flags.gpu}: one process per device needs -procs {len(numbers)}")
    if count == 1:
        return None
    check()
    if count > cores() and not numbers:
        log.warning("parallel.py", f"{count} processes share {cores()} processor(s), so they slow each other down")
    words = [f"-{name}={_text(value)}" for name, value in flags.given.items() if name != "procs"]
    return launch(["-m", "caffe", command, *words], count, cores())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def device_of(numbers: list[int], wanted: str) -> list[int]:
    """Return the GPU, of these, that this process uses; all of them if no launcher started it."""
    if not numbers or not environment.launched():
        return numbers
    local = environment.local_rank()
    if local >= len(numbers):
        raise CaffeError(
            f"-gpu {wanted}: process {local} of this machine has no device: there are {len(numbers)}; start as many "
            "processes as devices"
        )
    return [numbers[local]]


@contextmanager
def joined(flags: SimpleNamespace, divide: bool = False) -> Iterator[None]:
    """Connect to the other processes for the block, as described by the launcher's environment, if there is a launcher.

    Errors in the block are prefixed with the rank of the process. A process beside that of `-procs` which meets the
    error of process 0, for instance in the solver, ends without showing it again.
    """
    if flags.timeout < 1:
        raise CaffeError(f"-timeout {flags.timeout}: expected seconds, 1 or more")
    if environment.rank():
        log.logger.setLevel(logging.ERROR)  # process 0 reports everything
        flags.plot = flags.logdir = flags.on_finding = ""
        flags.watch, flags.monitor = "off", False
    processes = environment.join(mode.device(), flags.timeout)
    shard.divide_batches(divide)
    try:
        with group.joined(processes):
            yield
    except ParallelError:
        raise
    except CaffeError as error:
        if environment.LAUNCHER in os.environ and processes.repeats_first(error):
            raise SystemExit(1) from None
        raise (error if processes.size == 1 else error.reworded(f"{processes}: {error}")) from error.__cause__
    finally:
        shard.divide_batches(False)
        processes.leave()
