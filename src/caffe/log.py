"""Log lines in the form that Caffe's log parsers read.

A line is `I0131 13:08:22.531250 12345 solver.cpp:289] Solving LeNet`: severity and date, time, thread, place, message.
The places are those of Caffe 1.0, because scripts select lines by them; each call names its own.
Records go to the standard `logging` logger "caffe", so a program embedding the package can route them as it likes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType

logger = logging.getLogger("caffe")
logger.setLevel(logging.WARNING)

_SEVERITY = {logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}


class GlogFormatter(logging.Formatter):
    """Formats a record as glog does."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micro = int(record.created % 1 * 1e6)
        place = getattr(record, "place", "caffe")
        severity = _SEVERITY.get(record.levelno, "I")
        message = record.getMessage().removesuffix("\n")  # glog ends a message that has its own line end only once
        return f"{severity}{stamp}.{micro:06d} {threading.get_native_id():5d} {place}] {message}"


class _StderrHandler(logging.StreamHandler):
    """Writes to whatever `sys.stderr` is at the time, so that a progress bar can take its place."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if self.stream is not None:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Pass over lines that cannot be written, as where the terminal is gone: training goes on without them."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start(level: int | None = None) -> None:
    """Send log lines to standard error; without a level, `GLOG_minloglevel` (0 info ... 3 fatal) gives it."""
    if level is None:
        level = {"1": logging.WARNING, "2": logging.ERROR, "3": logging.CRITICAL}.get(
            os.environ.get("GLOG_minloglevel", "0"),  # noqa: SIM112 - glog's own spelling
            logging.INFO,
        )
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.setFormatter(GlogFormatter())
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)


def info(place: str, message: str) -> None:
    """Log `message` under the place, such as "solver.cpp:289"."""
    logger.info(message, extra={"place": place})


def warning(place: str, message: str) -> None:
    """As `info`, with severity W."""
    logger.warning(message, extra={"place": place})


def error(place: str, message: str) -> None:
    """As `info`, with severity E."""
    logger.error(message, extra={"place": place})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing in this block."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def enabled() -> bool:
    """Whether information lines are wanted; asked before composing long ones."""
    return logger.isEnabledFor(logging.INFO)


def number(value: float) -> str:
    """A number as a C++ stream prints it: six significant digits."""
    return f"{value:g}"


class _Log(ModuleType):
    """This module, which can also be called as pycaffe's function of the same name: `caffe.log("a line")`."""

    def __call__(self, message: str) -> None:
        info("_caffe.cpp:68", message)


sys.modules[__name__].__class__ = _Log
