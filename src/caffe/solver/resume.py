"""Restores a solver from a snapshot. Everything is read and checked before anything is changed.

A `Plan` holds the content of a state file, converted to values that fit the solver. Creating a plan changes nothing; if
the file cannot be used, one error names it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import log
from caffe.errors import CaffeError, FileError, SolverError
from caffe.layers.base import Layer, Source, shape_text
from caffe.proto import detect, files, state, weights
from caffe.solver import kept
from caffe.solver.run import TrainingRun

__all__ = ["Plan", "first_whole", "restore"]

_OWNERS = ("policy", "loss_scale", "rule")


def restore(solver: TrainingRun, path: str | Path) -> None:
    """Restore a solver from a state file and the weights that it names. On an error the solver is unchanged.

    With several processes, all must call this; process 0 reads the files and sends their content to the others.
    """
    together = solver.together
    if not together.several:
        Plan.read(solver, path).apply()
        return
    with together.whole(solver, restore=True):
        stored = together.group.share(b"" if together.group.rank else _restored(solver, path))
        if isinstance(stored, CaffeError):
            raise stored
        if together.group.rank:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, Path(path).name)
                copy.write_bytes(stored)
                Plan.read(solver, copy, weights=False).apply()
        together.send_weights()
    together.deal_tests()


def first_whole(paths: Sequence[str], restore: Callable[[str], None]) -> str:
    """Restore the first of several states that can be read; returns its path, or an empty string if `paths` is
    empty.
    """
    for path in paths:
        try:
            restore(path)
            return path
        except FileError as error:
            log.warning("snapshot.py", f"{error}: continuing from the previous snapshot")
    if paths:
        raise FileError(
            f"none of the {len(paths)} snapshots from {paths[0]} on is complete; remove them to train from the start"
        )
    return ""


def _restored(solver: TrainingRun, path: str | Path) -> bytes | CaffeError:
    """Restore the solver and return the content of the state file, or return the error."""
    try:
        Plan.read(solver, path).apply()
        return files.read_bytes(path)
    except CaffeError as error:
        return error


@dataclass
class Plan:
    """The content of a state file, decoded and checked against a solver."""

    solver: TrainingRun
    path: str | Path
    head: Any
    model: Path | None
    """The weights file; None if the state names none."""
    history: list[Tensor]
    average: list[np.ndarray] | None
    binary: bool = True
    """Whether the file is a binary protobuf message, not HDF5."""
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    """The memory of the policy and of the loss scale, by the keys "policy" and "loss_scale"."""
    rule: dict[str, Tensor] = field(default_factory=dict)
    positions: list[tuple[Source, bytes]] = field(default_factory=list)
    buffers: list[tuple[Layer, str, Tensor]] = field(default_factory=list)

    @classmethod
    def read(cls, solver: TrainingRun, path: str | Path, weights: bool = True) -> Plan:
        """Read a state; with `weights`, also find the weights file that it names.

        Raises `FileError` and `SolverError`.
        """
        head, history = state.read(path)
        _check_head(head, path)
        _check_history(solver, head, history, path)
        model = state.find_weights(head.learned_net, path) if weights and head.HasField("learned_net") else None
        tensors = [
            torch.from_numpy(array).reshape(own.shape) for array, own in zip(history, solver.history, strict=True)
        ]
        plan = cls(solver, path, head, model, tensors, solver.average.read(head, path), not detect.is_hdf5(path))
        plan._read_memory()
        plan._read_positions()
        plan._read_buffers()
        return plan

    def _read_memory(self) -> None:
        """Read the memory of the policy, the loss scale and the rule."""
        solver, found = self.solver, state.arrays(self.head.memory, "memory", self.path)
        memory: dict[str, dict[str, np.ndarray]] = {owner: {} for owner in _OWNERS}
        for (_, owner, name), array in found.items():
            if owner not in memory:
                owners = ", ".join(_OWNERS)
                raise FileError(f'{self.path}: has a memory of "{owner}", expected {owners}; {_WAY_OUT}')
            memory[owner][name] = array
        self.rule = {name: torch.from_numpy(array).to(solver.net.device) for name, array in memory["rule"].items()}
        self.numbers = {owner: _numbers(memory[owner], owner, self.path) for owner in ("policy", "loss_scale")}
        with _naming(self.path):
            solver.policy.check_memory(self.numbers["policy"])
            if solver.net.loss_scale is not None:
                solver.net.loss_scale.check_memory(self.numbers["loss_scale"])
            solver.rule.check_memory(self.rule)

    def _read_positions(self) -> None:
        """Read the positions of the data sources. A source that is not in the state keeps its position."""
        stored = {(place.net, place.layer): place.position for place in self.head.source}
        for net, source in kept.sources(self.solver.nets):
            if (net, source.name) in stored:
                position = stored[net, source.name]
                with _naming(self.path):
                    source.check_position(position)
                self.positions.append((source, position))

    def _read_buffers(self) -> None:
        """Read the buffers of layers. A buffer that is not in the state keeps its values."""
        own = [entry for entry in self.head.buffer if entry.process == self.solver.together.group.rank]
        first = [entry for entry in self.head.buffer if not entry.process]
        stored = state.arrays(own or first, "buffer", self.path)
        for net, layer, name, value in kept.buffers(self.solver.nets):
            array = stored.get((net, layer.name, name))
            if array is None:
                continue
            if not layer.takes_buffer(name, array.shape):
                raise SolverError(
                    f'{self.path}: buffer "{name}" of layer "{layer.name}" has shape {shape_text(array.shape)}, in the '
                    f"net {shape_text(value.shape)}; the state is of another net, or damaged"
                )
            self.buffers.append((layer, name, torch.from_numpy(array).to(value)))

    @torch.no_grad()
    def apply(self) -> None:
        """Restore the solver. Steps that can fail come first and are undone on an error; plain assignments follow."""
        solver, head = self.solver, self.head
        with ExitStack() as undo:
            for source, position in self.positions:
                undo.callback(_go_back, source, source.position())
                with _naming(self.path):
                    source.seek(position)
            for part in (solver.policy, solver.rule, solver.net.loss_scale):
                if part is not None:
                    undo.callback(_give_back, part, dict(vars(part)))
            with _naming(self.path):
                solver.policy.recall(head.current_step, self.numbers["policy"])
                solver.rule.recall(self.rule)
                if solver.net.loss_scale is not None:
                    solver.net.loss_scale.recall(self.numbers["loss_scale"])
            if self.model is not None:
                _copy_weights(solver, self.model, self.path)
            undo.pop_all()
        if self.binary:  # Caffe logs nothing for an HDF5 state
            log.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
        for own, tensor in zip(solver.history, self.history, strict=True):
            own.copy_(tensor)
        solver.average.restore(self.average)
        solver.iter, solver.current_step = head.iter, head.current_step
        for layer, name, value in self.buffers:
            kept.set_buffer(layer, name, value)
        solver.together.resumed(head)
        if head.HasField("random_state"):
            kept.set_random_state(head.random_state, solver.net.device)
        if head.average and not solver.average.decay:
            fact = "holds a moving average, which is dropped: the solver sets no ema_decay"
            log.warning("snapshot.py", f"{self.path}: {fact}")


_WAY_OUT = "the file is damaged, or of another version; continue from another snapshot, or from the weights alone"


def _check_head(head: Any, path: str | Path) -> None:
    """Raise a `FileError` for negative counters, and for an invalid state of the random generator."""
    for name in ("iter", "current_step"):
        if getattr(head, name) < 0:
            raise FileError(f"{path}: {name} is {getattr(head, name)}, expected 0 or more; {_WAY_OUT}")
    fault = kept.check_random_state(head.random_state) if head.HasField("random_state") else ""
    if fault:
        raise FileError(f"{path}: {fault}; {_WAY_OUT}")


def _check_history(solver: TrainingRun, head: Any, history: Sequence[np.ndarray], path: str | Path) -> None:
    """Raise a `SolverError` unless the history fits the solver's rule and net."""
    wanted, kind = solver.history, solver.param.type
    if head.type and head.type != kind:
        raise SolverError(f'{path}: is the state of a solver of type "{head.type}", this solver has type "{kind}"')
    if len(history) != len(wanted):
        raise SolverError(
            f"{path}: holds {len(history)} history blobs, expected {len(wanted)} ({solver.rule.history} for each of "
            f'{len(solver.net.learnable)} learnable blobs with type "{kind}"); it is of another net or solver type'
        )
    learnable = solver.net.learnable
    for index, (array, tensor) in enumerate(zip(history, wanted, strict=True)):
        if not weights.fits(array.shape, tensor.shape):
            entry = learnable[index % len(learnable)]
            raise SolverError(
                f'{path}: history blob {index}, for blob {entry.index} of layer "{entry.layer}", has shape '
                f"{shape_text(array.shape)}, expected {shape_text(tensor.shape)}; the state is of another net"
            )


def _numbers(memory: Mapping[str, np.ndarray], owner: str, path: str | Path) -> dict[str, float]:
    """Convert the memory of an owner that stores single numbers."""
    for name, array in memory.items():
        if array.size != 1:
            fact = f'memory "{name}" of "{owner}" holds {array.size} numbers, expected 1'
            raise FileError(f"{path}: {fact}; {_WAY_OUT}")
    return {name: float(array.reshape(())) for name, array in memory.items()}


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn an error in the block into a SolverError that names the state file."""
    try:
        yield
    except CaffeError as error:
        raise SolverError(f"{path}: {error}; {_WAY_OUT}") from error


def _copy_weights(solver: TrainingRun, model: Path, path: str | Path) -> None:
    """Load all weights or none; an error names the state file and the weights file."""
    try:
        solver.net.copy_from(model)
    except FileError as error:
        raise FileError(f"{path}: its weights cannot be read: {error}") from error
    except CaffeError as error:
        raise SolverError(f"{path}: its weights do not fit the net: {error}") from error


def _go_back(source: Source, position: bytes) -> None:
    """Restore the position of a source. A source that refuses has not moved, so the error is ignored."""
    with suppress(CaffeError):
        source.seek(position)


def _give_back(part: Any, attributes: Mapping[str, Any]) -> None:
    """Restore the attributes of an object."""
    vars(part).clear()
    vars(part).update(attributes)
