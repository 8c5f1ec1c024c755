"""Cases of caffe.layers.detectnet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Bottom, Case

ELSEWHERE: dict[str, str] = {}


@dataclass(frozen=True)
class Kitti(Bottom):
    """Rows of 16 numbers for each image: their number, then boxes of the classes 1 and 8."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        count, _, rows, _ = self.shape
        made = np.zeros((count, rows, 16))
        made[:, 0, :2] = rows - 1, 16
        made[:, 1:, :2], made[:, 1:, 2:4] = rng.uniform(0, 30, (2, count, rows - 1, 2))
        made[:, 1:, 5] = rng.choice([1, 8], (count, rows - 1))
        return made.reshape(self.shape)


TRUTH = "stride: 8 image_size_x: 48 image_size_y: 32 min_cvg_len: 4 gridbox_type: GRIDBOX_MIN"
CHANGES = "detectnet_augmentation_param { crop_prob: 1 flip_prob: 0.5 }"
CASES = [
    Case(
        "DetectNetTransformation",
        "test",
        (Bottom((2, 3, 32, 48), 0, 256, integers=True), Kitti((2, 1, 4, 16))),
        f"detectnet_groundtruth_param {{ {TRUTH} object_class {{ src: 8 dst: 1 }} object_class {{ src: 1 dst: 0 }} }}",
        tops=2,
        phase=TEST,
        skip={"gradient": "has none", "compile": "calls OpenCV"},
    ),
    Case(
        "DetectNetTransformation",
        "train",
        (Bottom((2, 3, 32, 48), 0, 256, integers=True), Kitti((2, 1, 4, 16))),
        f"detectnet_groundtruth_param {{ {TRUTH} object_class {{ src: 1 dst: 0 }} }} {CHANGES}",
        tops=2,
        skip={"gradient": "has none", "compile": "calls OpenCV", "dtype": "draws"},
    ),
]
