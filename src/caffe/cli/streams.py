"""The standard streams of a command: closed ones, full ones, and readers that went away."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

__all__ = ["drop_output", "ensure", "write_error"]

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def ensure() -> None:
    """Have the three standard streams exist: one that is closed (`caffe ... >&-`) reads and writes nothing.

    Otherwise the first file that is opened, such as a database, gets the number of the missing stream, and what a
    library prints ends in that file.
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
    """Write nothing more to standard output, where a write has failed: the interpreter flushes it when it ends."""
    stream, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if stream is sys.__stdout__:
        with suppress(OSError, ValueError):
            os.dup2(sys.stdout.fileno(), 1)  # what is left in the buffer goes there


def write_error(error: OSError) -> str | None:
    """The text for an error of writing to a stream, which has no file's name; None for another error."""
    if error.filename is not None or error.errno not in (
        errno.ENOSPC,
        errno.EIO,
        errno.EBADF,
        errno.EDQUOT,
        errno.EFBIG,
    ):
        return None
    return f"cannot write the output: {error.strerror}; free some space or write to another place"
