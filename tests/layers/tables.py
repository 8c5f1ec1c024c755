"""Two tables: how many reference files of each layer type were passed, and how large the layers' classes are."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from caffe.layers import Layer, layer_class, layer_types

LAYER = re.compile(r"test_golden\.py::\w+\[(\w+?)__")
NET = re.compile(r"net/test_reference\.py::\w+\[")


@dataclass(frozen=True)
class Size:
    """A class's name, the lines of its docstring, and its lines of code: without blank lines, comments, docstrings."""

    name: str
    doc: int
    code: int


def sizes() -> list[Size]:
    """The sizes of our layer types."""
    classes = [layer_class(name) for name in layer_types()]
    return [size(cls) for cls in classes if cls.__module__.startswith("caffe.")]


def size(cls: type[Layer]) -> Size:
    source = _source(cls)
    lines = source.splitlines()
    left = {i for i, line in enumerate(lines, 1) if line.strip() and not line.strip().startswith("#")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            left -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return Size(cls.__name__, len((inspect.getdoc(cls) or "").splitlines()), len(left))


def _source(cls: type) -> str:
    """Return the lines of a class. `inspect.getsource` is much slower, because it parses the file for each class."""
    path = inspect.getfile(cls)
    (node,) = (each for each in _classes(path) if each.name == cls.__name__)
    first = min(each.lineno for each in (node, *node.decorator_list))
    return textwrap.dedent("\n".join(Path(path).read_text().splitlines()[first - 1 : node.end_lineno]))


@cache
def _classes(path: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.ClassDef)]


def lines(reports: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Yield the lines of both tables, computed from pytest's reports by outcome."""
    passed, failed = (Counter(kinds(reports, outcomes)) for outcomes in (("passed",), ("failed", "error")))
    if passed + failed:
        layers = Counter({kind: count for kind, count in passed.items() if kind != "nets"})
        yield f"reference files passed: {layers.total()} of {len(layers)} layer types; {passed['nets']} of nets"
        for kind in sorted(passed | failed):
            yield f"  {kind:26}{passed[kind]:4}" + (f"   failed: {failed[kind]}" if failed[kind] else "")
    found = sizes()
    largest = max(found, key=lambda size: size.code)
    yield (
        f"{len(found)} layer classes: {median(size.code for size in found):g} lines of code in the median, "
        f"{largest.code} in the largest ({largest.name}); {median(size.doc for size in found):g} lines of docstring in "
        f"the median, {max(size.doc for size in found)} in the largest"
    )


def kinds(reports: Mapping[str, Sequence[Any]], outcomes: Sequence[str]) -> Iterator[str]:
    """Yield the layer type, or "nets", of each report about a reference file with one of the outcomes."""
    for report in (report for outcome in outcomes for report in reports.get(outcome, ())):
        if report.when == "call" or outcomes != ("passed",):
            if found := LAYER.search(report.nodeid):
                yield found.group(1)
            elif NET.search(report.nodeid):
                yield "nets"
