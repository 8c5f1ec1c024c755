"""Cases of caffe.layers.detection."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
MAP = ((2, 3, 2, 3), (2, 3, 20, 40))
SIZES = "min_size: 4 min_size: 9 max_size: 7 max_size: 12 aspect_ratio: 2 aspect_ratio: 3"
CASES = [
    Case("PriorBox", "default", MAP, "prior_box_param { min_size: 4 }"),
    Case("PriorBox", "many", MAP, f"prior_box_param {{ {SIZES} clip: true variance: [0.1, 0.1, 0.2, 0.2] }}"),
    Case("PriorBox", "given", MAP, "prior_box_param { min_size: 4 img_size: 30 step: 8 offset: 0 }"),
    Case("PriorBoxClustered", "two", MAP, "prior_box_param { width: [3, 4] height: [5, 6] }"),
]
