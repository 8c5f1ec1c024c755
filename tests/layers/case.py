"""A test case of a layer: its prototxt, its bottoms, and the checks that do not apply to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from caffe.layers import Layer, layer_class
from caffe.proto import caffe_pb2, text

__all__ = ["Bottom", "Case", "every", "labels", "positive", "shares", "within"]


@dataclass(frozen=True)
class Bottom:
    """The shape of a bottom and the kind of its values: `low` to `high` without ties, integers, or probabilities."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    integers: bool = False
    normalized: bool = False

    def values(self, rng: np.random.Generator) -> np.ndarray:
        count = int(np.prod(self.shape))
        if self.integers:
            return rng.integers(self.low, self.high, self.shape).astype(np.float64)
        # all values differ and none is 0, so that kinks and ties do not affect numeric gradients
        values = ((rng.permutation(count) + 0.3) / count * (self.high - self.low) + self.low).reshape(self.shape)
        return values / values.sum(1, keepdims=True) if self.normalized else values


def within(low: float, high: float, *shape: int) -> Bottom:
    """Values from `low` to `high`."""
    return Bottom(shape, low, high)


def positive(*shape: int) -> Bottom:
    """Values from 0.1 to 2."""
    return Bottom(shape, 0.1, 2)


def labels(classes: int, *shape: int) -> Bottom:
    """Integers from 0 to classes - 1. They are never differentiated."""
    return Bottom(shape, 0, classes, integers=True)


def shares(*shape: int) -> Bottom:
    """Probabilities: positive, with sum 1 over axis 1."""
    return Bottom(shape, 0.1, 2, normalized=True)


@dataclass(frozen=True)
class Case:
    """One layer with options and bottoms. A bottom given by its shape alone has values from -2 to 2.

    `skip` names checks of test_conformance that do not apply, each with the reason; "test" is a run in TEST.
    """

    type: str
    name: str
    bottoms: tuple[Bottom | tuple[int, ...], ...] = ()
    options: str = ""
    tops: int = 1
    phase: int = caffe_pb2.TRAIN
    skip: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.type}-{self.name}"

    @property
    def inputs(self) -> list[Bottom]:
        return [b if isinstance(b, Bottom) else Bottom(b) for b in self.bottoms]

    @property
    def prototxt(self) -> str:
        """The layer."""
        bottoms = " ".join(f'bottom: "b{i}"' for i in range(len(self.bottoms)))
        tops = " ".join(f'top: "t{i}"' for i in range(self.tops))
        return f'layer {{ name: "layer" type: "{self.type}" {bottoms} {tops} {self.options} }}\n'

    def net(self) -> str:
        """Return a net of this layer after Input layers, with gradients for every bottom that has one."""
        cls = layer_class(self.type)
        dims = [" ".join(f"dim: {n}" for n in bottom.shape) for bottom in self.inputs]
        data = [
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {dim} }} }} }}\n'
            for i, dim in enumerate(dims)
        ]
        forced = set(cls.constant) <= set(cls.exempt)
        return f"force_backward: {str(forced).lower()}\n" + "".join(data) + self.prototxt

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        return [bottom.values(rng) for bottom in self.inputs]

    def bottoms_as(self, dtype: torch.dtype) -> list[Tensor]:
        """The bottoms; those that the layer can differentiate require a gradient."""
        constant = layer_class(self.type).constant
        made = [torch.from_numpy(array).to(dtype) for array in self.arrays()]
        for index, (x, bottom) in enumerate(zip(made, self.inputs, strict=True)):
            x.requires_grad_(index not in constant and not bottom.integers)
        return made

    def build(self, dtype: torch.dtype) -> Layer:
        """Return the layer without a net.

        Its trained blobs have values from -0.9 to 0.9, its statistics from 0.5 to 1.5.
        """
        spec = text.parse(self.prototxt, caffe_pb2.NetParameter()).layer[0]
        layer = layer_class(self.type)(spec, self.phase)
        layer.setup(*(torch.empty(bottom.shape, device="meta") for bottom in self.inputs))
        layer.allocate()
        rng = np.random.default_rng(2)
        for blob in layer.tensors:
            values = rng.uniform(-0.9, 0.9, blob.shape)
            with torch.no_grad():
                blob.copy_(torch.as_tensor(values if isinstance(blob, nn.Parameter) else values / 1.8 + 1))
        return layer.to(dtype)


def every(cases: Iterable[Case], check: Callable[[Case], None]) -> None:
    """Run a check on each case; then raise one error that lists the failures with the names of their cases.

    One test of many cases is much faster than one test for each case.
    """
    failures: list[Exception] = []
    for case in cases:
        try:
            check(case)
        except Exception as error:
            error.add_note(f"case {case}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} cases fail", failures)
