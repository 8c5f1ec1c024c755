"""What a person at a terminal sees of a run: a progress bar, results and warnings in place of the full log.

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
        """A progress bar from `done` to `total` steps."""
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
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        progress = Progress(
            TextColumn("[bold]{task.description}", markup=True),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            expand=True,
            console=self.console,
        )
        task = progress.add_task(title, total=total, completed=done, rate="")
        detail = Text(style="cyan", no_wrap=True, overflow="ellipsis")
        with Live(Group(progress, detail), console=self.console, refresh_per_second=8, redirect_stdout=False):
            yield _Drawn(progress, task, detail)


class _Drawn(Bar):
    def __init__(self, progress: Any, task: Any, detail: Any) -> None:
        self.progress, self.task, self.detail = progress, task, detail

    def update(self, done: int, detail: str = "", total: int | None = None) -> None:
        speed = self.progress.tasks[0].speed or 0
        rate = f"{speed:,.0f} it/s" if speed >= 100 else f"{speed:.3g} it/s"
        self.progress.update(self.task, completed=done, total=total, rate=rate if speed else "")
        self.detail.plain = detail


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
