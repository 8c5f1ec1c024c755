"""Splits one training database into training and validation data, so that the test data stay unseen in a search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.data.databases import base, writer
from caffe.doctor.case import Case
from caffe.doctor.sources import SourceOption, source_options
from caffe.errors import SolverError
from caffe.proto import caffe_pb2, files

__all__ = ["Part", "parts", "test_source", "use"]


@dataclass(frozen=True)
class Part:
    """A split of the data: the sources to train on (empty: the net's own) and to validate on, with `count` items."""

    train: str
    validation: str
    count: int


def parts(case: Case, folder: Path, share: float, folds: int, seed: int, given: str) -> list[Part]:
    """Return the splits that every trial is trained on: one, or `folds` of them. They are written once and reused.

    `given` names validation data; then nothing is split. Raises SolverError for data that cannot be split.
    """
    if given:
        if given == test_source(case):
            raise SolverError(f"{given} is the test data, used only at the end. Give separate validation data")
        return [Part("", given, 0)]
    train = _one(case.net, caffe_pb2.TRAIN, case.param.train_state)
    source, backend = train.source, ""
    if train.field == "data_param":
        backend = base.backend_of(train.options)
    elif train.field != "image_data_param":
        raise SolverError(f"{train.field}: only databases and image lists can be split; give -validation SOURCE")
    plan = {"source": str(Path(source).resolve()), "share": share, "folds": folds, "seed": seed}
    done = folder / "split.json"
    if done.exists():
        stored = json.loads(done.read_text())
        if stored["plan"] != plan:
            raise SolverError(f"{done}: was split with other settings; use another folder or those settings")
        return [Part(*each) for each in stored["parts"]]
    folder.mkdir(parents=True, exist_ok=True)
    made = list(_split(source, backend, folder, share, folds, seed))
    with files.atomic(done) as file:
        file.write(json.dumps({"plan": plan, "parts": [list(vars(part).values()) for part in made]}).encode())
    return made


def _split(source: str, backend: str, folder: Path, share: float, folds: int, seed: int) -> Iterator[Part]:
    text = b"" if backend else files.read_text_bytes(source)
    lines = [line for line in text.splitlines(keepends=True) if line.strip()]
    if backend:
        database = base.open_source(backend, source)
        try:
            count = database.count() or sum(1 for _ in database.scan())
        finally:
            database.close()
    else:
        count = len(lines)
    kept = max(1, round(share * count)) if folds == 1 else count // folds
    if not 0 < kept < count:
        raise SolverError(f"{source}: has {count} items, too few for a validation part of {kept}")
    order = np.random.default_rng(seed).permutation(count)
    for fold in range(folds):
        chosen = np.zeros(count, bool)
        chosen[order[fold * kept : (fold + 1) * kept]] = True
        paths = folder / f"train{fold}", folder / f"validation{fold}"
        if backend:
            _write(source, backend, paths, chosen)
        else:
            for path, wanted in zip(paths, (False, True), strict=True):
                with files.atomic(path) as file:
                    file.write(b"".join(line for line, own in zip(lines, chosen, strict=True) if own == wanted))
        yield Part(str(paths[0]), str(paths[1]), kept)


def _write(source: str, backend: str, paths: tuple[Path, Path], chosen: np.ndarray) -> None:
    """Copy the records into two databases, in their original order."""
    database = base.open_source(backend, source)
    try:
        with (
            writer.create_database(backend, paths[0], overwrite=True) as train,
            writer.create_database(backend, paths[1], overwrite=True) as validation,
        ):
            for own, (key, value) in zip(chosen, database.scan(), strict=True):
                (validation if own else train).put(bytes(key), bytes(value))
    finally:
        database.close()


def use(param: Any, part: Part) -> None:
    """Set a solver with its nets inside to train and validate on a split, with the matching number of test batches."""
    state = param.test_state[0] if param.test_state else None
    own = param.train_net_param if param.HasField("train_net_param") else param.net_param
    tested = param.test_net_param[0] if param.test_net_param else own
    train = _one(own, caffe_pb2.TRAIN, param.train_state)
    test = _one(tested, caffe_pb2.TEST, state)
    if own is tested and train.index == test.index:
        name = own.layer[train.index].name
        raise SolverError(f'layer "{name}" is in both phases; use separate data layers for TRAIN and TEST')
    if part.train:
        train.replace(part.train)
    test.replace(part.validation)
    if part.count:
        param.test_iter[:] = [max(1, part.count // max(1, int(getattr(test.options, "batch_size", 1))))]
    elif not param.test_iter:
        raise SolverError("-validation needs test_iter in the solver: the number of batches of the validation data")
    del param.test_iter[1:], param.test_state[1:], param.test_net_param[1:]


def test_source(case: Case) -> str:
    """Return the source of the test data; empty if there is none."""
    net = case.apart[0] if case.apart else case.net
    found = source_options(net, caffe_pb2.TEST, case.param.test_state[0] if case.param.test_state else None)
    return found[0].source if len(found) == 1 else ""


def _one(net: Any, phase: int, state: Any) -> SourceOption:
    found = source_options(net, phase, state)
    if len(found) != 1:
        name = caffe_pb2.Phase.Name(phase)
        raise SolverError(f"the net has {len(found)} data layers with a source in the phase {name}; expected one")
    return found[0]
