"""Cases of caffe.layers.flow."""

from tests.layers.case import Case, within

ELSEWHERE: dict[str, str] = {}
TWO = ((2, 3, 7, 8), within(-1.1, 3, 2, 3, 7, 8))
ONE = "correlation_param { pad: 2 kernel_size: 1 max_displacement: 2 single_direction:"
CASES = [
    Case("Correlation", "plain", TWO, "correlation_param { pad: 2 kernel_size: 1 max_displacement: 2 }"),
    Case(
        "Correlation",
        "strides",
        TWO,
        "correlation_param { pad: 3 kernel_size: 3 max_displacement: 3 stride_1: 2 stride_2: 2 "
        "correlation_type: SUBTRACT }",
    ),
    Case("Correlation1D", "plain", TWO, "correlation_param { pad: 2 kernel_size: 3 max_displacement: 2 }"),
    Case("Correlation1D", "left", TWO, f"{ONE} -1 }}"),
    Case("Correlation1D", "right", TWO, f"{ONE} 1 }}"),
    Case("FlowWarp", "plain", ((2, 3, 4, 5), within(-2.3, 2.4, 2, 2, 4, 5))),
    Case("Resample", "linear", ((2, 3, 6, 8),), "resample_param { height: 4 width: 5 }"),
    Case("Resample", "cubic", ((2, 3, 4, 5), (1, 1, 6, 8)), "resample_param { type: CUBIC }"),
    Case("Resample", "nearest", ((2, 3, 4, 5),), "resample_param { height: 8 width: 10 type: NEAREST }"),
    Case("Downsample", "plain", ((2, 3, 6, 8),), "downsample_param { top_height: 3 top_width: 5 }"),
    Case("Mean", "subtract", ((2, 4, 2, 3), (1, 2, 5, 2)), "mean_param { operation: SUBTRACT value: [1, 2] }", tops=2),
    Case("Accum", "plain", ((2, 1, 3, 4), (2, 2, 5, 3))),
    Case("Accum", "divisible", ((2, 1, 3, 4), (2, 2, 5, 3)), "accum_param { size_divisible_by: 8 }"),
    Case("Accum", "reference", ((2, 1, 3, 4), (2, 2, 5, 3)), "accum_param { have_reference: true }"),
    Case("LpqLoss", "two", ((2, 3, 4), within(-3, 1, 2, 3, 4)), "lpq_loss_param { p: 2 q: 0.4 q_epsilon: 0.01 }"),
    Case(
        "LpqLoss",
        "one",
        ((2, 3, 4),),
        "lpq_loss_param { p: 1.5 q: 2 p_epsilon: 0.1 l2_prescale_by_channels: true normalize_by_num_entries: true }",
    ),
]
