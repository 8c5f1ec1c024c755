"""Writes exercises: a folder for each student, with a run in which something is wrong, and the teacher's key."""

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
"""The teacher's folder, which students do not get."""
STEPS = 150
"""Updates of a replay."""
STATIC = ("schedule", "snapshot-never", "test-coverage", "too-few-epochs")
"""Faults that a short run does not show: marking looks for them in the files."""
_APART = 0.25
"""How much worse a planted run must be than the healthy one, in quality from 0 to 1."""
_TRIES = 12
_NETS: dict[str, Callable[..., str]] = {**NETS, "tanh": lambda source="digits": mlp(source, unit="TanH")}
_SOURCE = re.compile(r'"@/([a-z0-9]+(?:_auto)?)_(?:train|test)\.')
_TASK = """Something is wrong with this run. Find out what, and mend it.

    caffe train -solver solver.prototxt

Write the code of the cause into answer.txt, one of the table on the page "The doctor" of the documentation, and
mend solver.prototxt and net.prototxt. The data are as they should be: leave the data layers' source alone.
"""


@dataclass(frozen=True)
class _Exercise:
    """A planted run and the healthy one that it was made from."""

    ill: Run
    well: Run


def _exercises() -> list[_Exercise]:
    """The planted runs that a student can mend in the prototxts, with data that are made up here."""
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
    """The codes of which there are exercises."""
    return sorted({exercise.ill.codes[0] for exercise in _exercises()})


def make(folder: str | Path, wanted: list[str], students: int, seed: int = 1) -> list[Path]:
    """Write a folder for each student and the key; returns the students' folders.

    Faults take turns; nets, data, seeds and batches are drawn for each student. Each fault is proved by replay: the
    planted run must be clearly worse than the healthy one. Raises CaffeError for unknown codes, and where the folder
    holds something.
    """
    known = codes()
    for code in wanted:
        if code not in known:
            raise CaffeError(f'no exercise for "{code}"{did_you_mean(code, known)}; there are: {", ".join(known)}')
    if not wanted or students < 1:
        raise CaffeError(f"{len(wanted)} codes and {students} students: expected at least one of each")
    top = Path(folder)
    if top.exists() and (not top.is_dir() or any(top.iterdir())):
        raise FileError(f"{folder}: is there already; give a folder that is new or empty")
    draw = random.Random(seed)
    made = []
    for number in range(students):
        name = f"student{number + 1:0{max(2, len(str(students)))}}"
        _student(top, name, wanted[number % len(wanted)], draw)
        made.append(top / name)
    return made


def _student(top: Path, name: str, code: str, draw: random.Random) -> None:
    """Write one exercise that its replay proves."""
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
        raise CaffeError(f'no net in which "{code}" does clear harm was found in {_TRIES} draws; try another -seed')
    facts = {"codes": exercise.ill.codes, "well": well, "ill": ill, "run": exercise.ill.name}
    (key / "key.json").write_text(json.dumps({**facts, "sources": sources(own)}, indent=1) + "\n")
    (own / "answer.txt").write_text("")
    (own / "README.txt").write_text(_TASK)


def _varied(exercise: _Exercise, draw: random.Random) -> _Exercise:
    """The same fault with another batch, seed and rate."""
    batch, seed, factor = draw.choice((40, 50, 60)), draw.randrange(1000), draw.choice((0.8, 1, 1.25))

    def other(run: Run) -> Run:
        rate = run.solver.get("base_lr", 0)
        solver = {**run.solver, "random_seed": seed, "base_lr": float(f"{float(str(rate)) * factor:.3g}")}
        return replace(run, net=run.net.replace("batch_size: 50", f"batch_size: {batch}"), solver=solver)

    return _Exercise(other(exercise.ill), other(exercise.well))


def _write(folder: Path, run: Run, data_folder: str) -> None:
    """Write solver and net, with paths as from their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(run.net.replace("@", data_folder))
    (folder / "solver.prototxt").write_text(solver_text(run, "net.prototxt", "."))


def _data(folder: Path, exercise: _Exercise, seed: int) -> None:
    """Make the data sets that the runs read, and no others."""
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
    """What the data layers of the net in a folder read."""
    return sorted(re.findall(r'source:\s*"([^"]*)"', (folder / "net.prototxt").read_text()))


def quality(folder: Path) -> float:
    """How well the run in a folder does in a replay, from 0 (a guess) to 1; -1 where it fails."""
    with contextlib.chdir(folder):
        outcome: Outcome = Trials(Case("solver.prototxt")).run(None, STEPS)
    return outcome.quality
