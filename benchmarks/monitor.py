"""The time until the monitor shows many runs, and its load while nothing changes.

python -m benchmarks.monitor                                 250 logs of 10,000 displayed iterations
python -m benchmarks.monitor -runs 20 -points 1000000        5.4 GB of text
python -m benchmarks.monitor -events                         the same curves as event files, compared with TensorBoard

The logs are made in `-folder` and kept there. Headless Chromium opens the page twice: without the indexes of the
monitor, and with them. "first chart" and "all runs" count from the opening of the page, "all read" from the start of
the command.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.monitor.browser import Browser
from tests.monitor.helpers import DONE, fetch, head

_CARD = "[...document.querySelectorAll('.card')].some(card => card.chart.plot && {condition})"
_TENSORBOARD = "from tensorboard.main import run_main; run_main()"


def main() -> None:
    """Make the files, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-runs", type=int, default=250)
    parser.add_argument("-points", type=int, default=10000)
    parser.add_argument("-folder", type=Path, default=Path(tempfile.gettempdir()) / "caffe_monitor")
    parser.add_argument("-events", action="store_true")
    parser.add_argument("-calm", type=float, default=70, help="seconds without a change before the load is measured")
    given = parser.parse_args()
    folder = given.folder / f"{'events' if given.events else 'logs'}_{given.runs}x{given.points}"
    make(folder, given.runs, given.points, given.events)
    for index in folder.rglob("*.caffe-index"):
        index.unlink()
    for name in ("first start", "with indexes"):
        _report(name, _monitor(folder, given.runs, given.calm))
    if given.events:
        _report("TensorBoard", _tensorboard(folder, given.runs, given.calm))


def make(folder: Path, runs: int, points: int, events: bool) -> None:
    """Write the runs, unless they are there."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(runs):
        noise = np.random.default_rng(number).normal(0, 0.05, points)
        losses = 2 / (1 + np.arange(points) / (points / 20)) + noise * 0.3 + 0.2
        if events:
            _write_events(folder / f"run{number:03}", losses)
        else:
            _write_log(folder / f"run{number:03}.log", losses, noise)
    (folder / "done").touch()


def _write_log(path: Path, losses: np.ndarray, noise: np.ndarray) -> None:
    with open(path, "w") as file:
        file.write(head(0.01, 10 * len(losses)))
        for index, (loss, more) in enumerate(zip(losses.tolist(), noise.tolist(), strict=True)):
            second = index // 100
            stamp = f"I1129 {10 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{index % 100:02}0000 1"
            file.write(
                f"{stamp} solver.cpp:239] Iteration {index * 10} (10 iter/s, 1s/10 iters), loss = {loss:.6g}\n"
                f"{stamp} solver.cpp:258]     Train net output #0: loss = {loss + more:.6g} (* 1 = {loss:.6g} loss)\n"
                f"{stamp} sgd_solver.cpp:112] Iteration {index * 10}, lr = 0.01\n"
            )
        file.write(DONE)


def _write_events(folder: Path, losses: np.ndarray) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer: Any = EventFileWriter(str(folder))
    for index, loss in enumerate(losses.tolist()):
        for tag, value in (("loss", loss), ("rate", 0.01)):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=index * 10, wall_time=1.79e9 + index, summary=summary))
    writer.close()


def _monitor(folder: Path, runs: int, calm: float) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "caffe", "monitor", str(folder), "-port", "0"]
    begin = time.monotonic()
    with _started(command, stdout=subprocess.PIPE) as process:
        url = process.stdout.readline().decode().split()[4]
        found = {"serving s": time.monotonic() - begin}
        browser = Browser(Path(tempfile.mkdtemp()))
        try:
            opened = time.monotonic()
            browser.open(url)
            browser.wait(_CARD.format(condition="card.chart.runs.length"), 120)
            found["first chart s"] = time.monotonic() - opened
            browser.wait(_CARD.format(condition=f"card.chart.tag === 'loss' && card.chart.runs.length === {runs}"), 900)
            found["all runs s"] = time.monotonic() - opened
            _until(lambda: all(run["state"] != "reading" for run in fetch(url + "api/runs")["runs"]))
            found["all read s"] = time.monotonic() - begin
            return {**found, **_load(process.pid, calm)}
        finally:
            browser.close()


def _tensorboard(folder: Path, runs: int, calm: float) -> dict[str, float]:
    words = [sys.executable, "-W", "ignore", "-c", _TENSORBOARD, "--logdir", str(folder), "--port", "6016"]
    begin = time.monotonic()
    with _started([*words, "--reload_interval", "5"], stdout=subprocess.DEVNULL) as process:
        tags = "http://127.0.0.1:6016/data/plugin/scalars/tags"
        _until(lambda: len(fetch(tags)) >= runs)
        return {"all read s": time.monotonic() - begin, **_load(process.pid, calm)}


@contextmanager
def _started(command: list[str], stdout: int) -> Iterator[Any]:
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _until(condition: Callable[[], bool], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(urllib.error.URLError, OSError, ValueError):
            if condition():
                return
        time.sleep(0.2)
    raise SystemExit("the runs were not read in time")


def _load(leader: int, calm: float) -> dict[str, float]:
    """Memory, and the share of a processor while nothing changes, of a process and those that it started."""
    peak = sum(_memory(pid, "VmHWM") for pid in _group(leader))
    time.sleep(calm)
    before = sum(_ticks(pid) for pid in _group(leader))
    time.sleep(20)
    after = sum(_ticks(pid) for pid in _group(leader))
    share = (after - before) / os.sysconf("SC_CLK_TCK") / 20 * 100
    held = sum(_memory(pid, "RssAnon") for pid in _group(leader))
    return {"peak MB": peak, "held MB": held, "idle % of a core": share}


def _group(leader: int) -> list[int]:
    found = subprocess.run(["pgrep", "-g", str(leader)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def _report(name: str, found: dict[str, float]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
