"""Cases of caffe.layers.loss."""

from tests.layers.case import Bottom, Case, labels, shares, within

ELSEWHERE: dict[str, str] = {}
MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE")
MATRIX = within(0.1, 2, 1, 1, 5, 5)
TARGETS = within(0.05, 0.95, 2, 3, 5)


def normalized(kind: str, bottoms: tuple[Bottom | tuple[int, ...], ...]) -> list[Case]:
    """The normalization modes, with an ignored label."""
    return [
        Case(kind, mode.lower(), bottoms, f"loss_param {{ ignore_label: 1 normalization: {mode} }}") for mode in MODES
    ]


CASES = [
    Case("Softmax", "default", ((2, 3, 5, 7),)),
    Case("Softmax", "axis", ((2, 3, 5),), "softmax_param { axis: -1 engine: CAFFE }"),
    Case("SoftmaxWithLoss", "default", ((3, 5), labels(5, 3))),
    Case("SoftmaxWithLoss", "spatial", ((2, 5, 3, 7), labels(5, 2, 3, 7))),
    Case(
        "SoftmaxWithLoss",
        "weighted",
        ((2, 3, 5), labels(3, 2, 5)),
        "loss_param { weight_by_label_freqs: true class_weighting: [0.5, 2, 1.5] }",
    ),
    Case("SoftmaxWithLoss", "axis", ((2, 3, 5), labels(5, 2, 3)), "softmax_param { axis: 2 }"),
    Case("SoftmaxWithLoss", "probabilities", ((2, 5, 3), labels(5, 2, 3)), tops=2),
    Case("SoftmaxWithLoss", "old", ((2, 5, 3), labels(5, 2, 3)), "loss_param { normalize: false }"),
    *normalized("SoftmaxWithLoss", ((2, 5, 3, 7), labels(5, 2, 1, 3, 7))),
    Case("MultinomialLogisticLoss", "default", (shares(3, 5), labels(5, 3))),
    Case("MultinomialLogisticLoss", "4d", (shares(2, 3, 1, 1), labels(3, 2, 1, 1, 1)), "loss_weight: 0.3"),
    Case("InfogainLoss", "default", ((3, 5), labels(5, 3), MATRIX)),
    Case("InfogainLoss", "axis", ((2, 3, 5), labels(5, 2, 3), MATRIX), "infogain_loss_param { axis: -1 }"),
    Case("InfogainLoss", "probabilities", ((2, 5, 3), labels(5, 2, 3), MATRIX), tops=2),
    *normalized("InfogainLoss", ((2, 5, 3, 7), labels(5, 2, 3, 7), MATRIX)),
    Case("SigmoidCrossEntropyLoss", "default", ((2, 3, 5), labels(2, 2, 3, 5))),
    Case("SigmoidCrossEntropyLoss", "soft", ((2, 3, 5), TARGETS)),
    *normalized("SigmoidCrossEntropyLoss", ((2, 3, 5), labels(2, 2, 15))),
    Case("EuclideanLoss", "default", ((3, 5), (3, 5, 1))),
    Case("EuclideanLoss", "weight", ((2, 3, 5), within(-1, 3, 2, 15)), "loss_weight: 2.5"),
    Case("HingeLoss", "l1", ((3, 5), labels(5, 3))),
    Case("HingeLoss", "l2", ((2, 3, 1, 1), labels(3, 2, 1, 1, 1)), "hinge_loss_param { norm: L2 }"),
    Case("ContrastiveLoss", "default", ((5, 3), within(-1, 1, 5, 3), labels(2, 5))),
    Case(
        "ContrastiveLoss",
        "legacy",
        ((5, 3, 1, 1), within(-1, 1, 5, 3, 1, 1), labels(2, 5, 1, 1, 1)),
        "contrastive_loss_param { margin: 5 legacy_version: true }",
    ),
]
