"""Cases of caffe.layers.regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.layers.case import Bottom, Case

ELSEWHERE: dict[str, str] = {}


@dataclass(frozen=True)
class Rois(Bottom):
    """Regions [image, x1, y1, x2, y2] of images of `size` pixels; some of them lie partly outside."""

    images: int = 2
    size: float = 40.0
    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        count = self.shape[0]
        corners = np.sort(rng.uniform(-0.1, 1.1, (count, 2, 2)) * self.size, axis=1).reshape(count, 4)
        return np.concatenate([rng.integers(0, self.images, (count, 1)), corners], 1).reshape(self.shape)


def roi(options: str) -> str:
    return f"roi_pooling_param {{ {options} }}"


MAP = (2, 3, 5, 4)
CASES = [
    Case("ROIPooling", "plain", ((2, 3, 10, 8), Rois((7, 5))), roi("pooled_h: 3 pooled_w: 2 spatial_scale: 0.25")),
    Case("ROIPooling", "more_bins", (MAP, Rois((4, 5, 1, 1))), roi("pooled_h: 7 pooled_w: 6 spatial_scale: 0.1")),
    Case(
        "PSROIPooling",
        "plain",
        ((2, 18, 10, 8), Rois((7, 5))),
        "psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }",
    ),
]
