"""Writes exercises: a folder per student with a faulty run, and the teacher's key."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from caffe.doctor.case import Case
from caffe.doctor.trial import Outcome, Trials
from caffe.errors import CaffeError, FileError, did_you_mean
from caffe.exercise import data
from caffe.exercise.nets import NETS, Run, mlp, solver_text
from caffe.exercise.planted import GOOD, planted

__all__ = ["KEY", "STATIC", "STEPS", "codes", "make", "quality"]

KEY = "key"
"""The teacher's folder, which is not given to the students."""
STEPS = 150
"""Number of updates of a trial."""
STATIC = ("schedule", "snapshot-never", "test-coverage", "too-few-epochs")
"""Faults that a short run does not show. Marking looks for them in the files."""
_APART = 0.25
"""A planted run's quality, from 0 to 1, must be lower than the healthy run's by at least this."""
_TRIES = 12
_NETS: dict[str, Callable[..., str]] = {**NETS, "tanh": lambda source="digits": mlp(source, unit="TanH")}
_SOURCE = re.compile(r'"@/([a-z0-9]+(?:_auto)?)_(?:train|test)\.')
_TASK = """Something is wrong with this run. Find the cause, and fix it.

    caffe train -solver solver.prototxt

Write the code of the cause into answer.txt, one of the table on the page "The doctor" of the documentation, and
fix solver.prototxt and net.prototxt. The data are correct: do not change the sources of the data layers.
"""


@dataclass(frozen=True)
class _Exercise:
    """A planted run and the healthy run that it was derived from."""

    ill: Run
    well: Run


def _exercises() -> list[_Exercise]:
    """Return the planted runs that can be fixed in the prototxts and whose data can be generated here."""
    made = []
    for run in planted():
        base = run.name.partition(":")[0]
        found = set(_SOURCE.findall(run.net))
        made_here = bool(found) and found <= {"digits", "digits_auto", "patterns", "curves", "sequence"}
        if base == "lenet" or run.weights or not made_here:
            continue
        net = _NETS[base]("patterns") if found == {"patterns"} else _NETS[base]()
        made.append(_Exercise(run, Run(base, net, GOOD[base])))
    return made


def codes() -> list[str]:
    """Return the codes that have exercises."""
    return sorted({exercise.ill.codes[0] for exercise in _exercises()})


def make(folder: str | Path, wanted: list[str], students: int, seed: int = 1) -> list[Path]:
    """Write a folder for each student and the key; returns the students' folders.

    Faults are assigned in turn; nets, data, seeds and batches are drawn for each student. Each fault is verified by a
    trial: the planted run must be clearly worse than the healthy one. Raises CaffeError for unknown codes, and if the
    folder is not empty.
    """
    known = codes()
    for code in wanted:
        if code not in known:
            raise CaffeError(f'no exercise for "{code}"{did_you_mean(code, known)}; there are: {", ".join(known)}')
    if not wanted or students < 1:
        raise CaffeError(f"{len(wanted)} codes and {students} students: expected at least one of each")
    top = Path(folder)
    if top.exists() and (not top.is_dir() or any(top.iterdir())):
        raise FileError(f"{folder}: already exists; give a folder that is new or empty")
    draw = random.Random(seed)
    made = []
    for number in range(students):
        name = f"student{number + 1:0{max(2, len(str(students)))}}"
        _student(top, name, wanted[number % len(wanted)], draw)
        made.append(top / name)
    return made


def _student(top: Path, name: str, code: str, draw: random.Random) -> None:
    """Write one exercise whose fault is verified by a trial."""
    choices = [exercise for exercise in _exercises() if exercise.ill.codes[0] == code]
    own, key = top / name, top / KEY / name
    for _ in range(_TRIES):
        exercise = _varied(draw.choice(choices), draw)
        _data(own / "data", exercise, draw.randrange(1 << 30))
        _write(own, exercise.ill, "data")
        _write(key, exercise.well, os.path.relpath(own / "data", key))
        well, ill = quality(key), quality(own)
        if code in STATIC or well - ill >= _APART:
            break
    else:
        raise CaffeError(f'no net in which "{code}" has a clear effect was found in {_TRIES} draws; try another -seed')
    facts = {"codes": exercise.ill.codes, "well": well, "ill": ill, "run": exercise.ill.name}
    (key / "key.json").write_text(json.dumps({**facts, "sources": sources(own)}, indent=1) + "\n")
    (own / "answer.txt").write_text("")
    (own / "README.txt").write_text(_TASK)


def _varied(exercise: _Exercise, draw: random.Random) -> _Exercise:
    """Return the same fault with another batch size, seed and rate."""
    batch, seed, factor = draw.choice((40, 50, 60)), draw.randrange(1000), draw.choice((0.8, 1, 1.25))

    def other(run: Run) -> Run:
        rate = run.solver.get("base_lr", 0)
        solver = {**run.solver, "random_seed": seed, "base_lr": float(f"{float(str(rate)) * factor:.3g}")}
        return replace(run, net=run.net.replace("batch_size: 50", f"batch_size: {batch}"), solver=solver)

    return _Exercise(other(exercise.ill), other(exercise.well))


def _write(folder: Path, run: Run, data_folder: str) -> None:
    """Write solver and net, with paths relative to their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(run.net.replace("@", data_folder))
    (folder / "solver.prototxt").write_text(solver_text(run, "net.prototxt", "."))


def _data(folder: Path, exercise: _Exercise, seed: int) -> None:
    """Create the data sets that the runs read."""
    names = set(_SOURCE.findall(exercise.ill.net + exercise.well.net))
    folder.mkdir(parents=True, exist_ok=True)
    if names & {"digits", "digits_auto"}:
        data.digit_sets(folder, *data.drawn_digits(seed))
    if "patterns" in names:
        data.pattern_sets(folder, seed)
    if "curves" in names:
        data.curve_sets(folder, seed)
    if "sequence" in names:
        data.sequence_sets(folder, seed)
    kept = {f"{name}_{part}" for name in names for part in ("train", "test")}
    for path in folder.iterdir():
        if path.stem not in kept:
            path.unlink()


def sources(folder: Path) -> list[str]:
    """Return the sources of the data layers of the net in a folder."""
    return sorted(re.findall(r'source:\s*"([^"]*)"', (folder / "net.prototxt").read_text()))


def quality(folder: Path) -> float:
    """Return the quality of the run in a folder in a trial, from 0 (a guess) to 1; -1 if it fails."""
    with contextlib.chdir(folder):
        outcome: Outcome = Trials(Case("solver.prototxt")).run(None, STEPS)
    return outcome.quality
