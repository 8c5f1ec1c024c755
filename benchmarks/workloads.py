"""The input of the engines: nets, random weights that keep activations near one, and random data, as files.

A folder made by `prepare` contains `net.prototxt`, `solver.prototxt` (for a net to train), `net.caffemodel`, `data.npy`
and `label.npy`; for a net whose images change their size also `data_1.npy`, `label_1.npy` and so on, and for a detector
`priors.npy`. All engines read the same files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import caffe
from benchmarks import tasks
from caffe import models
from caffe.proto import caffe_pb2, text, upgrade, weights

ROOT = Path(__file__).parent.parent
SOLVER = """net: "{folder}/net.prototxt" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005
display: 0 snapshot_after_train: false solver_mode: CPU random_seed: 1 {more}"""


@dataclass(frozen=True)
class Work:
    """A net, given by a path or a builder of `caffe.models`, and the shape of its data."""

    train: str | Callable[..., Any]
    deploy: str | Callable[..., Any]
    shape: tuple[int, ...]
    batch: int = 0
    """The number of examples; by default the first number of the shape."""
    labels: Callable[..., np.ndarray] | None = None
    """Makes the labels from a generator, the batch and, for maps, height and width; by default one of ten classes."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Further heights and widths of the images. A step then is one step for each size."""

    @property
    def examples(self) -> int:
        """The number of examples in a batch."""
        return self.batch or self.shape[0]


NETS = {
    "lenet": Work("examples/mnist/lenet_train_test.prototxt", "examples/mnist/lenet.prototxt", (64, 1, 28, 28)),
    "cifar_quick": Work(
        "examples/cifar10/cifar10_quick_train_test.prototxt",
        "examples/cifar10/cifar10_quick.prototxt",
        (100, 3, 32, 32),
    ),
    "alexnet": Work("models/bvlc_alexnet/train_val.prototxt", "models/bvlc_alexnet/deploy.prototxt", (10, 3, 227, 227)),
    "googlenet": Work(
        "models/bvlc_googlenet/train_val.prototxt", "models/bvlc_googlenet/deploy.prototxt", (10, 3, 224, 224)
    ),
    "resnet50": Work(models.resnet50, models.resnet50, (8, 3, 224, 224)),
}
"""Nets for training and inference, with the batch sizes that are measured."""

TRAINED = {
    **NETS,
    "mobilenet_v2": Work(models.mobilenet_v2, models.mobilenet_v2, (8, 3, 224, 224)),
    "squeezenet": Work(models.squeezenet, models.squeezenet, (8, 3, 224, 224)),
    "ssd": Work(tasks.ssd, "", (2, 3, 300, 300), labels=tasks.boxes),
    "lstm": Work(tasks.lstm, "", (tasks.TIME, 64, 128), batch=64, labels=tasks.steps),
    "fcn": Work(tasks.fcn, "", (1, 3, 160, 160), labels=tasks.maps, sizes=((128, 192), (192, 144))),
}
"""The same, and more nets for training."""

SINGLE = {
    "lenet": Work("", "examples/mnist/lenet.prototxt", (1, 1, 28, 28)),
    "pnet": Work("", "benchmarks/nets/mtcnn_pnet.prototxt", (1, 3, 12, 12)),
    "pnet_288x384": Work("", "benchmarks/nets/mtcnn_pnet.prototxt", (1, 3, 288, 384)),
    "rnet": Work("", "benchmarks/nets/mtcnn_rnet.prototxt", (1, 3, 24, 24)),
    "onet": Work("", "benchmarks/nets/mtcnn_onet.prototxt", (1, 3, 48, 48)),
    "googlenet": Work("", "models/bvlc_googlenet/deploy.prototxt", (1, 3, 224, 224)),
}
"""Nets that are run on one image. 288 x 384 is the first level of PNet's pyramid for 640 x 480 and faces of 20
pixels.
"""


def net_param(work: Work, train: bool) -> Any:
    """Return the NetParameter with one Input layer instead of its data layers."""
    source = work.train if train else work.deploy
    if callable(source):
        return source(batch=work.examples, size=work.shape[-1], train=train)
    given = upgrade.read_net(ROOT / source)
    net = caffe_pb2.NetParameter(name=given.name)
    inputs = net.layer.add(name="data", type="Input", top=["data", "label"] if train else ["data"])
    inputs.input_param.shape.add().dim.extend(work.shape)
    if train:
        inputs.input_param.shape.add().dim.append(work.shape[0])
    net.layer.extend(layer for layer in given.layer if layer.type not in ("Data", "Input", "Accuracy"))
    return net


def prepare(work: Work, folder: Path, train: bool, solver: str = "") -> Any:
    """Write the files of a folder; `solver` is additional text for the solver. Returns the NetParameter."""
    rng = np.random.default_rng(0)
    param = net_param(work, train)
    text.write(folder / "net.prototxt", param)
    (folder / "solver.prototxt").write_text(SOLVER.format(folder=folder, more=solver))
    for index, shape in enumerate((work.shape, *((*work.shape[:2], *size) for size in work.sizes))):
        mark = f"_{index}" if index else ""
        np.save(folder / f"data{mark}.npy", rng.standard_normal(shape, dtype=np.float32))
        np.save(folder / f"label{mark}.npy", labels(work, param, shape, rng))
    net = random_net(net_param(work, train), np.load(folder / "data.npy"), rng)
    blobs = {layer.name: [np.array(blob.data) for blob in layer.blobs] for layer in net.layers if layer.blobs}
    weights.write(folder / "net.caffemodel", param, blobs)
    if "priors" in net.blobs:
        net.forward(end="priors")
        np.save(folder / "priors.npy", net.blobs["priors"].data)
    return param


def labels(work: Work, param: Any, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return random labels for data of this shape."""
    if work.labels is not None:
        return work.labels(rng, work.examples, *(shape[2:] if work.sizes else ()))
    given = next((shape for layer in param.layer for shape in layer.input_param.shape[1:]), None)
    return rng.integers(0, 10, list(given.dim) if given else work.examples)


def random_net(param: Any, data: np.ndarray, rng: np.random.Generator) -> caffe.Net:
    """Return a net with weights as of He et al. (arXiv:1502.01852), and with the statistics of `data` for BatchNorm."""
    net = caffe.Net(param, caffe.TRAIN, device="cpu")
    for layer, blobs in zip(net.layers, (layer.blobs for layer in net.layers), strict=True):
        for index, blob in enumerate(blobs if layer.type != "BatchNorm" else ()):
            shape = tuple(blob.shape)
            if layer.type == "PReLU":
                blob.data[...] = rng.uniform(0.1, 0.4, shape)
            elif layer.type == "Scale":
                blob.data[...] = rng.uniform(0.5, 1.5, shape) if index == 0 else rng.normal(0, 0.1, shape)
            elif len(shape) > 1:
                blob.data[...] = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
            else:
                blob.data[...] = rng.normal(0, 0.1, shape)
    if any(layer.type == "BatchNorm" for layer in net.layers):
        net.blobs["data"].data[...] = data
        net.forward()  # in the phase TRAIN, which computes BatchNorm's running statistics
    return net
