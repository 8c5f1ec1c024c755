"""The standard streams of a command: handles closed streams, full disks, and readers that ended."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

__all__ = ["drop_output", "ensure", "write_error"]

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def ensure() -> None:
    """Make sure that the three standard streams exist. A closed one (`caffe ... >&-`) is replaced by an empty one.

    Otherwise the next file that is opened, such as a database, would get the file descriptor of the missing stream, and
    output of libraries would be written into that file.
    """
    for number, name, mode in _STREAMS:
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def drop_output() -> None:
    """Discard further output after a write to standard output failed, because the interpreter flushes it at exit."""
    stream, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if stream is sys.__stdout__:
        with suppress(OSError, ValueError):
            os.dup2(sys.stdout.fileno(), 1)  # receives the rest of the buffer


def write_error(error: OSError) -> str | None:
    """Return the message for an error of writing to a stream, which has no file name; None for other errors."""
    if error.filename is not None or error.errno not in (
        errno.ENOSPC,
        errno.EIO,
        errno.EBADF,
        errno.EDQUOT,
        errno.EFBIG,
    ):
        return None
    return f"cannot write the output: {error.strerror}; free some space or write to another place"
