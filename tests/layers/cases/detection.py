"""Cases of caffe.layers.detection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.layers.case import Bottom, Case, within

ELSEWHERE: dict[str, str] = {}


@dataclass(frozen=True)
class Given(Bottom):
    """A bottom with given values and without a gradient."""

    given: tuple[float, ...] = ()

    def values(self, rng: np.random.Generator) -> np.ndarray:
        return np.array(self.given).reshape(self.shape)


def given(values: np.ndarray) -> Given:
    return Given(values.shape, integers=True, given=tuple(values.ravel().tolist()))


def grid(size: int, side: float) -> np.ndarray:
    """Priors (1, 2, size^2 4): a box of that side around each cell of a grid, with variances."""
    centre = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2) + 0.5) / size
    boxes = np.concatenate([centre - side / 2, centre + side / 2], 1)
    return np.stack([boxes.ravel(), np.tile([0.1, 0.1, 0.2, 0.2], len(boxes))])[None]


VALUES = {"compile": "the matches depend on values, so torch.compile runs it as it is"}
PRIORS = grid(3, 0.4)
MATCHED = np.array(
    [[0, 1, 0, 0, 1, 1, a, t, c, x, y] for a, t, c, x, y in ((0, 7, 2, 2, 1), (3, 7, 0, 0, 1), (1, 8, 5, 1, 0))]
)
TRUTH = np.array(
    [
        [0, 1, 0, 0.1, 0.1, 0.45, 0.4, 0],
        [0, 2, 1, 0.3, 0.35, 0.7, 0.75, 1],
        [0, 1, 2, 0.32, 0.3, 0.66, 0.7, 0],
        [2, 2, 0, 0.55, 0.6, 0.95, 1.1, 0],
        [-1, 0, 0, 0, 0, 0, 0, 0],
    ]
)
FOUND = np.array([[0, 1, 0.5, 0.1, 0.1, 0.4, 0.4], [0, 1, 0.75, 0.6, 0.6, 0.9, 0.9], [1, -1, -1, -1, -1, -1, -1]])
BATCH = (within(-1, 1, 3, 36), within(-3, 3, 3, 27), given(PRIORS), given(TRUTH[None, None]))
FIRST = (given(np.linspace(0, 0.02, 54).reshape(3, 18)), given(np.sin(np.arange(108.0)).reshape(3, 36) / 2))
BATCH_BY_CLASS = (within(-1, 1, 3, 108), *BATCH[1:])
MAP = ((2, 3, 2, 3), (2, 3, 20, 40))
SIZES = "min_size: 4 min_size: 9 max_size: 7 max_size: 12 aspect_ratio: 2 aspect_ratio: 3"
CASES = [
    Case("PriorBox", "default", MAP, "prior_box_param { min_size: 4 }"),
    Case("PriorBox", "many", MAP, f"prior_box_param {{ {SIZES} clip: true variance: [0.1, 0.1, 0.2, 0.2] }}"),
    Case("PriorBox", "given", MAP, "prior_box_param { min_size: 4 img_size: 30 step: 8 offset: 0 }"),
    *(
        Case("MultiBoxLoss", name, bottoms, f"multibox_loss_param {{ num_classes: 3 {options} }} {more}", skip=VALUES)
        for name, bottoms, options, more in (
            ("default", BATCH, "", ""),
            ("center_size", BATCH, "code_type: CENTER_SIZE loc_weight: 2 neg_pos_ratio: 1", ""),
            ("variance_in_target", BATCH, "code_type: CORNER_SIZE encode_variance_in_target: true", ""),
            ("logistic", BATCH, "conf_loss_type: LOGISTIC loc_loss_type: L2 match_type: BIPARTITE", ""),
            ("all", BATCH, "mining_type: NONE", "loss_param { normalization: FULL }"),
            ("hard", BATCH, "mining_type: HARD_EXAMPLE sample_size: 4 use_difficult_gt: false", ""),
            ("refined", (*BATCH, *FIRST), "code_type: CENTER_SIZE", ""),
            ("by_class", BATCH_BY_CLASS, "share_location: false mining_type: NONE bp_inside: true", ""),
        )
    ),
    Case(
        "DetectionOutput",
        "corner",
        (within(-1, 1, 3, 36), within(0, 1, 3, 27), given(PRIORS)),
        "detection_output_param { num_classes: 3 keep_top_k: 20 }",
        skip=VALUES
        | dict.fromkeys(("shape", "device"), "the number of rows depends on values; test_detection_output.py"),
    ),
    Case(
        "DetectionEvaluate",
        "batch",
        (given(FOUND[None, None]), given(TRUTH[None, None])),
        "detection_evaluate_param { num_classes: 3 }",
        skip=VALUES | dict.fromkeys(("shape", "device"), "rows depend on values; test_detection_evaluate.py"),
    ),
    Case("SmoothL1Loss", "two", ((3, 4), (3, 4))),
    Case("SmoothL1Loss", "ssd", ((3, 4), (3, 4), within(0, 2, 3, 4))),
    Case(
        "SmoothL1Loss", "rcnn", ((3, 4, 2), (3, 4, 2), within(0, 2, 3, 8), (3, 8)), "smooth_l1_loss_param { sigma: 3 }"
    ),
    Case("PriorBoxClustered", "two", MAP, "prior_box_param { width: [3, 4] height: [5, 6] }"),
    Case(
        "AnchorEmbeddingExtractor",
        "weights",
        (given(MATCHED[None, None]), *[(2, 4, 2, 3)] * 4),
        "embedding_extractor_param { num_anchors: 4 label_src_pos: 8 num_valid_actions: 3 "
        "output_instance_weights: true }",
        tops=3,
        skip={**VALUES, "shape": "the number of rows depends on values", "device": "as for shape"},
    ),
]
