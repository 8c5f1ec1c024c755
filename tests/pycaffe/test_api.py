"""Every public name of pycaffe exists under the same path and can be called in the same way."""

from __future__ import annotations

import importlib
import inspect
import json
import re

import pytest

from tests.conftest import reference

STORED = reference("golden", "api.json")
API = json.loads(STORED.read_text()) if STORED.exists() else {"modules": {}, "classes": {}, "layer_types": []}
needs_reference = pytest.mark.skipif(not STORED.exists(), reason="reference files not found; set CAFETIERE_SHARED")

IMPORTED = {"np", "os", "six", "skimage", "pydot", "protobuf", "division", "izip_longest", "zoom", "resize", "Counter"}
"""Names that pycaffe's modules import from other modules. They are not part of the API."""
HOMES = {"SolverParameter(_caffe)": "SolverParameter", "LayerParameter(_caffe)": "LayerParameter"}
MEMBERLESS = {"LayerParameter", "SolverParameter"}  # here these are messages: fields instead of getters
NCCL_STUBS = ("add_callback", "after_backward")
"""The reference was built without NCCL, and also has a version without arguments, which does nothing."""
NAMES = [
    (module, name)
    for module, names in API["modules"].items()
    for name in names
    if name not in IMPORTED and name not in ("caffe", "OrderedDict", "caffe_pb2")
]


def find(module: str, name: str):
    return getattr(importlib.import_module(module), name)


def class_named(name: str):
    """Return the class of this name, in the module where pycaffe defines it."""
    home = next(m for m, names in API["modules"].items() if HOMES.get(name, name) in names and m != "caffe.pycaffe")
    return find(home, HOMES.get(name, name))


def parameters(function) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def assert_signature(function, wanted: str, what: str) -> None:
    """Assert that our first parameters are those of the reference, by name, kind and default, and that others have
    defaults.
    """
    namespace: dict = {}
    exec(f"def wanted{wanted}: pass", namespace)
    expected, got = parameters(namespace["wanted"]), parameters(function)
    if got and got[0].name != "self" and expected and expected[0].name == "self":
        expected = expected[1:]
    for theirs, mine in zip(expected, got, strict=False):
        assert (mine.name, mine.kind, mine.default) == (theirs.name, theirs.kind, theirs.default), what
    assert len(got) >= len(expected), what
    assert all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in got[len(expected) :])


def counts(signature: str) -> tuple[int, int]:
    """Return the smallest and the largest number of arguments in a signature of Boost.Python."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    optional = inside.partition("[")[2]
    total = len(re.findall(r"\(\w+\)\s*\w+", inside))
    return total - len(re.findall(r"\(\w+\)\s*\w+", optional)), total


def assert_callable_with(function, signatures: list[str], what: str) -> None:
    for signature in signatures:
        if what.endswith(NCCL_STUBS) and counts(signature)[1] == 1:
            continue
        for count in counts(signature) if not what.endswith(NCCL_STUBS) else counts(signature)[1:]:
            try:
                inspect.signature(function).bind(*[None] * count)
            except TypeError as error:
                pytest.fail(f"{what}: {signature}: {error}")


@needs_reference
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_name(module, name):
    entry, mine = API["modules"][module][name], find(module, name)
    kind = entry["kind"]
    if kind == "class":
        assert inspect.isclass(mine)
    elif kind == "module":
        assert inspect.ismodule(mine)
    elif kind == "function":
        assert callable(mine)
        if "signature" in entry:
            assert_signature(mine, entry["signature"], name)
        elif not inspect.ismodule(mine):
            assert_callable_with(mine, entry["boost_signatures"], name)
    elif "value" in entry:
        assert mine == entry["value"]


@needs_reference
@pytest.mark.parametrize("name", API["classes"])
def test_class(name):
    cls = class_named(name)
    own = HOMES.get(name, name)
    for base in API["classes"][name]["bases"]:
        if base not in ("instance", "object"):
            assert issubclass(cls, class_named(base)), base
    for member, entry in API["classes"][name]["members"].items():
        if not entry["public"] or (member == "__init__" and own in (*MEMBERLESS, "Solver")):
            continue
        if own.endswith("Vec") and member == "__init__":
            continue
        if cls is not class_named("Net") and own in ("Classifier", "Detector") and entry["inherited"]:
            continue
        mine = inspect.getattr_static(cls, member, None)
        if entry["kind"] == "property":
            check_property(cls, member, mine, entry)
        elif "signature" in entry:
            assert_signature(getattr(cls, member), entry["signature"], f"{name}.{member}")
        elif "boost_signatures" in entry and not own.endswith("Vec"):
            assert_callable_with(getattr(cls, member), entry["boost_signatures"], f"{name}.{member}")
        else:
            assert callable(getattr(cls, member)), f"{name}.{member}"


def check_property(cls, member, mine, entry) -> None:
    """Assert that the name is a property, or an attribute of instances (annotated, or set on creation)."""
    if hasattr(cls, "DESCRIPTOR"):
        assert member in cls.DESCRIPTOR.fields_by_name
        return
    annotated = any(member in vars(base).get("__annotations__", {}) for base in cls.__mro__)
    assigned = any(f"self.{member}" in inspect.getsource(base) for base in cls.__mro__ if base.__module__ != "builtins")
    assert mine is not None or annotated or assigned, f"{cls.__name__}.{member}"


@needs_reference
def test_layer_types():
    import caffe

    assert set(API["layer_types"]) <= set(caffe.layer_type_list())
    assert list(caffe.layer_type_list()) == sorted(caffe.layer_type_list())


@needs_reference
def test_version():
    import caffe

    assert caffe.__version__ == API["version"]
