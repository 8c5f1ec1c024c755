"""Snapshots: weights and solver state in files, and the way back.

A snapshot is two files, `<prefix>_iter_<n>.caffemodel` and `.solverstate` (each with `.h5` in HDF5), as Caffe writes
and reads them. Beside what Caffe keeps, the state holds the random generator and every data source's place, in fields
that Caffe passes over, so that a run resumed from it goes on exactly as if it had not been interrupted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from caffe import log
from caffe.errors import FileError, SolverError
from caffe.layers.base import Layer, Source, shape_text
from caffe.proto import caffe_pb2, state, weights

if TYPE_CHECKING:
    from caffe.solver.solver import Solver

__all__ = ["check_prefix", "restore", "save"]


def check_prefix(param: Any) -> None:
    """Raise a `SolverError` unless files can be written under `snapshot_prefix`."""
    if param.snapshot and not param.HasField("snapshot_prefix"):
        raise SolverError("snapshot is set but snapshot_prefix is not; say where snapshots go")
    prefix = param.snapshot_prefix
    folder = Path(f"{prefix}_iter_").parent
    if not folder.is_dir():
        raise SolverError(f'snapshot_prefix "{prefix}": there is no folder "{folder}"; create it, or change the prefix')
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SolverError(f'snapshot_prefix "{prefix}": cannot write to folder "{folder}": {error.strerror}') from error


def save(solver: Solver) -> str:
    """Write a solver's weights, then its state; returns the state's path. On an error earlier snapshots are intact."""
    hdf5 = solver.param.snapshot_format == solver.param.HDF5
    base, end = f"{solver.param.snapshot_prefix}_iter_{solver.iter}", ".h5" if hdf5 else ""
    model_path, state_path = f"{base}.caffemodel{end}", f"{base}.solverstate{end}"
    kind = "HDF5 file" if hdf5 else "binary proto file"
    try:
        log.info("solver.cpp:474" if hdf5 else "solver.cpp:464", f"Snapshotting to {kind} {model_path}")
        (solver.net.save_hdf5 if hdf5 else solver.net.save)(model_path, diffs=solver.param.snapshot_diff)
        place = "sgd_solver.cpp:295" if hdf5 else "sgd_solver.cpp:284"
        log.info(place, f"Snapshotting solver state to {kind} {state_path}")
        history = [tensor.cpu().numpy() for tensor in solver.history]
        (state.write_hdf5 if hdf5 else state.write)(state_path, _head(solver, model_path), history)
    except FileError as error:
        raise SolverError(f"no snapshot at iteration {solver.iter}: {error}; earlier snapshots are intact") from error
    return state_path


def restore(solver: Solver, path: str | Path) -> None:
    """Bring a solver into the state of a file, with the weights it names; on an error the solver is as before."""
    head, history = state.read(path)
    _check_history(solver, head, history, path)
    average = solver.average.read(head, path)
    if head.average and not solver.average.decay:
        log.warning("snapshot.py", f"{path}: holds a moving average, which is dropped: the solver sets no ema_decay")
    positions = {(place.net, place.layer): place.position for place in head.source}
    before = [(source, source.position()) for _, source in _sources(solver)]
    try:
        for net, source in _sources(solver):
            if (net, source.name) in positions:
                source.seek(positions[net, source.name])
        if head.learned_net:
            solver.net.copy_from(state.find_weights(head.learned_net, path))
    except BaseException:
        for source, position in before:
            source.seek(position)
        raise
    log.info("sgd_solver.cpp:336", "SGDSolver: restoring history")
    for tensor, array in zip(solver.history, history, strict=True):
        tensor.copy_(torch.from_numpy(array).reshape(tensor.shape))
    solver.average.restore(average)
    solver.iter, solver.current_step = head.iter, head.current_step
    memory = {(kept.layer, kept.name): weights.blob_from_proto(kept.value) for kept in head.memory}
    solver.policy.recall(head.current_step, _numbers(memory, "policy"))
    if solver.net.loss_scale is not None:
        solver.net.loss_scale.recall(_numbers(memory, "loss_scale"))
    tensors = {name: torch.from_numpy(value) for (owner, name), value in memory.items() if owner == "rule"}
    solver.rule.recall({name: tensor.to(solver.net.device) for name, tensor in tensors.items()})
    kept = {(place.net, place.layer, place.name): place.value for place in head.buffer}
    for net, layer, name, value in _buffers(solver):
        if (net, layer.name, name) in kept:
            array = weights.blob_from_proto(kept[net, layer.name, name])
            *parents, last = name.split(".")
            setattr(layer.get_submodule(".".join(parents)), last, torch.from_numpy(array).to(value))
    if head.random_state:
        _set_random_state(head.random_state, solver.net.device)


def _numbers(memory: Mapping[tuple[str, str], np.ndarray], owner: str) -> dict[str, float]:
    """What a state keeps for a part of the solver that keeps plain numbers."""
    return {name: float(value) for (whose, name), value in memory.items() if whose == owner}


def _head(solver: Solver, model_path: str) -> Any:
    """The state without its history."""
    head = caffe_pb2.SolverState(iter=solver.iter, learned_net=model_path, current_step=solver.current_step)
    head.type = solver.param.type
    head.random_state = _random_state(solver.net.device)
    for net, source in _sources(solver):
        head.source.add(net=net, layer=source.name, position=source.position())
    solver.average.write(head)
    for owner, part in (("policy", solver.policy), ("loss_scale", solver.net.loss_scale)):
        for name, number in part.memory().items() if part is not None else ():
            head.memory.add(layer=owner, name=name, value=weights.blob_to_proto(np.array(number, np.float64)))
    for name, tensor in solver.rule.memory().items():
        head.memory.add(layer="rule", name=name, value=weights.blob_to_proto(tensor.cpu().numpy()))
    for net, layer, name, value in _buffers(solver):
        array = value.cpu().numpy()
        head.buffer.add(net=net, layer=layer.name, name=name, value=weights.blob_to_proto(array))
    return head


def _sources(solver: Solver) -> Iterator[tuple[int, Source]]:
    """Every data source with its net's number: 0 is the train net, then come the test nets."""
    for number, net in enumerate((solver.net, *solver.test_nets)):
        for source in net.sources.values():
            yield number, source


def _buffers(solver: Solver) -> Iterator[tuple[int, Layer, str, Tensor]]:
    """What layers keep from batch to batch and weight files do not hold, such as hidden states."""
    for number, net in enumerate((solver.net, *solver.test_nets)):
        for layer in net.layers:
            blobs = {id(blob) for blob in layer.tensors}
            for name, value in layer.state_dict(keep_vars=True).items():
                if id(value) not in blobs and not isinstance(value, nn.Parameter) and value.is_floating_point():
                    yield number, layer, name, value


def _check_history(solver: Solver, head: Any, history: Sequence[np.ndarray], path: str | Path) -> None:
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


def _random_state(device: torch.device) -> bytes:
    """torch's generator on the CPU, and after it that of the net's GPU."""
    gpu = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    return torch.get_rng_state().numpy().tobytes() + gpu


def _set_random_state(stored: bytes, device: torch.device) -> None:
    values = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    size = torch.get_rng_state().numel()
    torch.set_rng_state(values[:size])
    if device.type == "cuda" and values.numel() > size:
        torch.cuda.set_rng_state(values[size:], device)
