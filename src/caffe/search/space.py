"""The search space: which fields of solver and net vary, and over which values."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from caffe.doctor.case import Case
from caffe.doctor.changes import Change, SetField
from caffe.errors import FileError, SolverError, did_you_mean, require_extra

__all__ = ["Dimension", "Space", "read_space"]

KINDS = ("uniform", "log_uniform", "integer", "choice")
_LAYER = re.compile(r"net\.layer\[(?:\"([^\"]*)\"|'([^']*)'|(\d+))\]\.(.+)")
_STEP = re.compile(r"([a-z_A-Z0-9]+)(?:\[(\d+)\])?")


@dataclass(frozen=True)
class Dimension:
    """A setting that varies. `paths` are the fields that get its value; the first one is its name.

    `low` and `high` bound the kinds "uniform", "log_uniform" and "integer"; `values` are the options of "choice". `log`
    spaces integers logarithmically. `points` is the number of values in a grid.
    """

    paths: tuple[str, ...]
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    log: bool = False
    values: tuple[Any, ...] = ()
    points: int = 0

    @property
    def name(self) -> str:
        return self.paths[0]

    @property
    def logarithmic(self) -> bool:
        """Whether the values are spaced logarithmically."""
        return self.log or self.kind == "log_uniform"

    def distribution(self) -> Any:
        """Return Optuna's distribution."""
        from optuna import distributions

        if self.kind == "choice":
            return distributions.CategoricalDistribution(self.values)
        if self.kind == "integer":
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)
        return distributions.FloatDistribution(self.low, self.high, log=self.logarithmic)

    def suggest(self, trial: Any) -> Any:
        """Return the value of a trial: its existing value, or one drawn by the sampler."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.values)
        if self.kind == "integer":
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log, step=self.step)
        return trial.suggest_float(self.name, self.low, self.high, log=self.logarithmic)

    def grid(self) -> list[Any]:
        """Return the values of a grid, in ascending order."""
        if self.kind == "choice":
            return list(self.values)
        count = self.points
        if not count:
            raise SolverError(f'{self.name}: a grid needs the number of its values; add "points: 5" to the line')
        shares = [index / max(1, count - 1) for index in range(count)]
        if self.logarithmic:
            found = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            found = [self.low + (self.high - self.low) * share for share in shares]
        if self.kind == "integer":
            return sorted({int(self.low) + self.step * round((value - self.low) / self.step) for value in found})
        return [min(self.high, max(self.low, value)) for value in found]

    def narrowed(self, best: Any, share: float = 0.25) -> Dimension:
        """Return the dimension reduced to `share` of its width around its best value. A choice keeps only its best
        value.
        """
        if self.kind == "choice":
            return replace(self, values=(best,))
        low, high, middle = self.low, self.high, float(best)
        if self.logarithmic:
            low, high, middle = math.log(low), math.log(high), math.log(middle)
        half = share * (high - low) / 2
        new = max(low, middle - half), min(high, middle + half)
        if self.logarithmic:
            new = math.exp(new[0]), math.exp(new[1])
        if self.kind == "integer":
            first, last = (round((each - self.low) / self.step) for each in (int(new[0]), math.ceil(new[1])))
            new = self.low + self.step * first, self.low + self.step * max(first + 1, last)
        return replace(self, low=max(self.low, new[0]), high=min(self.high, new[1]))


@dataclass(frozen=True)
class Space:
    """All dimensions of a search."""

    dimensions: tuple[Dimension, ...]

    def change(self, case: Case, params: Mapping[str, Any]) -> Change:
        """Create the change of solver and net that sets these values."""
        edits = [
            edit
            for dimension in self.dimensions
            for path in dimension.paths
            for edit in _edits(case, path, params[dimension.name])
        ]
        return Change(", ".join(f"{name} {value}" for name, value in params.items()), tuple(edits))

    def check(self, case: Case) -> None:
        """Raise a SolverError for a path without a field, and for a value that its field cannot hold."""
        for dimension in self.dimensions:
            for value in dimension.values or (_bound(dimension, dimension.low), _bound(dimension, dimension.high)):
                for path in dimension.paths:
                    _edits(case, path, value)

    def narrowed(self, best: Mapping[str, Any]) -> Space:
        """Return the space reduced around the best parameters."""
        return Space(tuple(dimension.narrowed(best[dimension.name]) for dimension in self.dimensions))

    def distributions(self) -> dict[str, Any]:
        return {dimension.name: dimension.distribution() for dimension in self.dimensions}


def read_space(path: str | Path) -> Space:
    """The space of a YAML file: a line for each path, with one of `KINDS`.

    solver.base_lr: {log_uniform: [1e-4, 1e-1]}
    solver.type: {choice: [SGD, Adam]}
    net.layer["ip1"].inner_product_param.num_output: {integer: [50, 800], log: true, points: 4}
    net.layer["conv1"].param[0].decay_mult: {uniform: [0, 2], also: ['net.layer["conv2"].param[0].decay_mult']}
    """
    yaml: Any = require_extra("yaml", "search", "reading a search space")
    try:
        with open(path) as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise FileError(f"{path}: expected a line for each field that varies: solver.base_lr: {{log_uniform: [a, b]}}")
    return Space(tuple(_dimension(str(path), str(name), given) for name, given in content.items()))


def _dimension(path: str, name: str, given: Any) -> Dimension:
    def wrong(fact: str) -> FileError:
        return FileError(f"{path}: {name}: {fact}")

    if not isinstance(given, dict):
        raise wrong(f"expected {{KIND: VALUES}}, with one of {', '.join(KINDS)}")
    known = (*KINDS, "log", "step", "points", "also")
    for word in given:
        if word not in known:
            raise wrong(f'"{word}" is unknown{did_you_mean(str(word), known)}; known: {", ".join(known)}')
    kinds = [word for word in given if word in KINDS]
    if len(kinds) != 1:
        raise wrong(f"has {' and '.join(kinds) or 'no kind'}; expected one of {', '.join(KINDS)}")
    (kind,) = kinds
    values = given[kind]
    if not isinstance(values, list) or not values or (kind != "choice" and len(values) != 2):
        raise wrong(f"{kind} has {values!r}, expected {'a list of values' if kind == 'choice' else '[low, high]'}")
    also = given.get("also", [])
    paths = (name, *(also if isinstance(also, list) else [also]))
    try:
        step, points = int(given.get("step", 1)), int(given.get("points", 0))
        if kind == "choice":
            return Dimension(paths, kind, values=tuple(values), points=points)
        low, high = float(values[0]), float(values[1])
    except (TypeError, ValueError):
        raise wrong(f"{given!r} has an entry that is not a number") from None
    dimension = Dimension(paths, kind, low, high, step, bool(given.get("log", False)), (), points)
    if not low < high or not math.isfinite(high - low):
        raise wrong(f"the bounds are {low:g} and {high:g}; the first must be below the second")
    if dimension.logarithmic and low <= 0:
        raise wrong(f"the lower bound is {low:g}; a logarithmic range begins above 0")
    if kind == "integer" and (step < 1 or low != int(low) or high != int(high) or (dimension.log and step != 1)):
        raise wrong("integers need whole bounds and a step of at least 1, and no step with log")
    return dimension


def _bound(dimension: Dimension, value: float) -> Any:
    return int(value) if dimension.kind == "integer" else value


def _edits(case: Case, path: str, value: Any) -> list[SetField]:
    """Return the edits that set the field at a path of the space to a value."""
    if path.startswith("solver."):
        inner = path.removeprefix("solver.")
        return [SetField(None, inner, _value(path, case.param.DESCRIPTOR, inner, value))]
    match = _LAYER.fullmatch(path)
    if match is None:
        raise SolverError(
            f'{path}: expected solver.FIELD, or net.layer["NAME"].FIELD, where NAME may be a pattern such as "conv*"'
        )
    name = match[1] if match[1] is not None else match[2]
    layers = case.net.layer
    if name is None:
        found = [int(match[3])] if int(match[3]) < len(layers) else []
    else:
        found = [index for index, layer in enumerate(layers) if fnmatch.fnmatchcase(layer.name, name)]
    if not found:
        hint = did_you_mean(name, [layer.name for layer in layers]) if name else f"; it has {len(layers)} layers"
        raise SolverError(f"{path}: the net has no such layer{hint}")
    text = _value(path, layers[0].DESCRIPTOR, match[4], value)
    return [SetField(index, match[4], text) for index in found]


def _value(whole: str, descriptor: Any, path: str, value: Any) -> str:
    """Return the value as prototxt text for the field at `path` of a message; raises a SolverError if it does not
    fit.
    """
    field = _field(whole, descriptor, path)
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if kind == FieldDescriptor.TYPE_BOOL and isinstance(value, bool):
        return "true" if value else "false"
    if kind == FieldDescriptor.TYPE_ENUM:
        names = [each.name for each in field.enum_type.values]
        if value in names:
            return str(value)
        raise SolverError(f"{whole}: {value!r} is not one of {', '.join(names)}{did_you_mean(str(value), names)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return repr(float(value))
        if value == int(value):
            return str(int(value))
    if isinstance(value, str) and field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        try:
            return repr(float(value))  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    raise SolverError(f"{whole}: {value!r} does not fit the field, which holds {_held(field)}")


def _held(field: Any) -> str:
    names = {FieldDescriptor.CPPTYPE_BOOL: "true or false", FieldDescriptor.CPPTYPE_MESSAGE: "other fields"}
    numbers = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
    return names.get(field.cpp_type, "a number" if field.cpp_type in numbers else "a whole number")


def _field(whole: str, descriptor: Any, path: str) -> Any:
    steps: Sequence[str] = path.split(".")
    for index, part in enumerate(steps):
        match = _STEP.fullmatch(part)
        known = descriptor.fields_by_name if descriptor is not None else {}
        if match is None or match[1] not in known:
            hint = did_you_mean(match[1], known) if match else ""
            raise SolverError(f'{whole}: there is no field "{part}"{hint}')
        field = known[match[1]]
        if index == len(steps) - 1:
            return field
        descriptor = field.message_type
    raise AssertionError(path)
