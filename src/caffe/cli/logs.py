"""Routes log lines while a command runs: to standard error, in short form to a terminal, and to files."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

from caffe import log
from caffe.errors import FileError

__all__ = ["also", "session"]

_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


@contextmanager
def session(flags: SimpleNamespace, short: logging.Handler | None) -> Iterator[None]:
    """Route log lines for the duration of a command.

    `short` is the handler of a terminal, which shows only warnings; without it, the full lines go to standard error.
    The files of `-log` and `-log_dir` always get the full lines, and the error that ended the run.
    """
    before = log.logger.handlers[:], log.logger.level, log.logger.propagate
    level = _LEVELS[min(max(flags.minloglevel, 0), 3)] if flags.minloglevel >= 0 else None
    log.logger.handlers = []
    files: list[logging.Handler] = []
    try:
        files += [_file(path) for path in _paths(flags)]
        if short is None:
            log.start(level)
        else:
            log.logger.propagate = False
            log.logger.addHandler(short)
            log.logger.setLevel(logging.INFO if files else logging.WARNING)
        for handler in files:
            log.logger.addHandler(handler)
        yield
    except Exception as error:
        record = log.logger.makeRecord("caffe", logging.CRITICAL, "", 0, str(error), (), None)
        for handler in files:
            handler.handle(record)
        raise
    finally:
        log.logger.handlers, log.logger.level, log.logger.propagate = before
        log.logger.setLevel(before[1])
        for handler in files:
            handler.close()


@contextmanager
def also(path: str) -> Iterator[None]:
    """Append the full lines to one more file while the block runs."""
    handler, level = _file(Path(path)), log.logger.level
    log.logger.addHandler(handler)
    log.logger.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        log.logger.removeHandler(handler)
        log.logger.setLevel(level)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log file. If it can no longer be written, a line says so and the command continues without it."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self._give_up(sys.exc_info()[1])

    def close(self) -> None:
        """See the base class. Writing the last lines can fail here."""
        try:
            super().close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: BaseException | None) -> None:
        if self.failed:
            return
        self.failed = True
        reason = getattr(error, "strerror", None) or error
        with suppress(OSError):
            print(f"caffe: warning: the log file {self.baseFilename} is not complete: {reason}", file=sys.stderr)


def _file(path: Path) -> logging.Handler:
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the log file {path}: {error.strerror}") from error
    handler.setFormatter(log.GlogFormatter())
    return handler


def _paths(flags: SimpleNamespace) -> list[Path]:
    paths = [Path(flags.log)] if flags.log else []
    if flags.log_dir:
        folder = Path(flags.log_dir)
        if not os.path.isdir(folder):
            raise FileError(f"-log_dir {folder}: there is no such folder; make it first")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        paths.append(folder / f"caffe.{platform.node()}.{getpass.getuser()}.log.INFO.{stamp}.{os.getpid()}")
        link = folder / "caffe.INFO"
        with suppress(OSError):  # the file system has no links, or the folder is shared with others
            link.unlink(missing_ok=True)
            link.symlink_to(paths[-1].name)
    return paths
