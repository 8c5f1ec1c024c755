"""The board: finds all runs in the given files and folders, and reads them as they grow, in one thread."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from caffe.errors import CaffeError, FileError
from caffe.monitor.alerts import Alerts
from caffe.monitor.event_source import is_event_file
from caffe.monitor.run import Run

__all__ = ["Board", "is_log"]

_PAUSE, _LOOK = 1.0, 5.0  # seconds between two reads, and between two searches for new files
_CALM, _LAZY = 60.0, 3.0  # seconds without a change, and the factor by which pauses are then longer
_TURN = 0.3  # seconds for which one large run is read before the page is updated
_SHARE = 500  # pause after a search for new files, as a multiple of its duration
_DEPTH = 6


class Board:
    """The runs of the page. `listeners` are called, in the reading thread, with the numbers of runs that changed."""

    def __init__(self, paths: Sequence[str | Path], alerts: Alerts | None = None) -> None:
        self.paths = [Path(path) for path in paths]
        for path in self.paths:
            if not os.path.exists(path):
                fact = f"{path}: there is no such file or folder (current folder: {os.getcwd()})"
                raise FileError(f"{fact}; give logs of training runs, or folders with logs or event files")
        self.runs: list[Run] = []
        self.listeners: list[Callable[[set[int]], None]] = []
        self.alerts = alerts
        self._known: set[Path] = set()
        self._real: set[Path] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="monitor", daemon=True)
        self.find()

    def start(self) -> None:
        """Start the reading thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading and write the indexes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for run in self.runs:
            run.keep(last=True)

    def find(self) -> set[int]:
        """Add the new runs in the given folders; returns their numbers."""
        new = set()
        for given in self.paths:
            for path in _runs_below(given):
                if path in self._known:
                    continue
                real = path.resolve()
                self._known.add(path)
                if real not in self._real:
                    self._real.add(real)
                    new.add(len(self.runs))
                    self.runs.append(Run(len(self.runs), self._name(given, path), path))
        return new

    def read(self, look: bool = True, now: float = math.inf) -> tuple[set[int], bool]:
        """Read a piece of each run; returns the numbers of the changed runs, and whether more data are available.

        Each new run gets one piece. After that, the unfinished runs are read one after the other, so that only one of
        them is in memory as a whole. Runs that are not due at the time `now` are skipped.
        """
        changed, more = self.find() if look else set(), False
        turn = next((run for run in self.runs if run.reading and run.begun), None)
        for run in self.runs:
            if self._stop.is_set():
                break
            if run.due > now and not look:
                continue
            if run.reading and run.begun and run is not turn:
                more = True
                continue
            different, unread = self._read(run, look, run is turn)
            if different:
                changed.add(run.number)
            more |= unread
            run.wait(now, different or unread)
            if self.alerts and not run.reading:
                self.alerts.check(run)
        return changed, more

    def _read(self, run: Run, look: bool, on: bool) -> tuple[bool, bool]:
        """Read a piece of a run, or pieces for a while if `on`; returns whether it changed and whether more follows."""
        end = time.monotonic() + _TURN
        try:
            looked = run.look() if look else False
            different, unread = run.poll()
            while on and unread and time.monotonic() < end and not self._stop.is_set():
                _, unread = run.poll()
        except Exception as error:  # an error in one run must not stop the others
            text = str(error) if isinstance(error, CaffeError | OSError) else f"cannot be read: {error!r}"
            different, unread, looked = run.message != text, False, False
            run.message, run.reading = text, False
        return different or looked, unread

    def _follow(self) -> None:
        looked, took = -_LOOK, 0.0
        was_reading, active = True, time.monotonic()
        while not self._stop.is_set():
            begin = time.monotonic()
            pace = _LAZY if begin - active > _CALM else 1.0
            look = begin - looked >= max(_LOOK * pace, _SHARE * took)
            changed, more = self.read(look, begin)
            if look:
                looked, took = begin, 0.0 if more else time.monotonic() - begin
            if was_reading and not more:
                changed |= {run.number for run in self.runs}
            was_reading = more
            if changed:
                active = time.monotonic()
                for listener in list(self.listeners):
                    listener(changed)
            if not more:
                self._stop.wait(_PAUSE * pace)

    def _name(self, given: Path, path: Path) -> str:
        """Return a unique name: the path below the given folder, or as much of the path as is needed."""
        name = str(path.relative_to(given)) if path != given else path.name or str(path.resolve())
        if path == given or name == ".":
            name = path.resolve().name
        taken = {run.name for run in self.runs}
        parts = list(path.resolve().parts)
        for count in range(1, len(parts)):
            if name not in taken:
                return name
            name = str(Path(*parts[-count:]))
        return str(path.resolve())


def is_log(path: Path) -> bool:
    """Whether a file name in a folder is that of a log."""
    return ".log" in path.name.lower() and not path.name.startswith(".") and not path.is_symlink()


def _runs_below(path: Path, depth: int = 0) -> Iterator[Path]:
    """Return the logs in a folder and its subfolders, and the folders with event files. For a file, the file itself."""
    if not path.is_dir():
        yield path
        return
    with suppress(OSError):
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        if any(is_event_file(Path(entry.name)) for entry in entries):
            yield path
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and depth < _DEPTH and not entry.name.startswith("."):
                yield from _runs_below(Path(entry.path), depth + 1)
            elif entry.is_file() and is_log(Path(entry.path)):
                yield Path(entry.path)
