"""Builds, runs and trains all nets of the repository in one process, and prints those that made torch import its
compiler.

    python -m tests.net.first_run

The weights of a net are saved and loaded. Data layers are replaced by blobs of zeros. Batches, images and fully
connected layers are small if the net allows it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe import TEST, TRAIN, Net, get_solver, log, models
from caffe.proto import caffe_pb2, upgrade
from tests.conftest import ROOT

IMAGES = {
    "cifar10": (2, 3, 32, 32),
    "mnist_siamese": (2, 2, 28, 28),
    "mnist": (2, 1, 28, 28),
    "hdf5": (2, 4),
    "neocognitron": (2, 1, 28, 28),
    "googlenet": (2, 3, 224, 224),
    "bvlc": (2, 3, 67, 67),
}
"""The shape of the data, by a part of the net's path."""
DEEP = ("resnet34", "resnet101", "resnet152", "vgg19")
"""Models with the same types of layers as shallower models, which are skipped."""
UNFED = ("shapes", "attention", "gabor", "super_resolution")
"""Parts of paths of nets whose data `fed` does not make: boxes, questions, signals, and pictures of two sizes."""
OTHERS = {"examples/recurrent/lstm_train.prototxt": {"character": (3, 2), "cont": (3, 2), "next": (3, 2)}}


def nets() -> Iterator[tuple[str, Any, int]]:
    """Yield the name, NetParameter and phase of each net."""
    for name in sorted(set(models.__all__) - set(DEEP)):
        size = {"lenet": 28, "googlenet": 64, "alexnet": 67, "squeezenet": 67}.get(name, 32)
        for phase in (TEST, TRAIN):
            yield name, getattr(models, name)(batch=2, size=size, train=phase == TRAIN), phase
    folders = (ROOT / folder for folder in ("benchmarks", "examples", "models"))
    for path in sorted(path for folder in folders for path in folder.rglob("*.prototxt")):
        name = str(path.relative_to(ROOT))
        if "solver" in name or any(part in name for part in UNFED):
            continue
        given = upgrade.read_net(path)
        if any(layer.type == "Input" for layer in given.layer):
            yield name, small(given, name), TEST
        else:
            yield from ((name, fed(given, name, phase), phase) for phase in (TEST, TRAIN))


def small(net: Any, name: str) -> Any:
    """Reduce the net to a small batch."""
    for shape in (shape for layer in net.layer for shape in layer.input_param.shape):
        if len(shape.dim) == 4:
            shape.dim[:] = [2, *next((sizes for part, sizes in IMAGES.items() if part in name), shape.dim)[1:]]
    return net


def fed(net: Any, name: str, phase: int) -> Any:
    """Return the net with Input layers in place of its data layers."""
    data = [layer for layer in net.layer if not layer.bottom]
    tops = dict.fromkeys(top for layer in data for top in layer.top)
    shapes = OTHERS.get(name) or dict(zip(tops, (next(s for p, s in IMAGES.items() if p in name), (2,)), strict=False))
    made = caffe_pb2.NetParameter(name=net.name)
    for top, sizes in shapes.items():
        made.layer.add(name=top, type="Input", top=[top]).input_param.shape.add().dim.extend(sizes)
    made.layer.extend(layer for layer in net.layer if layer.bottom)
    return made


def run(param: Any, phase: int, folder: Path) -> None:
    """Build, save, load and run the net; in TRAIN as a solver does, layer by layer and as one module."""
    for layer in param.layer:
        if layer.inner_product_param.num_output == 4096:
            layer.inner_product_param.num_output = 64
    if phase == TEST:
        weights = folder / "net.caffemodel"
        Net(param, TEST).save(weights)
        net = Net(param, TEST, weights=weights)
        net.forward()
        net.optimize()
        net.forward()
        return
    solver = get_solver(
        caffe_pb2.SolverParameter(
            net_param=param, base_lr=1e-3, lr_policy="fixed", momentum=0.9, snapshot_after_train=False
        )
    )
    solver.step(1)
    solver.net.slim()
    solver.step(1)
    solver.net.forward()
    solver.net.backward()


def main() -> None:
    log.start(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for name, param, phase in [("import", None, TEST), *nets()]:
            if param is not None:
                run(param, phase, Path(folder))
            for module in ("sympy", "torch._dynamo"):
                if module in sys.modules:
                    sys.exit(f"{name} {caffe_pb2.Phase.Name(phase)}: {module}")


if __name__ == "__main__":
    main()
