"""Cases of caffe.layers.resizing_tf."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
NCHW = 'data_format: "NCHW"'
SEG = "function_type: FACTOR_GIVEN"
CASES = [
    Case("ResizeBilinear", "plain", ((2, 3, 5, 2),), "resize_bilinear_param { output_height: 7 output_width: 4 }"),
    Case(
        "ResizeBilinear",
        "aligned",
        ((2, 2, 3, 5),),
        f"resize_bilinear_param {{ {NCHW} align_corners: true scale_height: 2 scale_width: 0.7 }}",
    ),
    Case(
        "ResizeBilinear",
        "centres",
        ((2, 2, 3, 5),),
        f"resize_bilinear_param {{ {NCHW} half_pixel_centers: true output_height: 7 output_width: 4 }}",
    ),
    Case(
        "ResizeNearestNeighbor",
        "plain",
        ((2, 2, 3, 5),),
        f"resize_nearest_neighbor_param {{ {NCHW} scale_height: 2 output_width: 4 }}",
    ),
    Case(
        "ResizeNearestNeighbor",
        "centres",
        ((2, 3, 5, 2),),
        "resize_nearest_neighbor_param { half_pixel_centers: true output_height: 7 output_width: 4 }",
    ),
    Case(
        "Resize", "nearest", ((2, 3, 5, 5),), f"resize_param {{ {SEG} intepolation_type: NEAREST resize_factor: 0.5 }}"
    ),
    Case(
        "Resize",
        "bilinear",
        ((2, 3, 5, 5),),
        f"resize_param {{ {SEG} intepolation_type: BILINEAR resize_factor: 2.5 }}",
    ),
    Case(
        "Resize",
        "like",
        ((2, 3, 5, 5), (2, 1, 7, 7)),
        "resize_param { function_type: BLOB_ALIGN intepolation_type: BILINEAR }",
    ),
]
