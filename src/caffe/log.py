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
    """Writes to the current `sys.stderr`, so that a progress bar can replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if self.stream is not None:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore lines that cannot be written, for example because the terminal is closed. Training continues."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start(level: int | None = None) -> None:
    """Send log lines to standard error. The default level is given by `GLOG_minloglevel` (0 info ... 3 fatal)."""
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
    """Log `message` with a source place such as "solver.cpp:289"."""
    logger.info(message, extra={"place": place})


def warning(place: str, message: str) -> None:
    """Like `info`, with severity W."""
    logger.warning(message, extra={"place": place})


def error(place: str, message: str) -> None:
    """Like `info`, with severity E."""
    logger.error(message, extra={"place": place})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress log lines in the block."""
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def enabled() -> bool:
    """Whether information lines are logged. Call this before composing long ones."""
    return logger.isEnabledFor(logging.INFO)


def number(value: float) -> str:
    """Format a number like a C++ stream: six significant digits."""
    return f"{value:g}"


class _Log(ModuleType):
    """This module, which can also be called as pycaffe's function of the same name: `caffe.log("a line")`."""

    def __call__(self, message: str) -> None:
        info("_caffe.cpp:68", message)


sys.modules[__name__].__class__ = _Log
if "GLOG_minloglevel" in os.environ:
    start()  # a script that sets it wants glog's lines
