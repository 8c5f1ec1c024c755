"""The monitor beside a training run: a separate process, so that training is not slowed down."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from caffe import log
from caffe.cli import logs
from caffe.cli.display import Display
from caffe.errors import FileError, require_extra

__all__ = ["beside", "check_packages"]

_PATIENCE = 20.0  # seconds to wait for the monitor's address


def check_packages() -> None:
    """Raise MissingExtra, before any work, if the monitor cannot run."""
    for module in ("starlette", "uvicorn"):
        require_extra(module, "monitor", "-monitor")


@contextmanager
def beside(log_file: str, logdir: str, prefix: str, display: Display) -> Iterator[None]:
    """Show the files that a run writes in the browser while the block runs.

    Without -log and -logdir, the run's log is also written to `PREFIX_train.log`.
    """
    with ExitStack() as stack:
        paths = [path for path in (log_file, logdir) if path]
        if logdir:
            _make(logdir)
        if not paths:
            folder = os.path.dirname(prefix) or "."
            paths = [f"{prefix}_train.log" if prefix and os.path.isdir(folder) else "caffe_train.log"]
            stack.enter_context(logs.also(paths[0]))
        words = [sys.executable, "-m", "caffe", "monitor", *paths] + ["-open"] * _has_display()
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "start_new_session": True}
        with subprocess.Popen(words, **options) as process:
            try:
                _tell(display, _first_line(process) or "The monitor did not start; training continues without it.")
                yield
            finally:
                process.terminate()
        _tell(display, f"The monitor ended with the run; to start it again: caffe monitor {shlex.join(paths)}")


def _make(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write event files into {folder}: {error.strerror}") from error


def _tell(display: Display, text: str) -> None:
    display.say(text, "cyan")
    log.info("caffe", text)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    ready, *_ = select.select([process.stdout], [], [], _PATIENCE)
    return process.stdout.readline().decode().split(" (")[0].strip() if ready else ""


def _has_display() -> bool:
    """Whether a browser would open a window. A text browser would cover the run's output in the terminal."""
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")
    return bool(shown) and "SSH_CONNECTION" not in os.environ
