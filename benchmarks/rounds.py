"""Runs engines in separate processes that take turns, on the same processors and with the same number of threads."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import real
from benchmarks.arguments import check_names, numbers, words

ROOT = Path(__file__).parent.parent
OURS = "Cafetière"
Found = dict[str, Any]
LONG = 150.0
"""Milliseconds of a call that is faster with more threads, whatever the engine."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Kind:
    """An engine in a benchmark: its name in tables, its module in `benchmarks.engines`, its job and options."""

    name: str
    module: str
    job: str
    options: dict[str, Any] = field(default_factory=dict)
    like: str = ""
    """The engine whose number of threads is used, if starting this engine for each number would take minutes."""
    extra: bool = False
    """Measured only if `-engines` names it, because it takes minutes."""


class EngineError(Exception):
    """An engine did not start, or ended."""


class Engine:
    """A running engine. It measures milliseconds per call, one turn at a time."""

    def __init__(self, kind: Kind, folder: Path, threads: int) -> None:
        self.kind, self.threads = kind, threads
        self.times: list[float] = []
        self.least = float("inf")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads)), "GLOG_minloglevel": "2"}
        python = sys.executable
        if kind.module == "real_caffe":
            python = real.interpreter()
            environment.pop("PYTHONPATH", None)  # both packages are called caffe
        command = [python, str(ROOT / "benchmarks" / "worker.py"), kind.module, kind.job, str(folder)]
        self._process = subprocess.Popen(
            [*command, json.dumps(kind.options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=self._errors, env=environment, cwd=ROOT,
        )  # fmt: skip
        self._answer()

    def ask(self, *request: object) -> Found:
        """Return the answer to a request to `benchmarks.worker`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # no answer will come: `_answer` reports why
            print(*request, file=self._process.stdin, flush=True)
        return json.loads(self._answer())

    def turn(self, seconds: float) -> None:
        """Run the turn of one round."""
        found = self.ask("turn", seconds)
        self.times.append(found["ms"])
        self.least = min(self.least, found["least"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            why = reason(self._errors.read())
            self.close()
            raise EngineError(f"{self.kind.name}: {why}")
        return line


def reason(said: str) -> str:
    """Return why a process ended, from its output: the text of glog's fatal line, else the last line that names an
    exception, else the last line.
    """
    lines = said.strip().splitlines() or ["it said nothing"]
    fatal = re.search(r"^F\d{4} .*?\] (.*?)( \(known types: .*)?$", said, re.MULTILINE)
    if fatal:
        return fatal[1]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    return (named or lines)[-1]


def measure(
    kinds: Sequence[Kind], folder: Path, given: argparse.Namespace, after: Callable[[Engine], Found] = lambda _: {}
) -> dict[str, Found]:
    """Measure the engines in turn, each with its best number of threads.

    Returns for each engine {"ms": median, "times": [...], "least": ms, "threads": n} and the results of `after`, or
    {"error": why}.
    """
    found: dict[str, Found] = {}
    engines: dict[str, Engine] = {}
    for kind in kinds:
        counts = [engines[kind.like].threads] if kind.like in engines else given.threads
        try:
            engines[kind.name] = best_threads(kind, folder, counts, given.seconds)
        except (EngineError, real.Missing) as error:
            if kind.name == OURS:
                raise
            found[kind.name] = {"error": str(error)}
            print(f"  {error}", flush=True)
    for _ in range(given.rounds):
        for engine in engines.values():
            engine.turn(given.seconds)
    for name, engine in engines.items():
        found[name] = {"ms": statistics.median(engine.times), "threads": engine.threads, "least": engine.least}
        found[name] |= {"times": engine.times, **after(engine)}
        engine.close()
    return {kind.name: found[kind.name] for kind in kinds}


def best_threads(kind: Kind, folder: Path, counts: Iterable[int], seconds: float) -> Engine:
    """Return the engine, warmed up, with the number of threads that is fastest in a short first pass.

    The largest number comes first, and is the best one without a comparison if a call takes longer than LONG.
    """
    best: Engine | None = None
    for count in sorted(counts, reverse=True):
        if best is not None and best.least > LONG:
            break
        engine = Engine(kind, folder, count)
        engine.turn(0)
        engine.turn(seconds)
        if best is not None and best.times[-1] <= engine.times[-1]:
            engine.close()
            continue
        if best is not None:
            best.close()
        best = engine
    assert best is not None
    best.times.clear()
    return best


def options(prog: str, nets: Collection[str], argv: Sequence[str], more: str = "") -> argparse.Namespace:
    """Parse the arguments that benchmarks of nets share, and one `more`; pins this process and its engines to
    processors.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {prog}")
    cores = min(2, len(os.sched_getaffinity(0)))
    parser.add_argument("-nets", type=words, default=list(nets), help="by default all")
    parser.add_argument("-engines", type=words, default=[], help="parts of their names")
    parser.add_argument("-rounds", type=int, default=5)
    parser.add_argument("-seconds", type=float, default=0.3, help="how long a turn lasts")
    parser.add_argument("-cores", type=int, default=cores, help="how many processors all engines have")
    parser.add_argument("-threads", type=numbers, help="to choose from")
    if more:
        parser.add_argument(f"-{more}", type=words, default=[])
    given = parser.parse_args(argv)
    check_names(parser, "net", given.nets, nets)
    given.threads = given.threads or sorted({1, given.cores})
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    given.whole = set(given.nets) == set(nets) and not given.engines and given.rounds >= 5
    return given


def chosen(kinds: Sequence[Kind], given: argparse.Namespace) -> list[Kind]:
    """Return the engines that `-engines` names, and always ours; if it names none, all but those that are `extra`."""
    for part in given.engines:
        if not any(part.lower() in kind.name.lower() for kind in kinds):
            names = ", ".join(kind.name for kind in kinds)
            raise SystemExit(f"benchmarks: no engine has {part} in its name; the engines are: {names}")
    wanted = [part.lower() for part in given.engines]
    if not wanted:
        return [kind for kind in kinds if not kind.extra]
    return [kind for kind in kinds if kind.name == OURS or any(p in kind.name.lower() for p in wanted)]
