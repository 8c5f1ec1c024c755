"""Layers whose tops the user fills, or which are parameters of the net."""

from __future__ import annotations

from torch import Tensor

from caffe.layers.base import Effects, Layer, Source


class Input(Source, bottoms=0, tops=(1, None)):
    """Declares blobs that the user fills.

    tops: one `shape` for all tops or one for each. Without `shape` a top has no axes until you `reshape` it

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
        """Return None: the tops keep the values that the user wrote."""


class Parameter(Layer, bottoms=0):
    """Outputs a learnable blob.

    top y of `parameter_param.shape`

        y = the layer's only blob, initially 0

    Source: BVLC parameter_layer.hpp.
    """

    value: Tensor
    lends = True

    def setup(self, *bottoms: Tensor) -> None:
        self.add_blob("value", _sizes(self, self.opt.shape.dim))

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.value.view_as(self.value)


def _sizes(layer: Layer, dims: list[int]) -> tuple[int, ...]:
    """The sizes of a BlobShape. A negative size is an error."""
    sizes = tuple(dims)
    layer.require(all(size >= 0 for size in sizes), f"shape {sizes} has a negative size")
    return sizes
