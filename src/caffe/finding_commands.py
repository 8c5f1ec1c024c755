"""Runs a user's shell command for each finding, for the watcher of a run and for the monitor."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from caffe import log

__all__ = ["FindingCommands"]


class FindingCommands:
    """Runs `command` in the shell, in parallel to this process. `place` is the source of log lines."""

    def __init__(self, command: str, place: str) -> None:
        self.command, self.place = command, place
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self, line: str, facts: Mapping[str, object]) -> None:
        """Start the command with the line on its standard input, and CAFFE_NAME in its environment for each fact."""
        environment = {**os.environ, **{f"CAFFE_{name}": str(text) for name, text in facts.items()}}
        try:
            process = subprocess.Popen(self.command, shell=True, stdin=subprocess.PIPE, env=environment)
        except OSError as error:
            log.warning(self.place, f"cannot run {self.command}: {error.strerror}")
            return
        self._running.append(process)
        assert process.stdin is not None
        with suppress(OSError):  # the command did not read its input
            process.stdin.write(f"{line}\n".encode())
            process.stdin.close()

    def forget_ended(self) -> None:
        """Drop the commands that have ended, whatever their exit code."""
        self._running = [process for process in self._running if process.poll() is None]

    def finish(self, seconds: float) -> None:
        """Wait up to some seconds for the commands, and log those that fail or still run."""
        until = time.monotonic() + seconds
        for process in self._running:
            try:
                code = process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning(self.place, f"still running: {self.command}")
                continue
            if code:
                log.warning(self.place, f"exit code {code} of {self.command}")
        self._running.clear()
