"""Loads a solver's settings and checks their ranges: an error for invalid values, a warning for unwise ones."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe import log
from caffe.errors import ArgumentType, FileError, SolverError
from caffe.proto import caffe_pb2, text, upgrade

__all__ = ["check_ranges", "load", "located"]

_NOT_NEGATIVE = {
    "max_iter": "the number of iterations",
    "display": "the iterations between displays, or 0 for none",
    "snapshot": "the iterations between snapshots, or 0 for none",
    "test_interval": "the iterations between tests, or 0 for no tests",
    "stepsize": "the iterations between steps",
    "delta": "a small number such as 1e-8",
    "device_id": "the number of a device",
    "nan_patience": "the NaN iterations to tolerate, or 0 for no limit",
}
_DECAYS = ("step", "exp", "multistep")
_GAMMA = (*_DECAYS, "inv", "sigmoid")
_POWER = ("poly", "inv")
_DIVIDES = ("AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW", "NAdam", "LAMB")


def load(param: str | Path | Any) -> Any:
    """Return the SolverParameter in a file, or a copy of the given one, upgraded to the current format."""
    if isinstance(param, (str, Path)):
        return upgrade.read_solver(param)
    if not isinstance(param, caffe_pb2.SolverParameter):
        raise ArgumentType(
            f"a solver is made from a prototxt's path or a SolverParameter, got {param!r:.80}, a {type(param).__name__}"
        )
    own = caffe_pb2.SolverParameter()
    own.CopyFrom(param)
    upgrade.upgrade_solver(own, "SolverParameter")
    return own


def check_ranges(param: Any, source: str | Path | None = None) -> None:
    """Raise a `SolverError` for an invalid setting; warn of settings with which training cannot work well.

    Caffe accepts the latter, such as a momentum of 1.5. `source` is the solver's file, for the warnings.
    """
    for field, value in param.ListFields():
        values = [value] if isinstance(value, float) else []
        if not all(map(math.isfinite, values)):
            raise SolverError(f"{field.name} is {value}, expected a finite number")
    for name, meaning in _NOT_NEGATIVE.items():
        value = getattr(param, name)
        if value < 0:
            raise SolverError(f"{name} is {value:g}, expected 0 or more: {meaning}")
    for value in (*param.test_iter, *param.stepvalue):
        if value < 0:
            name = "test_iter" if value in param.test_iter else "stepvalue"
            raise SolverError(f"{name} is {value}, expected 0 or more")
    if param.type == "AdaDelta" and not 0 <= param.momentum < 1:
        fact = f"momentum is {param.momentum:g}, expected at least 0 and below 1: the decay of a running mean"
        raise SolverError(f'solver type "AdaDelta": {fact}')
    for fact in (*_unwise(param), *_unwise_rate(param)):
        log.warning("solver.py", str(located(SolverError(fact), source)))


def _unwise(param: Any) -> Iterator[str]:
    """Yield warnings for settings that Caffe accepts but that are probably mistakes."""
    if param.base_lr < 0:
        yield f"base_lr is {param.base_lr:g}, below 0: training makes the loss larger"
    if param.momentum >= 1:
        yield f"momentum is {param.momentum:g}, expected below 1: the steps grow without bound"
    if param.momentum < 0:
        yield f"momentum is {param.momentum:g}, below 0: each step undoes a part of the previous one"
    if param.weight_decay < 0:
        yield f"weight_decay is {param.weight_decay:g}, below 0: the weights are driven away from 0"
    if param.clip_gradients == 0:
        yield "clip_gradients is 0: all gradients become 0; a negative number, the default, is no limit"
    if param.delta == 0 and param.type in _DIVIDES:
        yield "delta is 0: a weight whose gradient is 0 becomes NaN; expected a small number such as 1e-8"
    for index, count in enumerate(param.test_iter):
        if count == 0:
            yield f"test_iter is 0: the tests of test net #{index} run no batch and have no result"


def _unwise_rate(param: Any) -> Iterator[str]:
    """Yield the same kind of warnings for the learning rate policy."""
    policy, gamma = param.lr_policy, param.gamma
    unset = "" if param.HasField("gamma") else " (not set)"
    if policy in _DECAYS and gamma == 0:
        yield f'gamma is 0{unset}: the rate of lr_policy "{policy}" becomes 0 and the weights stop changing'
    elif policy in _GAMMA and gamma == 0:
        yield f'gamma is 0{unset}: the rate of lr_policy "{policy}" stays constant'
    if policy in _DECAYS and gamma > 1:
        yield f'gamma is {gamma:g}, above 1: the rate of lr_policy "{policy}" grows'
    unset = "" if param.HasField("power") else " (not set)"
    if policy in _POWER and param.power == 0:
        yield f'power is 0{unset}: the rate of lr_policy "{policy}" stays constant'
    elif policy in _POWER and param.power < 0:
        yield f'power is {param.power:g}, below 0: the rate of lr_policy "{policy}" grows'
    if policy == "multistep" and any(b <= a for a, b in itertools.pairwise(param.stepvalue)):
        yield f"stepvalue is {list(param.stepvalue)}, expected in ascending order: steps are taken in this order"


def located(error: SolverError, source: str | Path | None) -> SolverError:
    """Prefix `error` with the solver's file, and the line of the setting that the error text names."""
    if source is None:
        return error
    message = str(error)
    for name in (*re.findall(r"(\w+) is ", message), *re.findall(r"\w+", message)):
        try:
            line = text.field_line(source, name)
        except FileError:
            break
        if line is not None:
            return error.reworded(f"{source}:{line}: {message}").at(path=str(source), line=line)
    return error.reworded(f"{source}: {message}").at(path=str(source))
