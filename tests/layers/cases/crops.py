"""Cases of caffe.layers.regions.crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.layers.case import Bottom, Case, labels
from tests.layers.cases.regions import Rois

ELSEWHERE: dict[str, str] = {}


@dataclass(frozen=True)
class Boxes(Bottom):
    """Boxes [y1, x1, y2, x2] as fractions of the image; some lie partly outside."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        return np.sort(rng.uniform(-0.1, 1.1, (*self.shape[:-1], 2, 2)), axis=-2).reshape(self.shape)


@dataclass(frozen=True)
class Meta(Bottom):
    """Image metadata: columns 4 and 5 are height and width."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        return np.full(self.shape, 500.0)


COUNT = "how many samples there are depends on values"
MAPS = tuple((2, 3, size, size + 1) for size in (9, 5, 3, 2))
PS = "deformable_psroi_pooling_param { spatial_scale: 0.19 output_dim: 2 group_size: 2 sample_per_part: 2 trans_std: .2"
CASES = [
    Case(
        "CropAndResize",
        "plain",
        ((2, 6, 5, 3), labels(2, 4), Boxes((4, 4))),
        "crop_and_resize_param { crop_h: 3 crop_w: 2 }",
    ),
    Case(
        "CropAndResize",
        "channels",
        ((2, 3, 6, 5), labels(2, 4), Boxes((4, 4))),
        'crop_and_resize_param { crop_h: 1 crop_w: 4 data_format: "NCHW" extrapolation_value: 0.5 }',
    ),
    Case(
        "PyramidROIAlign",
        "plain",
        (Boxes((2, 5, 4)), Meta((2, 7)), *MAPS),
        'pyramid_roi_align_param { crop_height: 3 crop_width: 2 data_format: "NCHW" }',
    ),
    Case(
        "ROIWarping",
        "plain",
        ((2, 3, 7, 6), Rois((5, 5))),
        "roi_warping_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.15 }",
        skip={"compile": COUNT},
    ),
    Case("DeformablePSROIPooling", "plain", ((2, 8, 7, 6), Rois((5, 5)), (5, 2, 2, 2)), f"{PS} }}"),
    Case(
        "DeformablePSROIPooling",
        "classes",
        ((2, 8, 7, 6), Rois((5, 5)), (5, 4, 2, 2)),
        f"{PS} pooled_size: 3 part_size: 2 }}",
    ),
    Case("DeformablePSROIPooling", "without", ((2, 8, 7, 6), Rois((5, 5))), f"{PS} no_trans: true }}"),
]
