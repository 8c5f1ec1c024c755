"""Runs the commands of the course's pages, and copies the pictures that they create.

    python tools/course.py                    all pages, to docs/course/images
    python tools/course.py dropout            one page

A page's commands are the lines of its blocks that begin with `caffe` or `python`; they run in a separate folder. A
picture `images/PAGE_NAME.png` of a page is `course/NAME.png` of that folder, with slashes replaced by underscores.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("data", "initialisation", "batch_normalisation", "babysitting", "dropout")


def text(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / "docs" / "course" / f"{page}.md").read_text(encoding="utf-8")


def commands(page: str) -> list[list[str]]:
    """Yield the words of each command of a page, in order."""
    blocks = re.findall(r"^```\n(.*?)^```", text(page), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("caffe ", "python "))]


def pictures(page: str) -> dict[str, str]:
    """Yield the pictures of a page: the name in docs/course/images, and the path below `course`."""
    names = re.findall(r"\]\(images/([\w.]+)\)", text(page))
    return {name: name.removeprefix(f"{page}_").replace("__", "/") for name in names}


def execute(words: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a command in a separate process; returns exit code, standard output and standard error."""
    program = [sys.executable, "-m", "caffe"] if words[0] == "caffe" else [sys.executable]
    done = subprocess.run([*program, *words[1:]], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def run(page: str, folder: Path, execute: Callable[[list[str], Path], tuple[int, str, str]] = execute) -> None:
    """Run the commands of a page in a folder.

    Raises SystemExit if one fails; findings of the doctor do not count as failures.
    """
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    for words in commands(page):
        code, output, errors = execute(words, folder)
        if code not in ((0, 3) if words[:2] == ["caffe", "doctor"] else (0,)):
            raise SystemExit(f"{page}: {shlex.join(words)}: exit code {code}\n{errors[-2000:]}")
        print(f"$ {shlex.join(words)}\n{output}")


def main() -> None:
    """Run the named pages, or all, and copy their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"one of {', '.join(PAGES)}; default: all")
    given = parser.parse_args()
    unknown = [page for page in given.pages if page not in PAGES]
    if unknown:
        parser.error(f"no page {', '.join(unknown)}; the pages are {', '.join(PAGES)}")
    with tempfile.TemporaryDirectory() as name:
        for page in given.pages or PAGES:
            run(page, Path(name))
            for picture, path in pictures(page).items():
                shutil.copy(Path(name) / "course" / path, ROOT / "docs" / "course" / "images" / picture)


if __name__ == "__main__":
    main()
