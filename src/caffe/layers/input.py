"""Blobs that come from outside the net's data, or from the net's own parameters."""

from __future__ import annotations

from torch import Tensor

from caffe.layers.base import Effects, Layer, Source


class Input(Source, bottoms=0, tops=(1, None)):
    """Blobs that the user fills.

    tops: of the one `shape`, of one shape each, or without axes (give them a shape by `reshape`) if there is none

    Source: BVLC input_layer.cpp.
    """

    user_fed = True
    effects = Effects.NONE
    traceable = False  # the tops are the blobs' own memory

    def setup(self, *bottoms: Tensor) -> None:
        shapes, tops = list(self.opt.shape), len(self.spec.top)
        fact = f"has {tops} tops and {len(shapes)} shapes; expected no shape, one for all tops, or one for each"
        self.require(len(shapes) in (0, 1, tops), fact)
        self.shapes = [_sizes(self, shape.dim) for shape in shapes] or [()]
        if len(self.shapes) == 1:
            self.shapes *= tops

    def deliver(self) -> None:
        """Nothing: the tops stay as the user filled them."""


class Parameter(Layer, bottoms=0):
    """A learnable blob as a top.

    top y of `parameter_param.shape`

        y = the layer's only blob, which starts at 0

    Source: BVLC parameter_layer.hpp.
    """

    value: Tensor
    lends = True

    def setup(self, *bottoms: Tensor) -> None:
        self.add_blob("value", _sizes(self, self.opt.shape.dim))

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.value.view_as(self.value)


def _sizes(layer: Layer, dims: list[int]) -> tuple[int, ...]:
    """A BlobShape's sizes, none of them negative."""
    sizes = tuple(dims)
    layer.require(all(size >= 0 for size in sizes), f"shape {sizes} has a negative size")
    return sizes
