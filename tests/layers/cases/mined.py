"""Cases of caffe.layers.regions.mined and mined_accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.layers.case import Bottom, Case, within

ELSEWHERE: dict[str, str] = {}
OPTIONS = {"compile": "asks which options are set"}
DRAWS = {
    "compile": "draws and counts cells",
    "dtype": "each precision may choose other cells",
    "strides": "draws in the order of memory",
}


@dataclass(frozen=True)
class Maps(Bottom):
    """Truth (N, 6, H, W) of fields of 20 pixels on cells of 8 pixels; a fourth of the cells is foreground."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = self.shape
        label = rng.integers(0, 4, (count, 1, height, width)) * (rng.random((count, 1, height, width)) < 0.3) > 0
        centre = np.stack(np.meshgrid(np.arange(width), np.arange(height))) * 8 + rng.uniform(2, 6, (count, 2, 1, 1))
        size = rng.uniform(15, 30, (count, 2, height, width))
        return np.concatenate([label, centre, size, rng.uniform(0, 0.9, label.shape)], 1)


ONE = "cls_num: 3 field_h: 20 field_w: 24 downsample_rate: 8"
GROUP = "cls_num: 2 field_h: [20, 24] field_w: [24, 18] stride: 8"
NORMAL = "bbox_reg_param { bbox_mean: [0, 0.1, 0, 0.1] bbox_std: [0.5, 0.5, 0.4, 0.4] }"
X = within(-0.4, 0.4, 2, 7, 4, 5)
PAIR = (within(-0.4, 0.4, 4, 2, 4, 5), within(-0.4, 0.4, 4, 4, 4, 5), Maps((4, 6, 4, 5)))
CASES = [
    Case("Detection", "draws", (X, Maps((2, 6, 4, 5))), f"detection_param {{ {ONE} bg_multiple: 1 }}", skip=DRAWS),
    Case(
        "DetectionLoss",
        "draws",
        (X, Maps((2, 6, 4, 5))),
        f"detection_loss_param {{ {ONE} bg_multiple: 1 }}",
        skip=DRAWS,
    ),
    Case(
        "DetectionLoss",
        "mined",
        (X, Maps((2, 6, 4, 5))),
        f'detection_loss_param {{ {ONE} sample_mode: "bootstrap" pos_neg_weighted: true iou_weighted: true }} {NORMAL}',
        skip=DRAWS,
    ),
    Case(
        "DetectionAccuracy",
        "plain",
        (X, Maps((2, 6, 4, 5))),
        f"detection_accuracy_param {{ {ONE} field_xyr: 2 }}",
        tops=2,
        skip=OPTIONS,
    ),
    Case("DetectionGroupLoss", "plain", PAIR, f"detection_group_loss_param {{ {GROUP} bg_multiple: 1 }}", skip=DRAWS),
    Case(
        "DetectionGroupLoss",
        "hardest",
        PAIR,
        f'detection_group_loss_param {{ {GROUP} batch_size: 9 bg_multiple: 1 neg_mining_type: "mixture" '
        f'objectness: true pos_neg_weighted: true bbox_loss_type: "Euclidean_L2" field_whr: 4 field_xyr: 1 }} {NORMAL}',
        skip=DRAWS,
    ),
    Case(
        "DetectionGroupAccuracy",
        "plain",
        PAIR,
        f"detection_group_accuracy_param {{ {GROUP} }} {NORMAL}",
        tops=2,
        skip=OPTIONS,
    ),
]
