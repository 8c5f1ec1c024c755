"""A run: its files, and their combined content."""

from __future__ import annotations

import glob
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from caffe.monitor import index
from caffe.monitor.curve import Arrays, speed
from caffe.monitor.event_source import EventSource, is_event_file
from caffe.monitor.facts import Facts
from caffe.monitor.log_source import LogSource
from caffe.monitor.source import Source

__all__ = ["FindingsSource", "Run"]

_WORTH = 256 << 10  # bytes; larger files get an index
_MUCH = 128 << 20  # new bytes after which the index of a growing file is written
_LARGEST_REPORT = 4 << 20
_SILENT = 120.0
_LONGEST_WAIT, _PATIENCE = 5.0, 0.1  # seconds between two polls, and as a share of the time without a change


class FindingsSource(Source):
    """Reads the JSON lines of findings that a watched run writes."""

    def use(self, data: bytes) -> int:
        """Read the complete lines."""
        end = data.rfind(b"\n") + 1
        for line in data[:end].splitlines():
            with suppress(ValueError, AttributeError):
                found = json.loads(line)
                found["code"], found["message"]
                self.facts.found(found)
        return end

    def restarted(self) -> None:
        """See the base class."""
        super().restarted()
        self.facts = Facts()


class Run:
    """One row of the page: a log, or a folder with event files. Reports about it can be in `folder`."""

    def __init__(self, number: int, name: str, path: Path) -> None:
        self.number, self.name, self.path = number, name, path
        self.sources: dict[Path, Source] = {}
        self.reading = True
        self.due, self._changed = 0.0, -math.inf  # time.monotonic() of the next poll and of the last change
        self.message = ""
        self.report: dict[str, Any] | None = None
        self._saved: dict[Path, int] = {}
        self._merged: tuple[tuple[Any, ...], dict[str, Arrays]] = ((), {})
        self._report_seen: dict[Path, int] = {}

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return self.path if self.path.is_dir() else self.path.parent

    def look(self) -> bool:
        """Look for new files of the run, and for the doctor's report; returns whether there are any."""
        before = len(self.sources), self.report
        if not self.sources and not is_event_file(self.path) and not self.path.is_dir():
            self._begin(LogSource(self.path))
        elif is_event_file(self.path) and not self.sources:
            self._begin(EventSource(self.path))
        elif self.path.is_dir():
            for path in sorted(self.path.iterdir()):
                if path not in self.sources and is_event_file(path):
                    self._begin(EventSource(path))
                elif path not in self.sources and path.name == "findings.jsonl":
                    self._begin(FindingsSource(path))
        if not self.path.is_dir():
            beside = self.path.with_name(f"{self.path.stem}_findings.jsonl")
            if beside not in self.sources and beside.exists():
                self._begin(FindingsSource(beside))
        self._find_report()
        return before != (len(self.sources), self.report)

    def poll(self) -> tuple[bool, bool]:
        """Read the data added to each file; returns whether anything changed, and whether more is available."""
        results = [source.poll() for source in list(self.sources.values())]
        self.reading = any(more for _, more in results)
        self.keep()
        return any(changed for changed, _ in results), self.reading

    @property
    def begun(self) -> bool:
        """Whether something of the run has been read."""
        return any(source.tail.offset for source in self.sources.values())

    def wait(self, now: float, changed: bool) -> None:
        """Set when the run is due again: a run that has not changed for long is polled less often."""
        if changed:
            self._changed = now
        self.due = now + min(_LONGEST_WAIT, (now - self._changed) * _PATIENCE) if math.isfinite(now) else 0.0

    def keep(self, last: bool = False) -> None:
        """Write the indexes of files with many new data."""
        least = _MUCH if self.reading else _WORTH
        for path, source in self.sources.items():
            done, saved = source.tail.offset, self._saved.get(path, 0)
            if done >= _WORTH and (done < saved or done - saved > max(least, saved // 4) or (last and done != saved)):
                if index.save(source) and not self.reading:
                    index.lighten(source)
                self._saved[path] = done

    @property
    def curves(self) -> dict[str, Arrays]:
        """Return the curves by tag, joined over several files, and "speed" in iterations per second."""
        key = tuple(curve.arrays for source in self.sources.values() for curve in source.curves.values())
        kept, merged = self._merged
        if len(kept) != len(key) or any(one is not other for one, other in zip(kept, key, strict=True)):
            merged = {}
            for tag, arrays in self._parts():
                merged[tag] = _joined(merged[tag], arrays) if tag in merged else arrays
            if "loss" in merged:
                merged["speed"] = speed(merged["loss"])
            self._merged = (key, merged)
        return merged

    def _parts(self) -> Iterator[tuple[str, Arrays]]:
        events = [source for source in self.sources.values() if isinstance(source, EventSource)]
        first = min((source.begin for source in events if source.begin is not None), default=0.0)
        for source in self.sources.values():
            shift = source.begin - first if isinstance(source, EventSource) and source.begin is not None else 0.0
            for tag, curve in source.curves.items():
                x, y, seconds = curve.arrays
                yield tag, Arrays(x, y, seconds + shift) if shift else curve.arrays

    @property
    def facts(self) -> Facts:
        """Return the facts of all files, combined."""
        made = Facts()
        for source in self.sources.values():
            facts = source.facts
            for name in ("net_name", "solver", "net", "ended", "shapes", "graph"):
                setattr(made, name, getattr(facts, name) or getattr(made, name))
            for finding in facts.findings:
                made.found(finding)
            for name in ("images", "histograms"):
                for tag, places in getattr(facts, name).items():
                    getattr(made, name).setdefault(tag, []).extend(places)
            made.lines += facts.lines
        return made

    @property
    def confusions(self) -> list[Path]:
        """Return the confusion matrices beside the run, as written by `caffe test -confusion`."""
        start = "" if self.path.is_dir() else self.path.stem
        with suppress(OSError):
            found = sorted(self.folder.glob(f"{glob.escape(start)}*confusion*"))
            return [path for path in found if path.suffix in (".csv", ".png", ".svg") and path.is_file()]
        return []

    @property
    def messages(self) -> list[str]:
        """Return the problems of the files."""
        return [text for text in [self.message, *(s.tail.message for s in self.sources.values())] if text]

    def state(self) -> str:
        """Return "reading", "training", "silent", "finished", "stopped", "failed", or "no data"."""
        if self.reading:
            return "reading"
        ended = self.facts.ended
        if ended:
            return ended
        if not self.curves:
            return "no data"
        modified = max(
            (source.tail.modified or _modified(source.path) for source in self.sources.values()), default=0.0
        )
        return "training" if time.time() - modified < _SILENT else "silent"

    def _begin(self, source: Source) -> None:
        if index.load(source):
            self._saved[source.path] = source.tail.offset
        self.sources = {**self.sources, source.path: source}

    def _find_report(self) -> None:
        """Find the newest JSON file in the folder that `caffe doctor -json` wrote."""
        with suppress(OSError):
            for path in _json_files(self.folder, int(time.monotonic() / 5)):
                status = path.stat()
                if self._report_seen.get(path) != status.st_mtime_ns and status.st_size < _LARGEST_REPORT:
                    self._report_seen[path] = status.st_mtime_ns
                    with suppress(ValueError, AttributeError):
                        content = json.loads(path.read_bytes())
                        if isinstance(content.get("findings"), list) and "seconds" in content:
                            self.report = {"file": path.name, **content}


def _joined(before: Arrays, after: Arrays) -> Arrays:
    """Join two parts of a run. Where they overlap, the later one is used."""
    if not len(after.x):
        return before
    count = int(np.searchsorted(before.x, after.x[0]))
    return Arrays(*(np.concatenate([one[:count], other]) for one, other in zip(before, after, strict=True)))


@lru_cache(1024)
def _json_files(folder: Path, moment: int) -> list[Path]:
    """List the JSON files of a folder, once per `moment` for all of its runs."""
    return sorted(folder.glob("*.json"))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
