"""The registry of kinds of input, and findings that are not exceptions."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KINDS", "Case", "ExitCode70", "LeftOut", "command", "kind"]

LARGEST_SIZE = (1 << 32) - 1
"""The largest option value for a size (kernel, pad, number of outputs) that the generators draw."""

Run = Callable[["Case"], None]
KINDS: dict[str, Run] = {}


@dataclass(frozen=True)
class Case:
    """One input: its random generator, a scratch folder (the current one), and the folder with the valid seeds."""

    rng: random.Random
    scratch: Path
    seeds: Path

    def write(self, name: str, content: bytes) -> Path:
        """Write a file to the scratch folder."""
        path = self.scratch / name
        path.write_bytes(content)
        return path


class LeftOut(Exception):
    """A damaged weight file that loads without an error or a warning, but leaves weights unchanged."""


class ExitCode70(Exception):
    """A command that ends with the exit code of an error in the program; the text is its traceback."""


def kind(run: Run) -> Run:
    """Register the decorated function as the kind of input of its name."""
    KINDS[run.__name__] = run
    return run


def command(*words: object) -> int:
    """Run a command of `caffe` in this process and return its exit code."""
    from caffe.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--traceback", *map(str, words)])
    if code not in (0, 1):
        raise ExitCode70(err.getvalue() or f"exit code {code}")
    return code
