"""Starts the processes of `caffe train --procs` on this machine, and ends them together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

from caffe.parallel.environment import LAUNCHER
from caffe.signal_handlers import handling

__all__ = ["launch"]

_POLL = 0.05
_GRACE = 10.0  # seconds for the other processes to end by themselves after one has failed
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")


def launch(words: Sequence[str], count: int, processors: int) -> int:
    """Run Python with these arguments in `count` connected processes; returns the exit code.

    The system chooses a free port. Signals are forwarded to process 0, which tells the others. If a process fails, the
    others end by themselves, or are killed after some seconds; the exit code is that of the failed process.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    running: list[subprocess.Popen[bytes]] = []
    try:
        with _forwarding(running):
            for rank in range(count):
                environment = _environment(rank, count, store.port, max(1, processors // count))
                command = [sys.executable, *words]
                running.append(subprocess.Popen(command, env=environment, start_new_session=True))
            return _wait(running)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
        for process in running:
            process.wait()


def _environment(rank: int, count: int, port: int, threads: int) -> dict[str, str]:
    """Return the environment that torchrun would set, and the number of threads."""
    added = {
        **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, LAUNCHER: os.getpid()},
        "TORCHELASTIC_USE_AGENT_STORE": True,  # the launcher and not process 0 opens the port
    }
    before = {"OMP_NUM_THREADS": str(threads), **os.environ}
    return {**before, **{name: str(value) for name, value in added.items()}}


def _wait(running: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all processes; returns the exit code of the first that failed, or 0."""
    failed, since = 0, 0.0
    while any(process.poll() is None for process in running):
        codes = [(rank, process.poll()) for rank, process in enumerate(running)]
        bad = [(rank, code) for rank, code in codes if code]
        if bad and not failed:
            failed, since = _exit_code(*bad[0], running[bad[0][0]].pid), time.monotonic()
        if failed and time.monotonic() - since > _GRACE:
            break
        time.sleep(_POLL)
    return failed or next((_exit_code(0, code, 0) for process in running if (code := process.poll())), 0)


def _exit_code(rank: int, code: int, pid: int) -> int:
    """Convert the exit code of a process to the shell's. If a signal ended the process, a message says so."""
    if code > 0:
        return code
    if pid:
        name = signal.Signals(-code).name
        print(f"caffe: error: rank {rank} (process {pid}) was ended by {name}", file=sys.stderr, flush=True)
    return 128 - code


@contextmanager
def _forwarding(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Forward signals to process 0, which tells the others, so that all react at the same iteration."""

    def forward(number: int, frame: FrameType | None) -> None:
        if running and running[0].poll() is None:
            running[0].send_signal(number)
        elif not running:
            raise SystemExit(128 + number)

    with handling(_FORWARDED, forward):
        yield
