"""Writes snapshots: weights and solver state. `resume` restores them.

A snapshot consists of two files, `<prefix>_iter_<n>.caffemodel` and `.solverstate` (with an additional `.h5` in HDF5),
in the format of Caffe. The state also stores the random generator and the position of every data source, in additional
fields that Caffe ignores. A resumed run therefore gives exactly the same results as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe import log
from caffe.errors import FileError, SolverError
from caffe.proto import caffe_pb2, files, state, weights
from caffe.solver import kept
from caffe.solver.health import broken_layer
from caffe.solver.run import TrainingRun
from caffe.solver.together import Buffer, Place

__all__ = ["check_prefix", "newest", "save"]

_STATE = re.compile(r"_iter_(\d+)\.solverstate(\.h5)?$")


def check_prefix(param: Any) -> None:
    """Raise a `SolverError` unless files can be written under `snapshot_prefix`."""
    if param.snapshot and not param.HasField("snapshot_prefix"):
        raise SolverError("snapshot is set but snapshot_prefix is not; set it to the path prefix of the snapshots")
    prefix = param.snapshot_prefix
    folder = Path(f"{prefix}_iter_").parent
    if not os.path.isdir(folder):
        place = "" if folder.is_absolute() else f" (from {Path.cwd()})"
        raise SolverError(
            f'snapshot_prefix "{prefix}": there is no folder "{folder}"{place}; create it, or change the prefix'
        )
    try:
        with tempfile.TemporaryFile(dir=folder), contextlib.suppress(FileNotFoundError):
            os.stat(f"{prefix}_iter_{param.max_iter}.solverstate.h5")  # fails if the name is too long
    except OSError as error:
        raise SolverError(f'snapshot_prefix "{prefix}": cannot write to folder "{folder}": {error.strerror}') from error


def newest(prefix: str) -> list[str]:
    """Return the state files under a `snapshot_prefix`, newest iteration first."""
    start = Path(f"{prefix}_iter_")
    found = []
    for path in start.parent.glob("*") if start.parent.is_dir() else ():
        match = _STATE.search(path.name)
        if match and path.name[: match.start()] + "_iter_" == start.name:
            found.append((int(match[1]), str(path)))
    return [path for _, path in sorted(found, reverse=True)]


def save(solver: TrainingRun) -> str:
    """Write a solver's weights, then its state; returns the path of the state. On an error, earlier snapshots are kept.

    With several processes, all must call this; process 0 writes the files.
    """
    hdf5 = solver.param.snapshot_format == solver.param.HDF5
    base, end = f"{solver.param.snapshot_prefix}_iter_{solver.iter}", ".h5" if hdf5 else ""
    model_path, state_path = f"{base}.caffemodel{end}", f"{base}.solverstate{end}"
    places, buffers = solver.together.places(), solver.together.buffers()
    with solver.together.whole(solver):
        if not solver.together.group.rank:
            _write(solver, model_path, state_path, places, buffers)
    return state_path


def _write(
    solver: TrainingRun, model_path: str, state_path: str, places: Sequence[Place], buffers: Sequence[Buffer]
) -> None:
    """Write the two files."""
    hdf5 = solver.param.snapshot_format == solver.param.HDF5
    kind = "HDF5 file" if hdf5 else "binary proto file"
    _keep_good_weights(solver, model_path)
    existed, alone = os.path.exists(model_path), ""
    try:
        with files.put_back(model_path), files.put_back(state_path):
            Path(state_path).unlink(missing_ok=True)  # no old state beside new weights if the process is killed now
            log.info("solver.cpp:474" if hdf5 else "solver.cpp:464", f"Snapshotting to {kind} {model_path}")
            (solver.net.save_hdf5 if hdf5 else solver.net.save)(model_path, diffs=solver.param.snapshot_diff)
            alone = "" if existed else f"; {model_path} is complete, but there is no state file for it"
            place = "sgd_solver.cpp:296" if hdf5 else "sgd_solver.cpp:284"
            log.info(place, f"Snapshotting solver state to {kind} {state_path}")
            history = [tensor.cpu().numpy() for tensor in solver.history]
            (state.write_hdf5 if hdf5 else state.write)(state_path, _head(solver, model_path, places, buffers), history)
    except FileError as error:
        raise SolverError(
            f"no snapshot at iteration {solver.iter}: {error}{alone}; earlier snapshots are intact"
        ) from error


def _keep_good_weights(solver: TrainingRun, path: str) -> None:
    """Raise a `SolverError` if NaN weights would overwrite an existing file."""
    name = broken_layer(solver.net.learnable) if os.path.exists(path) else None
    if name is not None:
        fact = f'no snapshot at iteration {solver.iter}: weights of layer "{name}" are NaN or infinite'
        raise SolverError(f"{fact}, and {path} exists; it is not overwritten. Remove it, or change snapshot_prefix")


def _head(solver: TrainingRun, model_path: str, places: Sequence[Place], buffers: Sequence[Buffer]) -> Any:
    """Create the SolverState without its history."""
    head = caffe_pb2.SolverState(iter=solver.iter, learned_net=model_path, current_step=solver.current_step)
    head.type = solver.param.type
    head.random_state = kept.random_state(solver.net.device)
    head.processes = solver.together.streams
    if solver.together.seeds:
        head.run_seed = solver.together.seed
    for place in places:
        head.source.add(net=place.net, layer=place.layer, position=place.position, batch=place.batch)
    solver.average.write(head)
    for owner, part in (("policy", solver.policy), ("loss_scale", solver.net.loss_scale)):
        for name, number in part.memory().items() if part is not None else ():
            head.memory.add(layer=owner, name=name, value=weights.blob_to_proto(np.array(number, np.float64)))
    for name, tensor in solver.rule.memory().items():
        head.memory.add(layer="rule", name=name, value=weights.blob_to_proto(tensor.cpu().numpy()))
    for process, net, layer, name, array in buffers:
        head.buffer.add(net=net, layer=layer, name=name, value=weights.blob_to_proto(array), process=process)
    return head
