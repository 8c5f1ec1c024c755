"""The structure of the source: layers of modules that only import downwards, no circular imports, limits on file and
function lengths."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from caffe.layers import layer_types
from tests.conftest import ROOT

SOURCE = ROOT / "src"
FLOORS = [
    "errors log limits timer registry torch_internals opencv signal_handlers finding_commands",
    "parallel",
    "proto",
    "python_code user_code mode lazy_zeros memory parameter_memory blob blob_vec filler names uncopied",
    "data.databases data.pipeline data.streams data.tools data",
    "net_spec",
    "layers.support layers",
    "net.graph",
    "net.plan",
    "net.engines",
    "net.run",
    "net.measure net",
    "solver",
    "model_libs pictures web io train_log draw plot reliability coord_map classifier detector models torch inside",
    "inspection doctor stand_ins",
    "zoo project evaluation watch exercise ensemble race search monitor tryout convert",
    "cli",
    "_caffe pycaffe",
]
"""The parts of the package, lowest floor first, as in docs/architecture.md. A part imports from its own floor and those
below it."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 40
GENERATED = {"proto/caffe_pb2.py"}


@cache
def modules() -> dict[str, Path]:
    """Return the modules of the package by name; the module of a package is its `__init__`."""
    found = {}
    for path in sorted((SOURCE / "caffe").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return the nodes of a module's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of the package that a module imports, anywhere in the file, also for type checking."""
    found = set()
    for node in nodes(modules()[name]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(each if each in modules() else node.module for each in inner)
    return frozenset(each for each in found if each in modules() and each != name)


def floor(name: str) -> int:
    """Return the floor of a module. The longest matching name in FLOORS counts."""
    inner = name.removeprefix("caffe.")
    parts = [(part, index) for index, line in enumerate(FLOORS) for part in line.split()]
    fitting = [(len(part), index) for part, index in parts if inner == part or inner.startswith(part + ".")]
    assert fitting, f"{name} stands on no floor; add its part to FLOORS, and to docs/architecture.md"
    return max(fitting)[1]


def test_no_module_imports_itself_in_a_circle():
    graph = {name: imports(name) for name in modules() if name not in ("caffe", "caffe.__main__")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_parts_import_from_floors_below():
    climbs = [
        f"{name} imports {other}"
        for name in modules()
        if name not in ("caffe", "caffe.__main__")
        for other in imports(name)
        if (other == "caffe" and floor(name) < len(FLOORS) - 1) or (other != "caffe" and floor(other) > floor(name))
    ]
    assert not climbs


def test_every_part_is_on_a_floor_and_every_floor_has_parts():
    for line in FLOORS:
        for part in line.split():
            assert f"caffe.{part}" in modules(), part


def test_files_and_functions_are_short():
    for path in modules().values():
        if path.relative_to(SOURCE / "caffe").as_posix() in GENERATED:
            continue
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, path
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert _code_lines(node) <= LONGEST_FUNCTION, f"{path}:{node.lineno}: {node.name}"


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function without its docstring."""
    assert node.end_lineno is not None
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    lines = 0 if docstring is None else docstring.end_lineno - docstring.lineno + 1
    return node.end_lineno - node.lineno + 1 - lines


TYPE_NAMES = {
    "coord_map": "layers of a NetSpec are not built",
    "exercise.nets": "it writes prototxts",
    "draw": "pycaffe's function takes a type name, and drawing imports no torch",
    "pictures.labels": "drawing imports no torch",
    "pictures.net_graph": "drawing imports no torch",
    "python_code": "the check runs before any layer class is imported",
}
"""The modules outside `layers/` that compare names of layer types, each with its reason. Other code asks the class: its
attributes (`layers/support/traits.py`), `isinstance` or `is_a`. `proto/` is exempt: its tables translate files, whose
set of names is closed, and it imports no torch."""


def test_few_modules_compare_names_of_layer_types():
    inner = [name.removeprefix("caffe.") for name in modules()]
    asked = [name for name in inner if name.split(".")[0] not in ("layers", "proto", "models")]
    found = {name for name in asked if _compared_types(modules()[f"caffe.{name}" if name != "caffe" else name])}
    assert found == set(TYPE_NAMES)
    assert len(TYPE_NAMES) <= 8


def _compared_types(path: Path) -> list[str]:
    """Return the names of layer types that a module compares, or lists in a tuple, list, set or as keys."""
    types, found = set(layer_types()), []
    public = [node.value for node in nodes(path) if isinstance(node, ast.Assign) and _is_all(node)]
    for node in nodes(path):
        parts: list[ast.expr | None] = []
        if node in public:
            continue
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            parts = node.keys
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = list(node.elts)
        found += [part.value for part in parts if isinstance(part, ast.Constant) and part.value in types]
    return found


def _is_all(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
