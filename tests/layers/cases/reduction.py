"""Cases of caffe.layers.reduction."""

from tests.layers.case import Case, labels

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("Maximum", "default", ((2, 3, 4, 5),)),
    *(
        Case("Reduction", f"{kind.lower()}_{axis}", ((2, 3, 5),), f"reduction_param {{ operation: {kind} {options} }}")
        for kind in ("SUM", "ASUM", "SUMSQ", "MEAN")
        for axis, options in (("all", "coeff: -0.5"), ("axis", "axis: 1"), ("last", "axis: -1 coeff: 2"))
    ),
    Case("ArgMax", "default", ((2, 3, 5, 7),)),
    Case("ArgMax", "two_axes", ((3, 7),), "argmax_param { top_k: 2 out_max_val: true }"),
    Case("ArgMax", "axis", ((2, 5, 3),), "argmax_param { axis: 1 top_k: 3 }"),
    Case("ArgMax", "axis_values", ((2, 5, 3),), "argmax_param { axis: -2 out_max_val: true }"),
    Case("Accuracy", "default", ((7, 3), labels(3, 7))),
    Case("Accuracy", "top", ((7, 5), labels(5, 7, 1, 1, 1)), "accuracy_param { top_k: 3 }"),
    Case("Accuracy", "spatial", ((2, 5, 3, 7), labels(5, 2, 3, 7)), "accuracy_param { ignore_label: 2 }"),
    Case("Accuracy", "classes", ((7, 5, 3), labels(3, 7, 5)), "accuracy_param { axis: -1 }", tops=2),
]
