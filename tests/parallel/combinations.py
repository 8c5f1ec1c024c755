"""Options of a solver, in each mode for several processes: `python -m tests.parallel.combinations FOLDER`.

The table in docs/parallel.md states whether a pair of option and mode is supported or rejected.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from caffe.errors import CaffeError
from caffe.net.divided import shards
from caffe.parallel import environment, group
from caffe.solver import cutting
from tests.conftest import ROOT
from tests.parallel import divided_cases
from tests.parallel.cases import Found, close, solver, tested

WAYS = {"data parallel": "", "`shard`": "shard", "`tensor_parallel`": "tensor", "`pipeline`": "pipeline"}
"""Columns of the table, with the modes of the cases."""
TYPED = 'type: "SGD" momentum: 0.9 '


def table(path: Path = ROOT / "docs" / "parallel.md") -> dict[str, dict[str, bool]]:
    """Return for each option of the table in the docs the modes that support it; the other modes reject it."""
    lines = path.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| in the solver |"))
    names = _cells(lines[start])[1:]
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        options, *cells = _cells(line)
        for option in options.split(", "):
            found[option.strip("`")] = {name: cell == "right" for name, cell in zip(names, cells, strict=True)}
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def run(option: str, way: str, size: int) -> np.ndarray:
    """Return the losses of some steps and the results of a test; nothing if the solver is rejected."""
    options = option if "type:" in option else TYPED + option
    mode = WAYS[way]
    try:
        if mode:
            made = divided_cases.made(mode, size, options + " ")
        else:
            made = solver(divided_cases.WHOLE // size, options, divided_cases.LAYERS, divided_cases.SOURCES)
    except CaffeError:
        return np.zeros(0)
    losses = divided_cases.trained_losses(made, 4)
    found = np.concatenate([losses, *tested(made).values()])
    close(made)
    return found


def main(folder: str) -> None:
    """Run all pairs in this process, which is one of several, and write the results."""
    os.chdir(folder)
    cutting._SMALL, shards._PIECE = 1, 200
    processes = environment.join(limit=60)
    with group.joined(processes):
        found: Found = {f"{option} {way}": run(option, way, processes.size) for option in table() for way in WAYS}
        np.savez(f"combinations_{processes.rank}.npz", **found)
    processes.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
