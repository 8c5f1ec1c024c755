"""Changes one line of the code at a time, and checks whether a test fails.

    python tools/mutate.py --count 60 --seed 1 net solver data cli proto

Each mutant is one change of one expression in a random file of the named folders of src/caffe: another comparison, a
number changed by one, `and` for `or`, a negated condition, a removed call. The program first runs the quick tests once,
in a copy of the sources, and records which lines each test executes (with the package coverage). Then it runs, for each
mutant, the tests that execute its line, those first that execute little else. It prints the mutants for which all of
them pass: such a mutant is equivalent to the original, or a test is missing. NOT RUN are lines that no test executes,
except perhaps in a process that it starts. `--executed FILE` keeps the record for later runs with the same sources.
`tools/mutate_layers.py` contains mistakes in the layers, chosen by hand.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401 - imported once, before the processes of the mutants are forked
import h5py  # noqa: F401
import pytest
import torch  # noqa: F401
from executed import Executed, load, record

ROOT = Path(__file__).parent.parent
FOLDERS = ["net", "solver", "data", "cli", "proto"]
MOST = 400
"""The most tests that are run for a mutant."""
NOTICED, SURVIVES, NOT_RUN, TOO_LONG = "noticed", "SURVIVES", "NOT RUN", "TOO LONG"
_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass
class Mutant:
    """A piece of a file's text, and its replacement."""

    path: Path
    start: int
    end: int
    text: str
    line: int
    last: int

    def __str__(self) -> str:
        source = self.path.read_text(encoding="utf-8")
        return f"{self.path.relative_to(ROOT)}:{self.line}: {source[self.start : self.end]!r} -> {self.text!r}"


def mutants(path: Path) -> list[Mutant]:
    """Return all mutants of a file."""
    source = path.read_text(encoding="utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = source.encode()

    def place(line: int, column: int) -> int:
        return len(raw[: starts[line - 1] + column].decode())

    found = []
    for node in ast.walk(ast.parse(source)):
        changed = _changed(node)
        if changed is not None and node.end_lineno is not None and node.end_col_offset is not None:
            span = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            found.append(Mutant(path, *span, changed, node.lineno, node.end_lineno))
    return found


def _changed(node: ast.AST) -> str | None:
    """Return the text of a node after the change, or None if there is no change for it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _TURNED:
        ops = [_TURNED[type(node.ops[0])](), *node.ops[1:]]
        return f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    if isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        return f"({ast.unparse(ast.BoolOp(other, node.values))})"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"bool({ast.unparse(node.operand)})"
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        other_op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return f"({ast.unparse(ast.BinOp(node.left, other_op, node.right))})"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return str(node.value + 1)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return "pass"
    return None


class Trial:
    """Tries mutants in a copy of the repository.

    A mutant runs in a forked process, so that torch is imported once; the package itself is imported by each.
    """

    def __init__(self, tree: Path, executed: Executed, seconds: float) -> None:
        self.tree, self.executed, self.seconds = tree, executed, seconds

    def fate(self, mutant: Mutant) -> tuple[str, str]:
        """Return NOTICED, SURVIVES, TOO LONG or NOT RUN, and a description of the tests."""
        file = mutant.path.relative_to(ROOT)
        tests = self.executed.tests_of(file.as_posix(), mutant.line, mutant.last)
        if not tests:
            return NOT_RUN, ""
        chosen = self._affordable(tests)
        target = self.tree / file
        original, times = target.read_text(encoding="utf-8"), target.stat()
        target.write_text(original[: mutant.start] + mutant.text + original[mutant.end :], encoding="utf-8")
        try:
            found = self._run(chosen)
        finally:
            target.write_text(original, encoding="utf-8")
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # compiled files stay valid
        return found, f"{len(chosen)} of {len(tests)} tests"

    def _affordable(self, tests: list[str]) -> list[str]:
        """The first tests that together take less than half of the time limit, and at least 5."""
        total, chosen = 0.0, []
        for test in tests:
            total += self.executed.seconds.get(test, 0.0)
            if len(chosen) >= 5 and (total > self.seconds / 2 or len(chosen) == MOST):
                break
            chosen.append(test)
        return chosen

    def _run(self, tests: list[str]) -> str:
        child = os.fork()
        if child == 0:
            os._exit(_run_tests(self.tree, tests))
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return SURVIVES if os.waitstatus_to_exitcode(status) == 0 else NOTICED
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return TOO_LONG


def _run_tests(tree: Path, tests: list[str]) -> int:
    """Run tests in this process, a fork of the one that imported torch."""
    os.setpgid(0, 0)
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    os.chdir(tree)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(tree), str(tree / "src")]
    os.environ.update(environment(tree))
    try:
        return int(pytest.main(["-q", "-x", "-m", "not long", "-p", "no:cacheprovider", *tests]))
    except BaseException:
        return 1


def environment(tree: Path) -> dict[str, str]:
    """The environment of tests in a copy of the repository."""
    shared = os.environ.get("CAFETIERE_SHARED", str(ROOT.parent / "shared"))
    own = {"PYTHONPATH": os.pathsep.join([str(tree / "src"), *_installed()]), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own, "CAFETIERE_SHARED": shared, "OMP_NUM_THREADS": "1"}


def _installed() -> list[str]:
    """The entries of PYTHONPATH that are not this repository's."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [path for path in given if path and not Path(path).resolve().is_relative_to(ROOT)]


def random_mutant(folder: Path, draw: random.Random) -> Mutant:
    """Return a mutant of a random file of a folder."""
    files = sorted(path for path in folder.rglob("*.py") if not path.name.startswith("caffe_pb2"))
    while True:
        found = mutants(draw.choice(files))
        if found:
            return draw.choice(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=FOLDERS, help="folders of src/caffe")
    parser.add_argument("--count", type=int, default=60, help="mutants in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="time limit for the tests of a mutant")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files and folders of tests that are recorded")
    parser.add_argument("--executed", type=Path, help="file of what the tests execute; it is made if it is missing")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        ignored = shutil.ignore_patterns(".venv*", ".git", "site", "*_lmdb", "__pycache__")
        shutil.copytree(ROOT, tree, ignore=ignored)
        subprocess.run(["git", "init", "-q"], cwd=tree, check=True)  # tests ask git for the files of the repository
        subprocess.run(["git", "add", "."], cwd=tree, check=True)
        file = (given.executed or Path(name) / "executed").resolve()
        if not file.exists():
            record(
                tree,
                [str(tree / "src/caffe" / folder) for folder in given.folders],
                given.tests,
                file,
                environment(tree),
            )
        trial, fates = Trial(tree, load(file), given.seconds), []
        for number in range(given.count):
            mutant = random_mutant(ROOT / "src/caffe" / given.folders[number % len(given.folders)], draw)
            found, tests = trial.fate(mutant)
            fates.append(found)
            print(f"{number + 1:3d} {found:8} {mutant}" + (f"  ({tests})" if tests else ""), flush=True)
    counts = ", ".join(f"{fates.count(kind)} {kind.lower()}" for kind in (NOTICED, SURVIVES, NOT_RUN, TOO_LONG))
    print(f"{given.count} mutants: {counts}")


if __name__ == "__main__":
    main()
