"""Cases of caffe.layers.elementwise."""

from tests.layers.case import Case, positive, within

ELSEWHERE: dict[str, str] = {}
TWO = ((2, 3, 5), within(-1, 2.5, 2, 3, 5))
THREE = (*TWO, within(-3, 1, 2, 3, 5))
CASES = [
    Case("Axpy", "default", ((2, 3), (2, 3, 4, 5), (2, 3, 4, 5))),
    Case("Axpy", "four_axes", ((2, 3, 1, 1), (2, 3, 4), (2, 3, 4))),
    Case("Eltwise", "default", TWO),
    Case("Eltwise", "coeff", THREE, "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 coeff: 3 }"),
    Case("Eltwise", "coeff_first", TWO, "eltwise_param { coeff: 0.7 coeff: 1 }"),
    Case("Eltwise", "prod", TWO, "eltwise_param { operation: PROD }"),
    Case("Eltwise", "prod_three", THREE, "eltwise_param { operation: PROD }"),
    Case(
        "Eltwise",
        "prod_unstable",
        (positive(3, 5), within(-2, -1, 3, 5), positive(3, 5)),
        "eltwise_param { operation: PROD stable_prod_grad: false }",
    ),
    Case("Eltwise", "max", TWO, "eltwise_param { operation: MAX }"),
    Case("Eltwise", "max_three", THREE, "eltwise_param { operation: MAX }"),
]
