"""Cases of caffe.layers.margins."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case, labels, within

ELSEWHERE: dict[str, str] = {}
CHECKS = {"compile": "looks at the labels to check them"}
TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE")
DOWN = "base: 10 gamma: 0.5 lambda_min: 0.1"
CASES = [
    Case("CenterLoss", "plain", ((5, 2, 2), labels(3, 5)), "center_loss_param { num_output: 3 }", skip=CHECKS),
    *(
        Case(
            f"{kind}InnerProduct",
            name.lower(),
            ((5, 3), labels(4, 5)),
            f"{field} {{ num_output: 4 type: {name} {DOWN} }}",
            tops=2,
            skip=CHECKS,
        )
        for kind, field in (
            ("Margin", "margin_inner_product_param"),
            ("LargeMargin", "largemargin_inner_product_param"),
        )
        for name in TYPES
    ),
    Case("LabelSpecificAdd", "train", ((5, 4), labels(4, 5)), "label_specific_add_param { bias: -0.35 }", skip=CHECKS),
    Case("LabelSpecificAdd", "test", ((5, 4), labels(4, 5)), "label_specific_add_param { bias: -0.35 }", phase=TEST),
    Case("Arcface", "plain", (within(-0.99, 0.99, 5, 4), labels(4, 5)), "arcface_param { m: 0.5 }", skip=CHECKS),
    Case("TripletLoss", "plain", ((4, 3), (4, 3), (4, 3)), "triplet_loss_param { margin: 0.5 }"),
]
