"""The information about a run besides its curves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Facts"]

_SETTING = re.compile(r"^(\w+): (.*)$")


@dataclass
class Facts:
    """JSON-compatible information about a run, stored in the index.

    `ended` is "", "finished", "stopped" or "failed". `images`, `histograms` and `graphs` contain positions in event
    files: tag -> [step, file, offset, length].
    """

    net_name: str = ""
    solver: str = ""
    net: str = ""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    ended: str = ""
    images: dict[str, list[list[Any]]] = field(default_factory=dict)
    histograms: dict[str, list[list[Any]]] = field(default_factory=dict)
    graph: list[Any] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """The solver's fields. The values of a repeated field are joined by ','."""
        found: dict[str, str] = {}
        for line in self.solver.splitlines():
            if match := _SETTING.match(line):
                value = match[2].strip('"')
                found[match[1]] = f"{found[match[1]]}, {value}" if match[1] in found else value
        return found

    def told(self, line: str) -> None:
        """Add a warning or an error. The last fifty are kept."""
        self.lines.append(line[:500])
        del self.lines[:-50]

    def found(self, finding: dict[str, Any]) -> None:
        """Add a finding. The same code at the same iteration is added once."""
        key = (finding.get("code"), finding.get("iteration"))
        if key not in [(known.get("code"), known.get("iteration")) for known in self.findings]:
            self.findings.append(finding)

    def follow(self, before: Facts) -> None:
        """Copy missing information from the first part of the same run."""
        for name in ("net_name", "solver", "net", "shapes"):
            setattr(self, name, getattr(self, name) or getattr(before, name))
        self.findings[:0] = before.findings
        self.lines[:0] = before.lines
