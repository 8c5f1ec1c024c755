"""Seeds mistakes in a copy of the package, one at a time, and shows which of them the sequences notice.

    python -m tests.ownership.mistakes             # all of them
    python -m tests.ownership.mistakes 0 8         # those from number 0 to 7

The exit code is the number of mistakes that nothing noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SEQUENCES = 1500


@dataclass(frozen=True)
class Mistake:
    """`old`, which stands once in the file (a path below src/caffe), becomes `new`; `what` says it in words."""

    what: str
    file: str
    old: str
    new: str


MISTAKES: list[Mistake] = []


def apply(mistake: Mistake, package: Path) -> None:
    """Put the mistake into a copy of the package; a ValueError where the text does not stand there once."""
    path = package / mistake.file
    text = path.read_text()
    if text.count(mistake.old) != 1:
        raise ValueError(f"{mistake.file} has {mistake.old!r} {text.count(mistake.old)} times, expected once")
    path.write_text(text.replace(mistake.old, mistake.new))


def noticed(mistake: Mistake, sequences: int = SEQUENCES) -> str:
    """The sequence that fails with the mistake, in brief; "" where none does."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src" / "caffe", Path(folder) / "caffe", ignore=shutil.ignore_patterns("__pycache__"))
        apply(mistake, Path(folder) / "caffe")
        command = [sys.executable, "-m", "tests.ownership", "--sequences", str(sequences), "--first", "--brief"]
        places = {"PYTHONPATH": os.pathsep.join([folder, str(ROOT)]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(
            f"the sequences did not run with {mistake.what!r}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout if done.returncode else ""


def main() -> int:
    start, stop = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (0, len(MISTAKES))
    survived = 0
    for number, mistake in list(enumerate(MISTAKES))[start:stop]:
        found = noticed(mistake)
        survived += not found
        seed = found.split("--- seed ")[1].split()[0] if found else "-"
        word = f"sequence {seed:5}" if found else "SURVIVED      "
        print(f"{number:2} {word} {mistake.file:20} {mistake.what}", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main())
