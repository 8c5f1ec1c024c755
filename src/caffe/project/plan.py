"""The choices of a project: net, sizes, batch size, rate, epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from caffe import models
from caffe.errors import ArgumentError, did_you_mean
from caffe.zoo.preparation import Preparation

__all__ = ["NETS", "Plan", "choose_net", "plan_for"]


@dataclass(frozen=True)
class Kind:
    """A net for projects: its builder, input side, margin for crops, batch size, rate, and published mean."""

    build: Callable[..., Any]
    side: int
    stored: int
    batch: int
    rate: float
    fine_rate: float = 0.001
    mean: tuple[float, ...] = ()
    scale: float = 1.0
    smallest: int = 1


_IMAGENET = (104.0, 117.0, 123.0)
_MOBILE = (103.94, 116.78, 123.68)
NETS = {
    "lenet": Kind(models.lenet, 28, 28, 64, 0.01, smallest=16),
    "cifar_quick": Kind(models.cifar_quick, 32, 36, 64, 0.01, smallest=12),
    "alexnet": Kind(models.alexnet, 227, 256, 64, 0.01, mean=_IMAGENET, smallest=67),
    "googlenet": Kind(models.googlenet, 224, 256, 32, 0.01, mean=_IMAGENET, smallest=32),
    "resnet18": Kind(models.resnet18, 224, 256, 32, 0.02, mean=_IMAGENET, smallest=32),
    "resnet50": Kind(models.resnet50, 224, 256, 32, 0.02, mean=_IMAGENET, smallest=32),
    "mobilenet_v2": Kind(models.mobilenet_v2, 224, 256, 32, 0.02, mean=_MOBILE, scale=0.017, smallest=32),
    "squeezenet": Kind(models.squeezenet, 227, 256, 32, 0.01, mean=_IMAGENET, smallest=48),
}
"""The nets of `caffe new -net`."""

_OWN_SCALE = 1 / 64  # pixels minus their mean lie in -128 .. 128, but fillers expect inputs of about 1
_PHOTO_SIDE = 64


@dataclass(frozen=True)
class Plan:
    """The content of a project's files."""

    name: str
    net: str
    classes: tuple[str, ...]
    train: int
    val: int
    preparation: Preparation
    batch: int
    epochs: int
    rate: float
    mirror: bool
    weights: str = ""

    @property
    def kind(self) -> Kind:
        return NETS[self.net]

    @property
    def side(self) -> int:
        """The side of the net's input."""
        return self.preparation.crop or self.preparation.resize[0]

    @property
    def channels(self) -> int:
        return self.preparation.channels

    @property
    def iterations(self) -> int:
        """The iterations of an epoch."""
        return math.ceil(self.train / self.batch)

    @property
    def max_iter(self) -> int:
        return self.epochs * self.iterations

    @property
    def test_batch(self) -> int:
        """The batch size of a test: a divisor of the number of validation pictures if there is a large enough one."""
        return fitting_batch(self.val)

    @property
    def test_iter(self) -> int:
        return math.ceil(self.val / self.test_batch)


def fitting_batch(count: int) -> int:
    """Return a batch size of at most 100 that divides `count`, or whose last batch is nearly full."""
    if count <= 100:
        return count
    fitting = max(size for size in range(1, 101) if count % size == 0)
    if fitting >= 20:
        return fitting
    return min(range(50, 101), key=lambda size: (-count % size, -size))


def choose_net(wanted: str, grey: bool, middle: int, finetune: bool) -> str:
    """Return the requested net, or one that suits the pictures: LeNet for small grey ones."""
    if wanted and wanted not in NETS:
        raise ArgumentError(f'-net "{wanted}": unknown{did_you_mean(wanted, NETS)}; expected {", ".join(NETS)}')
    if finetune and not wanted:
        raise ArgumentError("-finetune needs the net of the weights: give it with -net")
    return wanted or ("lenet" if grey and middle <= 40 else "cifar_quick")


def plan_for(
    name: str,
    net: str,
    classes: list[str],
    counts: tuple[int, int],
    grey: bool,
    middle: int,
    mean: tuple[float, ...],
    weights: str = "",
    size: int = 0,
    batch: int = 0,
    epochs: int = 0,
) -> Plan:
    """Return the plan for `counts` pictures (training, validation). 0 means an automatic choice."""
    kind = NETS[net]
    side, stored = _sides(net, kind, size, middle, bool(weights))
    gray = grey and net in ("lenet", "cifar_quick")
    color = "gray" if gray else "bgr"
    if weights and net not in ("lenet", "cifar_quick"):
        mean, scale = kind.mean, kind.scale
    else:
        scale = _OWN_SCALE
    crop = side if stored > side else 0
    preparation = Preparation(color, (stored, stored), crop, mean, scale)
    train, val = counts
    batch = batch or max(2, min(kind.batch, 2 ** int(math.log2(max(2, train // 8)))))
    if batch < 1 or epochs < 0:
        raise ArgumentError(f"-batch {batch}, -epochs {epochs}: expected at least 1")
    each = math.ceil(train / batch)
    epochs = epochs or (10 if weights else min(60, max(10, math.ceil(1200 / each))))
    rate = kind.fine_rate if weights else kind.rate
    name = re.sub(r"[^\w.-]+", "_", name)
    return Plan(name, net, tuple(classes), train, val, preparation, batch, epochs, rate, _mirrors(net, grey), weights)


def _mirrors(net: str, grey: bool) -> bool:
    return net != "lenet" and not grey


def _sides(net: str, kind: Kind, size: int, middle: int, finetune: bool) -> tuple[int, int]:
    """Return the side of the net's input, and the side of the stored pictures."""
    side = size or kind.side
    if net == "cifar_quick" and not size and middle > 48 and not finetune:
        side = _PHOTO_SIDE
    if side < kind.smallest or side > 1024:
        raise ArgumentError(f"-size {side}: {net} takes pictures of {kind.smallest} to 1024 pixels")
    if net == "googlenet" and side % 32:
        raise ArgumentError(f"-size {side}: googlenet takes multiples of 32 pixels")
    return side, round(side * kind.stored / kind.side)
