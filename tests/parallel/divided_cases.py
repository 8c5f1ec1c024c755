"""Training runs with divided nets: `python -m tests.parallel.divided_cases FOLDER NAME...`."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

import numpy as np

from caffe.errors import CaffeError
from caffe.net.divided import shards
from caffe.parallel import environment, group
from caffe.solver import Solver, cutting
from tests.parallel import cases
from tests.parallel.cases import Found, close, solver, tested

CASES: dict[str, Callable[[int], Found]] = {}
WHOLE = 12
STEPS = 30
MODES = {
    "shard": "shard: FULL",
    "tensor": "tensor_parallel: 2",
    "pipeline": "pipeline {{ stages: {} micro_batches: 3 cost: OPERATIONS }}",  # the same stages in every solver
    "pipeline_of_batches": "pipeline {{ stages: {} cost: OPERATIONS }}",
    "pipelines": "pipeline {{ stages: 2 micro_batches: 3 cost: OPERATIONS }}",  # each with its own records
    "pipeline_by_time": "pipeline {{ stages: {} micro_batches: 3 }}",
}
SOURCES = """
layer {{ name: "db" type: "Data" top: "db" top: "label" data_param {{ source: "db" batch_size: {0} backend: LMDB }}
  transform_param {{ scale: 0.01 }} }}
layer {{ name: "hdf5" type: "HDF5Data" top: "rows" top: "classes" hdf5_data_param {{ source: "files.txt"
  batch_size: {0} shuffle: true }} }}
"""
LAYERS = """
layer { name: "ends" type: "Silence" bottom: "label" }
layer { name: "conv1" type: "Convolution" bottom: "db" top: "conv1" convolution_param { num_output: 5 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "early" type: "InnerProduct" bottom: "pool1" top: "early" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "distance" type: "EuclideanLoss" bottom: "early" bottom: "rows" top: "distance" loss_weight: 0.3 }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" inner_product_param { num_output: 7
  weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "slope" type: "PReLU" bottom: "ip1" top: "slope" prelu_param { channel_shared: true } }
layer { name: "sum" type: "Eltwise" bottom: "slope" bottom: "ip1" top: "sum" }
layer { name: "ip2" type: "InnerProduct" bottom: "sum" top: "ip2" param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "classes" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "classes" top: "accuracy" include { phase: TEST } }
"""


def main(folder: str, *names: str) -> None:
    """Run cases, also those of `tests.parallel.cases`, in this process, and write their results."""
    known = {**cases.CASES, **CASES}
    os.chdir(folder)
    cutting._SMALL, shards._PIECE = 1, 200
    processes = environment.join(limit=60)
    with group.joined(processes):
        for name in names:
            np.savez(f"{name}_{processes.size}_{processes.rank}.npz", **known[name](processes.size))
    processes.leave()


def made(mode: str, size: int, options: str, layers: str = LAYERS) -> Solver:
    """Return the solver of a divided net, or, with `size` 1, of the undivided net."""
    text = MODES[mode].format(size) + " " if size > 1 else ""
    streams = max(1, size // 2) if mode == "pipelines" else 1 if "pipeline" in mode else size
    batch = WHOLE // streams
    return solver(batch, text + options, layers, SOURCES)


def run(mode: str, size: int) -> Found:
    """Train with a rule, clipping and iter_size; then test, write a snapshot, and resume from it."""
    found: Found = {}
    for kind in ("SGD", "Adam", "LARS", "LAMB", "Larc"):
        turbo = "false" if mode.startswith("pipeline") else "true"
        rule = f"larc: true larc_eta: 0.1 larc_turbo: {turbo}" if kind == "Larc" else f'type: "{kind}"'
        options = f"{rule} momentum: 0.9 iter_size: 2 clip_gradients: 0.4 weight_decay: 0.01 ema_decay: 0.9 "
        options += f'snapshot_prefix: "{mode}_{kind}_{size}" '
        first = made(mode, size, options)
        losses = trained_losses(first, STEPS if kind == "SGD" else 6)
        state = first.snapshot()
        second = made(mode, size, options)
        second.restore(state)
        found.update({f"{kind} losses": losses, f"{kind} test": np.concatenate(list(tested(first).values()))})
        found[f"{kind} resumed"] = trained_losses(second, 3)
        found[f"{kind} on"] = trained_losses(first, 3)
        second.snapshot()
        close(first)
        close(second)
    return found


def trained_losses(solver: Solver, steps: int) -> np.ndarray:
    losses: list[float] = []

    class Losses:
        def iterated(self, solver: object, iteration: int, loss: float, rate: float) -> None:
            losses.append(loss)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: None

    solver.watchers.append(Losses())  # type: ignore[arg-type]
    solver.step(steps)
    solver.watchers.pop()
    return np.array(losses)


_VARIED = LAYERS.replace(
    'layer { name: "pool1"',
    """layer { name: "norm" type: "BatchNorm" bottom: "conv1" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "up" type: "Deconvolution" bottom: "norm" top: "up" convolution_param { num_output: 3 kernel_size: 2
  weight_filler { type: "xavier" } } }
layer { name: "pool1\"""",
).replace('bottom: "conv1" top: "pool1"', 'bottom: "up" top: "pool1"')
_VARIED = _VARIED.replace('"classes" top: "loss"', '"classes" top: "loss" loss_param { ignore_label: 1 }')
_VARIED += """
layer { name: "turned" type: "InnerProduct" bottom: "sum" top: "turned" inner_product_param { num_output: 5
  transpose: true bias_term: false weight_filler { type: "xavier" } } include { phase: TRAIN } }
layer { name: "drop" type: "Dropout" bottom: "turned" top: "turned" include { phase: TRAIN } }
layer { name: "words" type: "Embed" bottom: "classes" top: "words" embed_param { num_output: 5 input_dim: 3
  weight_filler { type: "uniform" } } include { phase: TRAIN } }
layer { name: "near" type: "EuclideanLoss" bottom: "turned" bottom: "words" top: "near" include { phase: TRAIN } }
layer { name: "twin1" type: "InnerProduct" bottom: "turned" top: "twin1" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } include { phase: TRAIN } }
layer { name: "twin2" type: "InnerProduct" bottom: "words" top: "twin2" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } include { phase: TRAIN } }
layer { name: "far" type: "EuclideanLoss" bottom: "twin1" bottom: "twin2" top: "far" include { phase: TRAIN } }
"""


def varied(mode: str, size: int) -> Found:
    """Train a net of many layer types, with statistics and masks of the global batch, shared weights, and both file
    formats.
    """
    one, layers = "global_batch_norm: true global_normalization: true global_dropout: true ", _VARIED
    if mode == "pipeline_of_batches":  # the pipeline has one sequence of batches, and draws other masks
        one, layers = "", _VARIED.replace('"Dropout"', '"ReLU"')
    options = (
        f'type: "SGD" momentum: 0.5 clip_gradients: 0.3 snapshot_prefix: "varied_{mode}_{size}" snapshot_format: HDF5 '
    )
    first, second = (made(mode, size, options + one, layers) for _ in range(2))
    found = {"SGD losses": trained_losses(first, 10)}
    second.restore(first.snapshot())
    found["SGD resumed"], found["SGD on"] = trained_losses(second, 3), trained_losses(first, 3)
    found["SGD test"] = np.concatenate(list(tested(first).values()))
    close(first)
    close(second)
    return found


def brief(size: int) -> Found:
    """Train a few steps in each mode."""
    found: Found = {}
    for mode in ("shard", "tensor", "pipeline_by_time"):
        plain = made(mode, size, 'type: "SGD" ')  # LARS with clipping does not depend on a factor of all gradients
        solver = made(mode, size, 'type: "LARS" momentum: 0.9 clip_gradients: 0.4 ')
        found[mode] = np.concatenate([trained_losses(each, 3) for each in (plain, solver)])
        close(plain)
        if size > 1:
            save = functools.partial(solver.net.save, f"{mode}.caffemodel")
            train, *tests = solver.nets
            pairs = [(layer, train.layer_dict[layer.name]) for net in tests for layer in net.layers if layer.tensors]
            shared = [x is y for mine, own in pairs for x, y in zip(mine.tensors, own.tensors, strict=True)]
            found[f"{mode} shares"] = np.array(shared)
            found[f"{mode} refuses"] = np.array([_refuses(solver.net.forward), _refuses(save)])
        close(solver)
    return found


def _refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except CaffeError:
        return True
    return False


CASES["brief"] = brief
for _mode in MODES:
    CASES[_mode] = lambda size, mode=_mode: run(mode, size)  # type: ignore[misc]
    CASES[f"varied_{_mode}"] = lambda size, mode=_mode: varied(mode, size)  # type: ignore[misc]


if __name__ == "__main__":
    main(*sys.argv[1:])
