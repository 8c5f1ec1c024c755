"""Training runs for one or several processes: `python -m tests.parallel.cases FOLDER NAME`.

Each case trains a small net and returns numbers, which the tests compare between one process and several.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from google.protobuf import text_format

from caffe.parallel import environment, group
from caffe.proto import caffe_pb2
from caffe.solver import Solver, get_solver, reduction
from tests.data.helpers import images, write_lmdb, write_png

Found = dict[str, np.ndarray]
CASES: dict[str, Callable[[int], Found]] = {}
WHOLE = 12
"""The number of records in a step of all processes together."""
_RECORDS = 21  # not a multiple of the batch size, so that an epoch ends inside a batch


def case(function: Callable[[int], Found]) -> Callable[[int], Found]:
    """Register a case: a function of the number of processes, run in the folder of the data."""
    CASES[function.__name__] = function
    return function


def main(folder: str, *names: str) -> None:
    """Run cases in this process and write their results."""
    os.chdir(folder)
    processes = environment.join(limit=60)
    with group.joined(processes):
        for name in names:
            np.savez(f"{name}_{processes.size}_{processes.rank}.npz", **CASES[name](processes.size))
    processes.leave()


def write_data(folder: Path) -> None:
    """Write the files that the nets of the cases read."""
    pictures = images(_RECORDS, (3, 12, 10))
    write_lmdb(folder / "db", pictures)
    for index, image in enumerate(pictures):
        write_png(folder / f"{index}.png", image)
    (folder / "list.txt").write_text("".join(f"{folder}/{index}.png {index}\n" for index in range(_RECORDS)))
    rows = np.random.default_rng(5).random((_RECORDS, 4), np.float32)
    labels = np.arange(_RECORDS) % 3
    for number, part in enumerate((slice(0, 13), slice(13, 14), slice(14, None))):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["rows"], file["classes"] = rows[part], labels[part].astype(np.float32)
    (folder / "files.txt").write_text("".join(f"{folder}/{number}.h5\n" for number in range(3)))
    np.savez(folder / "rows.npz", rows_2=rows, classes_2=labels)
    block = "# {0}\n{1}/{0}.png\n3\n12\n10\n3\n1 0.9 0 0 5 6\n2 0.8 2 2 8 9\n0 0.1 1 1 6 7\n"
    (folder / "windows.txt").write_text("".join(block.format(index, folder) for index in range(6)))


_SOURCES = """
layer {{ name: "db" type: "Data" top: "db" top: "db_label" data_param {{ source: "db" batch_size: {0} backend: LMDB
  rand_skip: 9 }} transform_param {{ crop_size: 6 mirror: true brightness: 0.2 scale: 0.01 cutout: 2 noise: 3 }} }}
layer {{ name: "list" type: "ImageData" top: "list" top: "list_label" image_data_param {{ source: "list.txt"
  batch_size: {0} shuffle: true rand_skip: 5 }} transform_param {{ crop_size: 6 scale: 0.01 }} }}
layer {{ name: "window" type: "WindowData" top: "window" top: "window_label" window_data_param {{ source: "windows.txt"
  batch_size: {0} fg_threshold: 0.5 bg_threshold: 0.5 fg_fraction: 0.375 }} transform_param {{ crop_size: 6
  mirror: true mean_value: 100 }} }}
layer {{ name: "hdf5" type: "HDF5Data" top: "rows" top: "classes" hdf5_data_param {{ source: "files.txt"
  batch_size: {0} shuffle: true }} }}
layer {{ name: "arrays" type: "ArrayData" top: "rows_2" top: "classes_2" include {{ phase: TRAIN }} array_data_param {{
  source: "rows.npz" batch_size: {0} }} }}
layer {{ name: "memory" type: "MemoryData" top: "memory" top: "memory_label" include {{ phase: TRAIN }}
  memory_data_param {{ batch_size: {0} channels: 1 height: 2 width: 2 }} }}
"""
_LAYERS = """
layer { name: "flat" type: "Flatten" bottom: "db" top: "flat" }
layer { name: "both" type: "Concat" bottom: "flat" bottom: "rows" top: "both" }
layer { name: "ip1" type: "InnerProduct" bottom: "both" top: "ip1"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "classes" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "classes" top: "accuracy" include { phase: TEST } }
layer { name: "ends" type: "Silence" bottom: "db_label" bottom: "list" bottom: "list_label" bottom: "window"
  bottom: "window_label" }
layer { name: "trained_ends" type: "Silence" bottom: "rows_2" bottom: "classes_2" bottom: "memory"
  bottom: "memory_label" include { phase: TRAIN } }
"""
_RELU = 'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }'
_DROP = 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }'
_NORM = """layer { name: "norm" type: "BatchNorm" bottom: "ip1" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "scaled" scale_param { bias_term: true } }
layer { name: "back" type: "ReLU" bottom: "scaled" top: "scaled" relu_param { negative_slope: 0.3 } }
layer { name: "next" type: "InnerProduct" bottom: "scaled" top: "next"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "next_ends" type: "EuclideanLoss" bottom: "next" bottom: "rows" top: "distance" }
"""
SEEN = ("db", "db_label", "list", "list_label", "window", "window_label", "rows", "classes", "rows_2", "memory")


def solver(batch: int, options: str, layers: str = _LAYERS, sources: str = _SOURCES) -> Solver:
    """Return the solver of a net with every kind of data source."""
    param = text_format.Parse(
        'base_lr: 0.02 lr_policy: "fixed" random_seed: 4 test_iter: 5 test_interval: 100 solver_mode: CPU '
        "test_initialization: false snapshot_after_train: false " + options,
        caffe_pb2.SolverParameter(),
    )
    text_format.Parse(sources.format(batch) + layers, param.train_net_param)
    text_format.Parse(sources.format(4) + layers, param.test_net_param.add())
    made = get_solver(param)
    for layer in made.net.sources.values():
        if layer.takes_arrays:
            made.net.set_input_arrays(np.arange(96, dtype=np.float32).reshape(24, 1, 2, 2), np.zeros(24, np.float32))
    return made


def weights(made: Solver) -> Found:
    """Return all parameters and statistics of the trained net."""
    return {
        f"weight {name} {index}": blob.data.copy()
        for name, blobs in made.net.params.items()
        for index, blob in enumerate(blobs)
    }


def close(made: Solver) -> None:
    for net in made.nets:
        net.close()


def trained(made: Solver, steps: int, look: tuple[str, ...] = ()) -> Found:
    """Return the data and the loss of every step, and the weights at the end."""
    losses, found = [], {}

    class Losses:
        def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
            losses.append(loss)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    made.watchers.append(Losses())  # type: ignore[arg-type]
    for step in range(steps):
        made.step(1)
        found.update({f"read {name} {step}": made.net.blobs[name].data.copy() for name in look})
    return {**found, "losses": np.array(losses), **weights(made)}


def tested(made: Solver) -> Found:
    """Return the results of two consecutive tests."""
    return {f"test {name} {run}": np.array(values) for run in range(2) for name, values in run_tests(made).items()}


def run_tests(made: Solver) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}

    class Scores:
        def tested(self, solver: Any, iteration: int, index: int, outputs: dict[str, list[float]]) -> None:
            scores.update(outputs)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    made.watchers.append(Scores())  # type: ignore[arg-type]
    made._run_tests()
    made.watchers.pop()
    return scores


@case
def every_source(size: int) -> Found:
    made = solver(WHOLE // size, 'type: "SGD" momentum: 0.9')
    found = {**tested(made), **trained(made, 7, SEEN)}
    close(made)
    return found


@case
def rules(size: int) -> Found:
    found: Found = {}
    for kind in ("SGD", "Adam", "LARS", "LAMB"):
        options = f'type: "{kind}" momentum: 0.9 iter_size: 2 clip_gradients: 0.4 weight_decay: 0.01 ema_decay: 0.9'
        made = solver(WHOLE // size, options)
        found.update({f"{kind} {name}": value for name, value in trained(made, 6).items()})
        close(made)
    return found


@case
def overlapped(size: int) -> Found:
    """Train with small buckets, which are sent while backward runs. Two layers share their weights."""
    twin = 'layer { name: "twin" type: "InnerProduct" bottom: "rows" top: "twin" include { phase: TRAIN } '
    twin += 'param { name: "w" } param { name: "b" } '
    twin += 'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } } '
    layers = _LAYERS + twin + twin.replace('"twin"', '"other"').replace('"rows"', '"rows_2"')
    layers += 'layer { name: "apart" type: "EuclideanLoss" bottom: "twin" bottom: "other" top: "apart" '
    layers += "include { phase: TRAIN } }"
    whole = reduction._SMALL, reduction._LARGE
    reduction._SMALL, reduction._LARGE = 4, 16
    try:
        made = solver(WHOLE // size, 'type: "SGD" momentum: 0.9 iter_size: 2', layers)
        found = trained(made, 5)
        if size > 1:
            found["sent early"] = np.array(_sent_early(made))
        close(made)
    finally:
        reduction._SMALL, reduction._LARGE = whole
    return found


def _sent_early(made: Solver) -> int:
    """Return the number of buckets that are sent before the backward pass of an iteration ends."""
    own, early = made.together.reduction, 0
    begin, finish = own.group.start_sum, made.together.reduce
    ended = False

    def start_sum(values: Any) -> Any:
        nonlocal early
        early += not ended
        return begin(values)

    def reduce(*arguments: Any) -> float:
        nonlocal ended
        ended = True
        return finish(*arguments)

    own.group.start_sum, made.together.reduce = start_sum, reduce  # type: ignore[method-assign]
    made.step(1)
    own.group.start_sum = begin  # type: ignore[method-assign]
    return early


@case
def over_all(size: int) -> Found:
    """Train with the options under which BatchNorm, Dropout and ignored labels behave as in one process."""
    layers = _LAYERS.replace(_RELU, _RELU + _DROP + _NORM)
    layers = layers.replace('"classes" top: "loss"', '"classes" top: "loss" loss_param { ignore_label: 1 }')
    options = "global_batch_norm: true global_normalization: true global_dropout: true"
    made = solver(WHOLE // size, 'type: "SGD" momentum: 0.9 iter_size: 2 ' + options, layers)
    made.net.slim()
    found = trained(made, 5)
    close(made)
    return found


@case
def resumed(size: int) -> Found:
    """Train with dropout, once uninterrupted, and once interrupted after a test and resumed in another solver."""
    dropout = _LAYERS.replace(_RELU, _RELU + _DROP)
    options = f'type: "Adam" momentum: 0.9 snapshot_prefix: "snap_{size}"'
    whole, first, second = (solver(WHOLE // size, options, dropout) for _ in range(3))
    found: Found = {}
    for made in (whole, first):
        made.step(3)
        tested(made)
    second.restore(first.snapshot())
    for name, made in (("whole", whole), ("second", second)):
        found.update({f"{name} {key}": value for key, value in {**tested(made), **trained(made, 3, SEEN)}.items()})
    for made in (whole, first, second):
        close(made)
    return found


def go_on(state: str) -> Found:
    """Resume a run in one process from the state of several processes."""
    made = solver(WHOLE, 'type: "Adam" momentum: 0.9')
    made.restore(state)
    found = {**tested(made), **trained(made, 3, SEEN)}
    close(made)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
