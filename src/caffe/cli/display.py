"""Terminal output of a run: a progress bar, results and warnings instead of the full log.

`Display` prints nothing; it is used if standard error is not a terminal, or if the full log was requested. `Terminal`
draws.
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
        """Update the bar: `done` steps are done, of `total` if it becomes known now; `detail` is shown below the
        bar.
        """


class Display:
    """A display that draws nothing, because the log contains everything."""

    handler: logging.Handler | None = None
    """The handler of log lines on a terminal; None if the full log goes to standard error."""

    @property
    def terminal(self) -> bool:
        """Whether the output is drawn on a terminal."""
        return self.handler is not None

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the progress bar."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Create a progress bar from `done` to `total` steps; 0 means an unknown total."""
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
    """Format a time as minutes and seconds, with hours if there are any: `0:42`."""
    minutes, seconds = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Warnings(logging.Handler):
    """Shows warnings and errors in short form above the progress bar."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        severity = record.levelname.lower()
        self.terminal.say(f"caffe: {severity}: {record.getMessage()}", _COLOURS.get(record.levelno, ""))


def choose(verbose: bool) -> Display:
    """Create the display of this process. It draws only on a terminal and if the full log was not requested."""
    dumb = os.environ.get("TERM") == "dumb"
    return Terminal() if sys.stderr.isatty() and not verbose and not dumb else Display()
