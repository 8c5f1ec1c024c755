"""`caffe doctor`."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag, UsageError

JSON = Flag("json", "", "Write findings and figures to this file.")
BUDGET = Flag("budget", -1, "Time limit of the examination in seconds; the default is 60.")
FIX = Flag(
    "fix",
    "",
    "Write copies of solver and net, with the changes of all errors and warnings, to this folder; comments are kept.",
)
PLOT = Flag("plot", "", "Draw the measurements into this folder (needs matplotlib).")
LOG = Flag("log", "", "Read the log of a finished run, of this package or of Caffe, instead of examining a solver.")

_BUDGET = 60
_WORDS = ("error", "warning", "note")


@command("weights", "gpu", JSON, BUDGET, FIX, PLOT, LOG, task="train", arguments="[SOLVER]")
def doctor(flags: SimpleNamespace, display: Display) -> int:
    """Examine a training run before it is started.

    The doctor checks the files, then the data, then the net at its first step, then short runs. If a finding suggests a
    change, the change is tested: the same steps, seeds and data with only that change. A change that does not help
    becomes a note. Findings are sorted by importance. Each has a code, a place, the evidence and what to change.

    The exit code is 0 without errors and warnings, and 3 with.

        caffe doctor solver.prototxt
        caffe doctor solver.prototxt -json report.json -fix patched/
        caffe doctor solver.prototxt -plot pictures/
        caffe doctor -log train.log
    """
    if bool(flags.log) == bool(flags.arguments):
        raise UsageError("caffe: error: 'doctor' takes a solver, or the log of a run by -log FILE: one of the two")
    if flags.log:
        return _read_log(flags)
    if flags.budget <= 0 and flags.budget != BUDGET.default:
        raise UsageError(f"caffe: error: -budget {flags.budget}: expected seconds above 0")
    from caffe.cli import _device
    from caffe.doctor import diagnose

    _device.use(flags.gpu, "doctor", f'"-gpu {flags.gpu}"')
    report = diagnose(
        flags.arguments[0], flags.weights, float(_BUDGET if flags.budget == BUDGET.default else flags.budget)
    )
    for line in report.lines:
        print(f"{line.name}: {line.figure}")
    print()
    for finding in report.findings:
        print(_text(finding))
    print(_summary(report))
    if flags.json:
        _write(flags.json, report.as_dict())
    if flags.fix:
        for path in report.fix(flags.fix):
            print(f"written: {path}")
    if flags.plot:
        for path in report.draw(flags.plot):
            print(f"drawn: {path}")
    return 3 if report.alarms else 0


def _text(finding: Any) -> str:
    place = f"{finding.place}: " if finding.place else ""
    lines = [f"{finding.severity.word} {finding.code}: {place}{finding.message}"]
    lines += [f"  evidence: {finding.evidence}"] if finding.evidence else []
    lines += [f"  change:   {finding.advice}"]
    lines += [f"  tried:    {finding.proof.text}"] if finding.proof else []
    lines += [f"  follows from {finding.follows}"] if finding.follows else []
    return "\n".join(lines)


def _summary(report: Any) -> str:
    counts = {word: sum(f.severity.word == word for f in report.findings) for word in _WORDS}
    found = ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for word, count in counts.items())
    return f"{found}; {report.seconds:.1f} s, including {report.static_seconds:.2f} s for the files"


def _read_log(flags: SimpleNamespace) -> int:
    from caffe.doctor.log_reading import read_log

    given = [f"-{name}" for name in ("weights", "gpu", "fix", "plot") if getattr(flags, name)]
    given += ["-budget"] * (flags.budget != BUDGET.default)
    if given:
        raise UsageError(f"caffe: error: {', '.join(given)} applies to a solver, not to the log of a run; remove it")
    begin = time.monotonic()
    findings = read_log(flags.log)
    for finding in findings:
        print(_text(finding))
    print("" if findings else "the log shows nothing unusual")
    if flags.json:
        shown = [finding.as_dict() for finding in findings]
        _write(flags.json, {"findings": shown, "checks": [], "seconds": round(time.monotonic() - begin, 3)})
    return 3 if any(finding.severity.word != "note" for finding in findings) else 0


def _write(path: str, content: dict[str, Any]) -> None:
    import json

    from caffe.proto import files

    with files.atomic(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
