"""Cases of caffe.layers.regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Bottom, Case, labels, positive, shares, within

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


@dataclass(frozen=True)
class Image(Bottom):
    """An image's height, width and scale."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([[60.0, 75.0, 1.5]])[:, : self.shape[1]]


@dataclass(frozen=True)
class Truth(Bottom):
    """Boxes [image, x1, y1, x2, y2, label, ignored]; the last row does not count."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([[0, 5, 5, 30, 25, 1, 0], [1, 10, 8, 28, 38, 2, 0], [-1, 0, 0, 0, 0, 0, 0]])


@dataclass(frozen=True)
class Matched(Bottom):
    """Rows [label, x1, y1, x2, y2, overlap]."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        boxes = np.sort(rng.uniform(0, 40, (5, 2, 2)), axis=1).reshape(5, 4)
        return np.concatenate([[[0], [1], [2], [1], [2]], boxes, [[0], [0.6], [0.7], [0.99], [0.5]]], 1)


def roi(options: str) -> str:
    return f"roi_pooling_param {{ {options} }}"


COUNT = "how many regions there are depends on values"
PRE_FIXED = "loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 3 }"
IGNORE = PRE_FIXED.replace("{", "{ ignore_label: 2")
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
    Case(
        "ROIAlign",
        "mask",
        (MAP, Rois((6, 5))),
        "roi_align_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.1 }",
        skip={"compile": "how many samples there are depends on values"},
    ),
    Case(
        "ROIAlign",
        "sampling_ratio",
        (MAP, Rois((6, 5))),
        "roi_align_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.1 sampling_ratio: 2 }",
    ),
    Case("ROIAlign", "cascade", (MAP, Rois((6, 5))), roi("pooled_h: 3 pooled_w: 2 spatial_scale: 0.1")),
    Case(
        "ROIAlign",
        "one_image",
        ((1, 3, 5, 4), Rois((6, 5), images=1)),
        roi("pooled_h: 3 pooled_w: 2 spatial_scale: 0.1"),
    ),
    Case("MaskPooling", "plain", ((2, 3, 4, 5), (2, 1, 4, 5))),
    Case("MaskResize", "smaller", ((2, 1, 7, 6),), "mask_resize_param { output_height: 4 output_width: 3 }"),
    Case("MaskResize", "larger", ((2, 1, 3, 4),), "mask_resize_param { output_height: 7 output_width: 6 }"),
    Case(
        "DeformableConvolution",
        "plain",
        ((2, 4, 6, 5), within(-1.4, 1.4, 2, 18, 6, 5)),
        "deformable_convolution_param { num_output: 3 kernel_size: 3 pad: 1 deformable_group: 1 }",
    ),
    Case(
        "DeformableConvolution",
        "groups",
        ((2, 4, 7, 6), within(-1.4, 1.4, 2, 24, 4, 3)),
        "deformable_convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0 group: 2 "
        "deformable_group: 2 bias_term: false }",
    ),
    Case(
        "Proposal",
        "plain",
        (within(0, 1, 1, 12, 4, 5), within(-0.5, 0.5, 1, 24, 4, 5), Image((1, 3))),
        "proposal_param { ratio: [0.5, 1, 2] scale: [1, 2] min_size: 4 pre_nms_topn: 60 post_nms_topn: 20 }",
        tops=2,
        skip={**dict.fromkeys(("shape", "device", "compile"), COUNT), "gradient": "has none"},
    ),
    Case("SmoothL1LossOHEM", "plain", ((5, 4), (5, 4))),
    Case("SmoothL1LossOHEM", "items", ((5, 4, 2, 3), (5, 4, 2, 3), positive(5, 4, 2, 3)), PRE_FIXED, tops=2),
    Case("SoftmaxWithLossOHEM", "plain", ((5, 4), labels(4, 5))),
    Case("SoftmaxWithLossOHEM", "items", ((5, 4, 1, 1), labels(4, 5, 1, 1)), IGNORE, tops=3),
    Case(
        "BoxAnnotatorOHEM",
        "plain",
        (Rois((9, 5)), (9, 1, 1, 1), labels(4, 9, 1, 1), positive(9, 8, 1, 1)),
        "box_annotator_ohem_param { roi_per_img: 2 }",
        tops=2,
    ),
    Case(
        "DecodeBBox",
        "plain",
        (within(-0.5, 0.5, 6, 8), Rois((6, 5))),
        "bbox_reg_param { bbox_mean: [0, 0, 0.1, 0.1] bbox_std: [0.1, 0.1, 0.2, 0.2] }",
        phase=TEST,
        skip={"gradient": "has none"},
    ),
    Case(
        "BoxGroupOutput",
        "plain",
        (shares(4, 3, 4, 5), within(-0.3, 0.3, 4, 4, 4, 5), shares(2, 3, 2, 3), within(-0.3, 0.3, 2, 4, 2, 3)),
        "box_group_output_param { fg_thr: 0.1 max_nms_num: 30 max_post_nms_num: 10 min_size: 4 "
        "box_group_param { field_h: [10, 14] field_w: [12, 8] stride: 8 } "
        "box_group_param { field_h: 20 field_w: 20 stride: 16 } }",
        tops=2,
        skip={**dict.fromkeys(("shape", "device", "compile"), COUNT), "gradient": "has none"},
    ),
    Case(
        "BoxOutput",
        "plain",
        ((2, 7, 4, 5), (2, 7, 2, 3)),
        "box_output_param { fg_thr: 0 max_nms_num: 30 max_post_nms_num: 10 min_size: 4 "
        "field_h: [10, 20] field_w: [12, 20] downsample_rate: [8, 16] }",
        skip={**dict.fromkeys(("shape", "device", "compile"), COUNT), "gradient": "has none"},
    ),
    Case(
        "DecodeBBox",
        "train",
        (within(-0.5, 0.5, 6, 8), Rois((6, 5)), within(0, 0.9, 6, 6)),
        "decode_bbox_param { gt_iou_thr: 0.8 }",
        skip={
            "test": "its truth is for TRAIN",
            **dict.fromkeys(("shape", "device", "compile"), COUNT),
            "gradient": "has none",
        },
    ),
    Case(
        "ProposalTarget",
        "plain",
        (Rois((7, 5)), Truth((3, 7))),
        "proposal_target_param { cls_num: 3 batch_size: 6 img_width: 60 img_height: 60 iou_weighted: true } "
        "bbox_reg_param { bbox_mean: [0, 0, 0, 0] bbox_std: [0.1, 0.1, 0.2, 0.2] }",
        tops=7,
        skip=dict.fromkeys(("shape", "device", "compile"), COUNT),
    ),
    Case("BboxAccuracy", "plain", (within(-0.3, 0.3, 5, 12), Rois((5, 5)), Matched((5, 6))), tops=2),
    Case(
        "FrcnnOutput",
        "plain",
        (shares(5, 3), within(-0.3, 0.3, 5, 12), Rois((5, 5), images=1), Image((1, 2))),
        "frcnn_output_param { conf_thr: 0.2 max_det_num: 6 }",
        skip={**dict.fromkeys(("shape", "device", "compile"), COUNT)},
    ),
    Case(
        "ScaleRoute",
        "plain",
        (Rois((6, 5)), (6, 2, 2)),
        "scale_route_param { low_scale: 5 high_scale: 18 }",
        tops=2,
        skip={**dict.fromkeys(("shape", "device", "compile"), COUNT), "gradient": "has none"},
    ),
]
