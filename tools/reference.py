"""Writes the pages of the documentation that are generated from the code: layer types, commands, tables of solvers.

python tools/reference.py            # writes the pages that are out of date
python tools/reference.py --check    # exit code 1 if a page is out of date
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from caffe.cli import _layer_pages, command, flags
from caffe.cli.command import Command
from caffe.cli.flags import Flag
from caffe.data import READERS, WRITERS
from caffe.doctor.check import checks
from caffe.solver.momentum import Momentum
from caffe.solver.policy import Policy
from caffe.solver.rules import RULES

ROOT = Path(__file__).parent.parent


def commands() -> str:
    """Return the page of all commands."""
    lines = [
        "# Commands",
        "",
        f"This page is printed by `python tools/{Path(__file__).name}` from the commands' own help.",
    ]
    known = command.offered()
    for task, title in command.TASKS.items():
        group = [entry for entry in known.values() if entry.task == task]
        lines += ["", f"## {title}", "", "| command | purpose |", "| --- | --- |"]
        lines += [f"| [`{entry.name}`](#{entry.name}) | {_cell(entry.summary)} |" for entry in group]
        for entry in group:
            lines += _command(entry)
    titles = {
        "Flags of Caffe's command": "A command that does not use one of these flags says so in a warning.",
        "Flags of every command": "",
    }
    for (title, text), shown in zip(titles.items(), (flags.CAFFE, flags.GENERAL), strict=True):
        lines += [
            "",
            f"## {title}",
            *(["", text] if text else []),
            "",
            *_table(sorted(shown, key=lambda flag: flag.name)),
        ]
    return "\n".join(lines) + "\n"


def _command(entry: Command) -> Iterator[str]:
    usage = f"caffe {entry.name} {entry.arguments}".rstrip()
    yield from ("", f"### {entry.name}", "", f"    {usage} [flags]", "", entry.doc)
    if entry.reads:
        yield from ("", *_table(entry.reads))


def _table(shown: tuple[Flag, ...] | list[Flag]) -> Iterator[str]:
    yield from ("| flag | default | meaning |", "| --- | --- | --- |")
    for flag in shown:
        default = "" if flag.default == "" else f"`{str(flag.default).lower()}`"
        names = ", ".join(f"`-{name}`" for name in (flag.name, *flag.aliases))
        yield f"| {names} | {default} | {_cell(flag.description)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def layers() -> str:
    """Return the page of all layer types."""
    return "".join(f"{line}\n" for line in _layer_pages.markdown())


def filled(page: str, title: str, table: list[str], text: str = "") -> str:
    """Return a page, or its `text`, with this table between the markers with this title."""
    text = text or (ROOT / "docs" / page).read_text(encoding="utf-8")
    marked = rf"(<!-- {title}, by tools/reference.py -->\n\n).*?(\n\n<!-- end -->)"
    text, count = re.subn(marked, lambda match: match[1] + "\n".join(table) + match[2], text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"docs/{page}: expected one marker for {title}, found {count}")
    return text


def solvers() -> str:
    """Return the page about solvers, with current tables of all rules and schedules between its markers."""
    text = ""
    families = {"type": RULES.items, "lr_policy": Policy.registry.items, "momentum_policy": Momentum.registry.items}
    for option, classes in families.items():
        rows = [
            f"| {name} | {_summary(cls)} |" for name, cls in sorted(classes.items(), key=lambda item: item[0].lower())
        ]
        table = [f"| `{option}` | what it computes |", "| --- | --- |", *rows]
        text = filled("solvers.md", f"all values of {option}", table, text)
    return text


def data() -> str:
    """Return the page about data, with a current table of all backends between its markers."""
    writers = {name.upper() for name in WRITERS.names()}
    rows = [
        f"| {name} | {_summary(READERS.find(name))} | {'yes' if name in writers else 'no'} |"
        for name in READERS.names()
    ]
    return filled(
        "data.md", "all backends", ["| `backend` | what it reads | can be written |", "| --- | --- | --- |", *rows]
    )


def doctor() -> str:
    """Return the page about the doctor, with a current table of all faults between its markers."""
    faults = sorted((code, fault) for check in checks() for code, fault in check.faults.items())
    rows = [f"| `{code}` | {_cell(fault.meaning)} | {_cell(fault.by_hand)} |" for code, fault in faults]
    head = ["| code | meaning | how to check it manually |", "| --- | --- | --- |"]
    return filled("doctor.md", "all codes", [*head, *rows])


def _summary(cls: type) -> str:
    """Return the first paragraph of a docstring as a cell of a table."""
    return _cell(" ".join((cls.__doc__ or "").partition("\n\n")[0].split()))


PAGES: dict[str, Callable[[], str]] = {
    "docs/layers.md": layers,
    "docs/commands.md": commands,
    "docs/solvers.md": solvers,
    "docs/data.md": data,
    "docs/doctor.md": doctor,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is out of date")
    check = parser.parse_args().check
    stale = 0
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"{name} is out of date; run: python tools/reference.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"written: {name}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
