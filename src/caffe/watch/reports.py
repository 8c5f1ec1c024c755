"""Reports findings of a running training: to the log, to a file, and to a user's command."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from caffe import log
from caffe.doctor.finding import Finding

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
        self.command = command
        self.told: set[str] = set()
        self._running: list[subprocess.Popen[bytes]] = []

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
        if self.command:
            self._run(line, {"FINDING": finding.code, "ITERATION": str(iteration), "MESSAGE": text})
        return True

    def _write(self, line: str) -> None:
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            log.warning("watch", f"cannot write the finding to {self.path}: {error.strerror}")

    def _run(self, line: str, facts: dict[str, str]) -> None:
        environment = {**os.environ, **{f"CAFFE_{name}": text for name, text in facts.items()}}
        try:
            process = subprocess.Popen(self.command, shell=True, stdin=subprocess.PIPE, env=environment)
        except OSError as error:
            log.warning("watch", f"cannot run {self.command}: {error.strerror}")
            return
        self._running.append(process)
        assert process.stdin is not None
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.close()
        except OSError:
            pass  # the command did not read its input

    def finish(self) -> None:
        """The run ends: wait some seconds for commands, and log those that failed."""
        until = time.monotonic() + _WAIT
        for process in self._running:
            try:
                code = process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("watch", f"still running: {self.command}")
                continue
            if code:
                log.warning("watch", f"exit code {code} of {self.command}")
        self._running.clear()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
