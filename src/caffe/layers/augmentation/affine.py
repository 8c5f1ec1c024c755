"""The affine map from the cells of a crop to positions in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Affine"]


@dataclass(frozen=True)
class Affine:
    """The map (x, y) -> (xx x + xy y + x0, yx x + yy y + y0), one for each element of the tensors."""

    xx: Tensor
    xy: Tensor
    yx: Tensor
    yy: Tensor
    x0: Tensor
    y0: Tensor

    @classmethod
    def of(cls, by: Mapping[str, Tensor], crop: tuple[int, int], size: tuple[int, int]) -> Affine:
        """The map of the spatial coefficients, for a crop and an image of (height, width) `crop` and `size`.

        About the centres: mirror, rotate by the angle, move by (dx, dy) crops, divide by the zoom.
        """
        sign = torch.where(by["mirror"] != 0, -1.0, 1.0).to(by["angle"])
        cos, sin = by["angle"].cos(), by["angle"].sin()
        height, width = crop
        left, top = sign * (-width / 2), -height / 2
        return cls(
            cos * sign / by["zoom_x"],
            -sin / by["zoom_x"],
            sin * sign / by["zoom_y"],
            cos / by["zoom_y"],
            (cos * left - sin * top + by["dx"] * width) / by["zoom_x"] + size[1] / 2,
            (sin * left + cos * top + by["dy"] * height) / by["zoom_y"] + size[0] / 2,
        )

    def at(self, x: Tensor | float, y: Tensor | float) -> tuple[Tensor, Tensor]:
        """The images of the points (x, y)."""
        return self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0

    def inverse(self) -> Affine:
        """The inverse map."""
        area = self.xx * self.yy - self.xy * self.yx
        xx, xy, yx, yy = self.yy / area, -self.xy / area, -self.yx / area, self.xx / area
        return Affine(xx, xy, yx, yy, -(xx * self.x0 + xy * self.y0), -(yx * self.x0 + yy * self.y0))

    def keeps(self, crop: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Whether the corners of the crop lie in the image, with a neighbour to the right and below."""
        inside = torch.ones_like(self.xx, dtype=torch.bool)
        for y in (0, crop[0] - 1):
            for x in (0, crop[1] - 1):
                for place, cells in zip(self.at(x, y), size[::-1], strict=True):
                    inside = inside & (place >= 0) & (place.floor() <= cells - 2)
        return inside
