"""Changes one line of the code at a time, and checks whether a test fails.

    python tools/mutate.py --count 60 --seed 1 net solver data cli proto

Each mutant is one change of one expression in a random file of the named folders of src/caffe: another comparison, a
number changed by one, `and` for `or`, a negated condition, a removed call. The program runs the tests of the folder in
a copy of the sources, and prints the mutants for which all tests pass. Such a mutant is either equivalent to the
original, or a test is missing. `tools/mutate_layers.py` contains mistakes in the layers, chosen by hand.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Test folders to run for a folder of the sources, those that fail soonest first.
TESTS = {
    "net": ["net", "pycaffe", "ownership", "test_memory.py", "test_quirks.py"],
    "solver": ["solver", "examples"],
    "data": ["data", "layers/test_data.py", "tools"],
    "cli": ["cli"],
    "proto": ["proto", "test_errors.py", "test_bad_input.py"],
}
NOTICED, SURVIVES, TOO_LONG = "noticed", "SURVIVES", "TOO LONG"
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
            found.append(Mutant(path, *span, changed, node.lineno))
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


def fate(mutant: Mutant, tree: Path, folder: str, seconds: float) -> str:
    """Run the tests of a folder in a tree with the mutant: returns NOTICED, SURVIVES or TOO LONG."""
    target = tree / mutant.path.relative_to(ROOT)
    original = target.read_text(encoding="utf-8")
    target.write_text(original[: mutant.start] + mutant.text + original[mutant.end :], encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    tests = [f"tests/{name}" for name in TESTS[folder]]
    options = ["-q", "-x", "-m", "not long", "-p", "no:cacheprovider"]
    try:
        words = [sys.executable, "-m", "pytest", *options, *tests]
        done = subprocess.run(words, cwd=tree, env=env, capture_output=True, timeout=seconds)
        return NOTICED if done.returncode else SURVIVES
    except subprocess.TimeoutExpired:
        return TOO_LONG
    finally:
        target.write_text(original, encoding="utf-8")


def random_mutant(folder: Path, draw: random.Random) -> Mutant:
    """Return a mutant of a random file of a folder."""
    files = sorted(path for path in folder.rglob("*.py") if not path.name.startswith("caffe_pb2"))
    while True:
        found = mutants(draw.choice(files))
        if found:
            return draw.choice(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=list(TESTS), help="folders of src/caffe")
    parser.add_argument("--count", type=int, default=60, help="mutants in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=400, help="time limit of the tests")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        ignored = shutil.ignore_patterns(".venv*", ".git", "site", "*_lmdb", "__pycache__")
        shutil.copytree(ROOT, tree, ignore=ignored)
        fates: list[str] = []
        for number in range(given.count):
            folder = given.folders[number % len(given.folders)]
            mutant = random_mutant(ROOT / "src/caffe" / folder, draw)
            fates.append(fate(mutant, tree, folder, given.seconds))
            print(f"{number + 1:3d} {fates[-1]:8} {mutant}", flush=True)
    print(f"{fates.count(SURVIVES)} of {given.count} mutants survive, {fates.count(TOO_LONG)} took too long")


if __name__ == "__main__":
    main()
