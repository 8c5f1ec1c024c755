"""Runs a command for each finding that appears while the monitor runs."""

from __future__ import annotations

import json

from caffe.finding_commands import FindingCommands
from caffe.monitor.run import Run

__all__ = ["Alerts"]


class Alerts:
    """Runs `command` for each new finding, and if a run fails.

    The shell runs the command with the finding as a line of JSON on its standard input, and CAFFE_RUN, CAFFE_FINDING,
    CAFFE_ITERATION and CAFFE_MESSAGE in its environment. Findings that exist when a run is first read cause no alert.
    """

    def __init__(self, command: str) -> None:
        self._told: dict[int, set[tuple[str, int]]] = {}
        self.commands = FindingCommands(command, "monitor")

    def check(self, run: Run) -> None:
        """Run the command for the new findings of a run."""
        self.commands.forget_ended()
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
        self.commands.run(json.dumps({"run": run.name, **finding}), facts)


def _key(finding: dict[str, object]) -> tuple[str, int]:
    iteration = finding.get("iteration", -1)
    return str(finding.get("code")), iteration if isinstance(iteration, int) else -1
