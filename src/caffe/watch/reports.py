"""Reports findings of a running training: to the log, to a file, and to a user's command."""

from __future__ import annotations

import json
import time
from pathlib import Path

from caffe import log
from caffe.doctor.finding import Finding
from caffe.finding_commands import FindingCommands

__all__ = ["Reports"]

_WAIT = 10.0
"""Seconds that the end of a run waits for commands."""


class Reports:
    """Reports each finding once: as a warning in the log, as a line of JSON in `path`, and to `command`.

    A line of the file is the finding as in `caffe doctor -json`, with "iteration" and "time" (in seconds since 1970).
    The command is run by the shell in parallel to the training, with that line on its standard input and CAFFE_FINDING
    (the code), CAFFE_ITERATION and CAFFE_MESSAGE in its environment. If it fails, this is logged.
    """

    def __init__(self, path: str | Path | None = None, command: str = "") -> None:
        self.path = Path(path) if path else None
        self.told: set[str] = set()
        self._commands = FindingCommands(command, "watch")

    def start(self, resumed: bool) -> None:
        """A run starts. The file of an earlier run is removed, unless this run continues it."""
        if self.path is not None and not resumed:
            self.path.unlink(missing_ok=True)

    def tell(self, iteration: int, finding: Finding) -> bool:
        """Report a finding; returns whether it was new."""
        if finding.code in self.told:
            return False
        self.told.add(finding.code)
        evidence = f" ({finding.evidence})" if finding.evidence else ""
        text = f"{finding.code} at iteration {iteration}: {finding.message}{evidence}. {_capital(finding.advice)}"
        log.warning("watch", text)
        line = json.dumps({**finding.as_dict(), "iteration": iteration, "time": round(time.time(), 3)})
        self._write(line)
        if self._commands.command:
            self._commands.run(line, {"FINDING": finding.code, "ITERATION": iteration, "MESSAGE": text})
        return True

    def _write(self, line: str) -> None:
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            log.warning("watch", f"cannot write the finding to {self.path}: {error.strerror}")

    def finish(self) -> None:
        """The run ends: wait some seconds for commands, and log those that failed."""
        self._commands.finish(_WAIT)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
