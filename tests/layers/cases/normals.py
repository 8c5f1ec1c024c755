"""Cases of caffe.layers.normals."""

from tests.layers.case import Bottom, Case, labels, within

ELSEWHERE: dict[str, str] = {}
DROP = "label_drop_param { drop_neg_ratio: 1 hard_ratio: 0.5 rand_ratio: 0.5 }"
RANDOM = {"strides": "draws in the order of memory", "dtype": "each precision draws numbers of its own"}
CASES = [
    Case("MULTI_SOFTMAX", "default", ((2, 3, 4, 5),)),
    Case("MULTI_SOFTMAX_LOSS", "default", ((2, 3, 4, 5), Bottom((2, 1, 4, 5), 1, 4, integers=True))),
    Case("NORM", "default", ((2, 3, 4, 5),)),
    Case("ANGLE_LOSS", "default", (within(-0.5, 0.5, 2, 3, 4, 5), within(-0.5, 0.5, 2, 3, 4, 5))),
    Case("SIGMOID_LOSS", "default", ((2, 3, 4), labels(3, 2, 3, 4))),
    Case("LABEL_DROPOUT", "default", ((2, 3, 4, 5), labels(3, 2, 3, 4, 5)), DROP, skip=RANDOM),
    Case("L1Loss", "default", ((2, 3, 4), within(-3, 1, 2, 12))),
    Case("L1Loss", "flownet", ((2, 3, 4),), "l1_loss_param { plateau: 0.5 normalize_by_num_entries: true }"),
    Case(
        "L1Loss",
        "lengths",
        ((2, 3, 4), within(-3, 1, 2, 3, 4)),
        "l1_loss_param { l2_per_location: true l2_prescale_by_channels: true plateau: 0.7 }",
    ),
]  # fmt: skip
