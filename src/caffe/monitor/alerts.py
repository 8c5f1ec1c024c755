"""A command for each finding that is new while the monitor looks on."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress

from caffe import log
from caffe.monitor.run import Run

__all__ = ["Alerts"]


class Alerts:
    """Runs `command` for each new finding, and where a run fails.

    The shell runs it with the finding as a line of JSON on its standard input, and CAFFE_RUN, CAFFE_FINDING,
    CAFFE_ITERATION and CAFFE_MESSAGE in its environment. What a run told before it was first read raises no alert.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._told: dict[int, set[tuple[str, int]]] = {}
        self._running: list[subprocess.Popen[bytes]] = []

    def check(self, run: Run) -> None:
        """Tell what is new of a run."""
        self._running = [process for process in self._running if process.poll() is None]
        facts = run.facts
        findings = list(facts.findings)
        if facts.ended == "failed":
            findings.append({"code": "failed", "message": (facts.lines or ["the run failed"])[-1]})
        told = self._told.get(run.number)
        if told is None:
            self._told[run.number] = {_key(finding) for finding in findings}
            return
        for finding in findings:
            if _key(finding) not in told:
                told.add(_key(finding))
                self._run(run, finding)

    def _run(self, run: Run, finding: dict[str, object]) -> None:
        facts = {"RUN": run.name, "FINDING": finding["code"], "MESSAGE": finding["message"]}
        facts["ITERATION"] = finding.get("iteration", "")
        environment = {**os.environ, **{f"CAFFE_{name}": str(text) for name, text in facts.items()}}
        try:
            process = subprocess.Popen(self.command, shell=True, stdin=subprocess.PIPE, env=environment)
        except OSError as error:
            log.warning("monitor", f"cannot run {self.command}: {error.strerror}")
            return
        self._running.append(process)
        assert process.stdin is not None
        with suppress(OSError):  # the command did not read it
            process.stdin.write(json.dumps({"run": run.name, **finding}).encode() + b"\n")
            process.stdin.close()


def _key(finding: dict[str, object]) -> tuple[str, int]:
    iteration = finding.get("iteration", -1)
    return str(finding.get("code")), iteration if isinstance(iteration, int) else -1
