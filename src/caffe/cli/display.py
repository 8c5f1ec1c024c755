"""Terminal output of a run: a progress bar, results and warnings in place of the full log.

`Display` is the silent one: standard error is not a terminal, or the full log was asked for. `Terminal` draws.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Bar", "Display", "Terminal", "choose"]

_COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class Bar:
    """A progress bar that is not drawn."""

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        """`done` steps are done, of `total` if that is known only now; `detail` stands on the line below the bar."""


class Display:
    """Draws nothing: the log tells everything."""

    handler: logging.Handler | None = None
    """Takes the log lines of a terminal; None where the full log goes to standard error."""

    @property
    def terminal(self) -> bool:
        """Whether there is somebody to draw for."""
        return self.handler is not None

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the progress bar."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A progress bar from `done` to `total` steps; a total of 0 is one that is not known yet."""
        yield Bar()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *problem: object) -> None:
        pass


class Terminal(Display):
    """Draws with rich on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.handler = _Warnings(self)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style or None, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        progress = Progress(
            TextColumn("[bold]{task.description}", markup=True),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[time]}"),
            expand=True,
            console=self.console,
        )
        task = progress.add_task(title, total=total or None, completed=done, count="", rate="", time="")
        detail = Text(style="cyan", no_wrap=True, overflow="ellipsis")
        with Live(Group(progress, detail), console=self.console, refresh_per_second=8, redirect_stdout=False):
            drawn = _Drawn(progress, task, detail)
            drawn.update(done)
            yield drawn


class _Drawn(Bar):
    def __init__(self, progress: Any, task: Any, detail: Any) -> None:
        self.progress, self.task, self.detail = progress, task, detail

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        self.progress.update(self.task, completed=done, total=total)
        task = self.progress.tasks[0]
        rate = f"{task.speed:,.0f} it/s" if (task.speed or 0) >= 100 else f"{task.speed or 0:.3g} it/s"
        if task.finished:
            time = f"in {_clock(task.finished_time)}"
        else:
            time = f"{_clock(task.time_remaining)} left" if task.speed else ""
        self.progress.update(
            self.task,
            count=f"{done:,}/{task.total:,.0f}" if task.total else "",
            rate=rate if task.speed and not task.finished else "",
            time=time,
        )
        self.detail.plain = detail


def _clock(seconds: float | None) -> str:
    """A time as minutes and seconds, with hours where there are any: `0:42`."""
    minutes, seconds = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Warnings(logging.Handler):
    """Shows warnings and errors in short form, above the progress bar."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        severity = record.levelname.lower()
        self.terminal.say(f"caffe: {severity}: {record.getMessage()}", _COLOURS.get(record.levelno, ""))


def choose(verbose: bool) -> Display:
    """The display for this process: drawn only for a person who did not ask for the full log."""
    dumb = os.environ.get("TERM") == "dumb"
    return Terminal() if sys.stderr.isatty() and not verbose and not dumb else Display()
