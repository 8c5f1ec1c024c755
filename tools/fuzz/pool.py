"""Worker processes that run inputs. Each runs many; only a worker that crashed or hung is replaced."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tools.fuzz.kinds import KINDS, Case, ExitCode70, LeftOut

__all__ = ["Finding", "Pool", "run_one"]

TIME_LIMIT = 10.0
MEMORY_LIMIT = 4 << 30
CHUNK = 50
_FORK = multiprocessing.get_context("fork")
Task = tuple[str, int, int]
"""A kind, the first seed and the seed after the last."""


@dataclass(frozen=True)
class Finding:
    """An input that ended neither in success nor in one CaffeError. `fact` is the same for the same fault."""

    what: str
    kind: str
    seed: int
    fact: str
    detail: str = ""


def run_one(name: str, seed: int, seeds: Path) -> Finding | None:
    """Run one input in this process, in a scratch folder that is the current folder meanwhile."""
    from caffe import mode
    from caffe.errors import CaffeError

    scratch = Path(tempfile.mkdtemp(prefix="case-", dir=seeds.parent))
    before = os.getcwd()
    os.chdir(scratch)
    try:
        mode.set_random_seed(seed)
        KINDS[name](Case(random.Random(f"{name}:{seed}"), scratch, seeds))
    except CaffeError:
        pass
    except LeftOut as error:
        return Finding("left out", name, seed, str(error))
    except ExitCode70 as error:
        return Finding("exit code 70", name, seed, _last_place(str(error)), str(error))
    except BaseException as error:
        what = "memory" if _is_memory(error) else "exception"
        return Finding(what, name, seed, _fact(error), traceback.format_exc())
    finally:
        os.chdir(before)
        shutil.rmtree(scratch, ignore_errors=True)
    return None


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error)


def _fact(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/caffe/" in frame.filename] or frames
    place = f"{Path(ours[-1].filename).parent.name}/{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {place}: {str(error)[:150]}"


def _last_place(text: str) -> str:
    """Return the last line of our code in a traceback, and the exception below it."""
    lines = text.splitlines()
    places = [line.strip().split("/caffe/")[-1] for line in lines if line.startswith("  File") and "/caffe/" in line]
    errors = [line for line in lines if line and not line.startswith((" ", "This is"))]
    return f"{places[-1] if places else ''}: {errors[-1][:150] if errors else ''}"


def _work(channel: Connection, progress: Any, seeds: Path) -> None:
    """Run the tasks from the channel; send each finding at once, and the end of each task."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trace = open(_trace_file(seeds, os.getpid()), "w")  # noqa: SIM115 - open as long as the process
    faulthandler.disable()  # a crash is already a finding, and not sent twice
    faulthandler.register(signal.SIGUSR1, trace)
    silence = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silence, number)
    with contextlib.suppress(EOFError):
        while True:
            name, start, stop = channel.recv()
            for seed in range(start, stop):
                progress[0], progress[1] = seed, time.monotonic()
                finding = run_one(name, seed, seeds)
                if finding is not None:
                    channel.send(finding)
            progress[1] = 0
            channel.send(stop - start)


def _trace_file(seeds: Path, process: int) -> Path:
    """Return the file where a worker writes its stack when it gets SIGUSR1."""
    return seeds.parent / f"trace-{process}"


class _Worker:
    def __init__(self, seeds: Path) -> None:
        self.progress = _FORK.RawArray("d", 2)
        self.channel, theirs = _FORK.Pipe()
        self.seeds = seeds
        self.process = _FORK.Process(target=_work, args=(theirs, self.progress, seeds), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        self.task = task
        self.channel.send(task)

    @property
    def late(self) -> bool:
        """Whether the current input has exceeded the time limit."""
        return self.task is not None and 0 < self.progress[1] < time.monotonic() - TIME_LIMIT

    def doing(self) -> str:
        """Return the innermost line of our code that a hanging process executes."""
        pid = self.process.pid or 0
        os.kill(pid, signal.SIGUSR1)
        time.sleep(0.3)
        lines = _trace_file(self.seeds, pid).read_text().partition("Current thread")[2].splitlines()
        ours = [line.strip().rpartition("/caffe/")[2] for line in lines if "/caffe/" in line]
        return f"hang at {ours[0]}" if ours else ""

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()


class Pool:
    """Runs inputs of kinds in `size` worker processes."""

    def __init__(self, seeds: Path, size: int, told: Callable[[Finding], None]) -> None:
        self.seeds = seeds
        self.told = told
        self.done: dict[str, int] = {}
        self._workers = [_Worker(seeds) for _ in range(size)]
        self._ended = 0.0

    def run(self, names: list[str], first: int, count: int, seconds: float | None = None) -> None:
        """Run the seeds from `first` on, `count` of each kind; stop after `seconds`."""
        tasks = self._tasks(names, first, count)
        again: deque[Task] = deque()
        deadline = time.monotonic() + seconds if seconds else float("inf")
        try:
            while True:
                for index, worker in enumerate(self._workers):
                    if worker.task is None:
                        task = again.popleft() if again else next(tasks, None)
                        if task and time.monotonic() < deadline:
                            worker.give(task)
                    elif worker.late:
                        again.extend(self._replace(index, "hang"))
                if all(worker.task is None for worker in self._workers) and not (again and time.monotonic() < deadline):
                    return
                for channel in wait([worker.channel for worker in self._workers], timeout=0.5):
                    index = [worker.channel for worker in self._workers].index(channel)  # type: ignore[arg-type]
                    again.extend(self._hear(index))
        finally:
            for worker in self._workers:
                worker.end()

    @staticmethod
    def _tasks(names: list[str], first: int, count: int) -> Iterator[Task]:
        for start in range(first, first + count, CHUNK):
            for name in names:
                yield name, start, min(start + CHUNK, first + count)

    def _hear(self, index: int) -> list[Task]:
        """Handle a message of a worker; returns the rest of the task of one that crashed."""
        worker = self._workers[index]
        try:
            message = worker.channel.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            code = worker.process.exitcode or 0
            return self._replace(index, f"death by {signal.Signals(-code).name}" if code < 0 else f"exit {code}")
        if isinstance(message, Finding):
            self.told(message)
        else:
            assert worker.task is not None
            self.done[worker.task[0]] = self.done.get(worker.task[0], 0) + message
            worker.task = None
        return []

    def _replace(self, index: int, what: str) -> list[Task]:
        """Replace a worker; returns the rest of its task."""
        worker = self._workers[index]
        detail = worker.doing() if what == "hang" else ""
        worker.end()
        self._workers[index] = _Worker(self.seeds)
        if worker.task is None:
            return []
        name, start, stop = worker.task
        seed = int(worker.progress[0])
        self.told(Finding(what, name, seed, detail or what))
        self.done[name] = self.done.get(name, 0) + seed + 1 - start
        return [(name, seed + 1, stop)] if seed + 1 < stop else []
