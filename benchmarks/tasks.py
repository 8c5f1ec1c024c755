"""Nets that are more than a classifier of images of one size: a detector, a recurrent net, and maps of classes.

Each builder has the form of `caffe.models`: batch, size, and whether the net is for training, which these always are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe.models.blocks import begin, conv, conv_relu
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

__all__ = ["boxes", "fcn", "lstm", "maps", "ssd", "steps"]

CLASSES, BOXES = 21, 5
SOURCES = {"conv4_3": (4, 30, 60), "conv6": (6, 60, 111), "conv7": (6, 111, 162), "conv8": (6, 162, 213)}
"""SSD's maps: boxes of each cell, and the sides of the smallest and of the next larger box for images of 300 pixels."""
TIME, UNITS = 20, 256


def _vgg(n: NetSpec, x: Top, depths: tuple[int, ...], width: int) -> Top:
    """Stages of 3 x 3 convolutions as in VGG; pooling between them halves the size, rounded up."""
    for stage, depth in enumerate(depths, 1):
        for index in range(1, depth + 1):
            x = conv_relu(n, f"conv{stage}_{index}", x, width << (stage - 1), 3, pad=1, param=[{}, {}])
        if stage < len(depths):
            x = n[f"pool{stage}"] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    return x


def ssd(batch: int, size: int, train: bool = True) -> Any:
    """SSD on half as many channels as VGG-16 has, with four of SSD-300's six maps (8,692 boxes for 300 pixels)."""
    n = begin(batch, 3, size)
    n.label = L.Input(shape={"dim": [1, 1, batch * BOXES, 8]})
    x = _vgg(n, n.data, (2, 2, 3, 3), 32)
    for name, width in (("conv6", 256), ("conv7", 256), ("conv8", 128)):
        x = conv_relu(n, name, x, width, 3, pad=1, stride=2, param=[{}, {}])
    found: dict[str, list[Top]] = {"loc": [], "conf": [], "priors": []}
    for source, (count, least, most) in SOURCES.items():
        for what, each in (("loc", 4), ("conf", CLASSES)):
            name = f"{source}_{what}"
            conv(n, name, n[f"relu_{source}"], count * each, 3, pad=1, param=[{}, {}])
            n[f"{name}_perm"] = L.Permute(n[name], order=[0, 2, 3, 1])
            n[f"{name}_flat"] = L.Flatten(n[f"{name}_perm"])
            found[what].append(n[f"{name}_flat"])
        ratios = [2] if count == 4 else [2, 3]
        scale = size / 300
        n[f"{source}_priors"] = L.PriorBox(
            n[f"relu_{source}"], n.data, min_size=least * scale, max_size=most * scale, aspect_ratio=ratios, flip=True,
            clip=False, offset=0.5, variance=[0.1, 0.1, 0.2, 0.2],
        )  # fmt: skip
        found["priors"].append(n[f"{source}_priors"])
    for what, tops in found.items():
        n[what] = L.Concat(*tops, axis=2 if what == "priors" else 1)
    options = {"num_classes": CLASSES, "code_type": P.PriorBox.CENTER_SIZE, "neg_pos_ratio": 3, "neg_overlap": 0.5}
    n.loss = L.MultiBoxLoss(n.loc, n.conf, n.priors, n.label, multibox_loss_param=options)
    return _named(n, "SSD of half VGG-16")


def boxes(rng: np.random.Generator, batch: int) -> np.ndarray:
    """Rows for MultiBoxLoss: image, class, number, corners, not difficult; five boxes in each image."""
    rows = np.zeros((1, 1, batch * BOXES, 8), np.float32)
    sides = rng.uniform(0.15, 0.6, (batch * BOXES, 2))
    corners = rng.uniform(0, 1, (batch * BOXES, 2)) * (1 - sides)
    rows[0, 0, :, 0] = np.repeat(np.arange(batch), BOXES)
    rows[0, 0, :, 1] = rng.integers(1, CLASSES, batch * BOXES)
    rows[0, 0, :, 3:5], rows[0, 0, :, 5:7] = corners, corners + sides
    return rows


def lstm(batch: int, size: int, train: bool = True) -> Any:
    """An LSTM of 256 units on 20 steps of `size` numbers, and a classifier of each step; sequences begin at step 0."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [TIME, batch, size]})
    n.label = L.Input(shape={"dim": [TIME, batch]})
    for name, count in (("begin", 1), ("go_on", TIME - 1)):
        filler = {"type": "constant", "value": float(name == "go_on")}
        n[name] = L.DummyData(shape={"dim": [count, batch]}, data_filler=filler)
    n.cont = L.Concat(n.begin, n.go_on, axis=0)
    n.lstm = L.LSTM(n.data, n.cont, recurrent_param={"num_output": UNITS, "weight_filler": {"type": "xavier"}})
    n.ip = L.InnerProduct(n.lstm, num_output=10, axis=2, weight_filler={"type": "xavier"})
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, softmax_param={"axis": 2})
    return _named(n, "LSTM of 256 units")


def steps(rng: np.random.Generator, batch: int) -> np.ndarray:
    """A class for each step of each sequence."""
    return rng.integers(0, 10, (TIME, batch))


def fcn(batch: int, size: int, train: bool = True) -> Any:
    """A class for each pixel: stages as in VGG, scores at an eighth of the size, enlarged, and cut to the image."""
    n = begin(batch, 3, size)
    n.label = L.Input(shape={"dim": [batch, 1, size, size]})
    x = _vgg(n, n.data, (2, 2, 2, 2), 32)
    scores = conv(n, "score", x, CLASSES, 1, param=[{}, {}])
    large = {"num_output": CLASSES, "kernel_size": 16, "stride": 8, "bias_term": False}
    n.upscore = L.Deconvolution(scores, convolution_param={**large, "weight_filler": {"type": "bilinear"}})
    n.cut = L.Crop(n.upscore, n.data, axis=2, offset=4)
    n.loss = L.SoftmaxWithLoss(n.cut, n.label)
    return _named(n, "FCN")


def maps(rng: np.random.Generator, batch: int, height: int, width: int) -> np.ndarray:
    """A class for each pixel."""
    return rng.integers(0, CLASSES, (batch, 1, height, width))


def _named(n: NetSpec, name: str) -> Any:
    param = n.to_proto()
    param.name = name
    return param
