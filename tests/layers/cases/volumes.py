"""Cases of caffe.layers.volumes."""

from tests.layers.case import Case, labels

ELSEWHERE: dict[str, str] = {}
CONV = "num_output: 3 kernel_size: 3 kernel_depth: 2 pad: 1 stride: 2"
CASES = [
    Case("Convolution3D", "v0", ((2, 2, 4, 5, 6),), f"convolution_param {{ {CONV} temporal_pad: 1 filter_group: 2 }}"),
    Case("Convolution3D", "v1", ((2, 2, 5, 5, 6),), f"convolution3d_param {{ {CONV} temporal_stride: 2 }}"),
    Case("Deconvolution3D", "v0", ((2, 2, 3, 4, 3),), f"convolution_param {{ {CONV} temporal_stride: 2 }}"),
    Case("Deconvolution3D", "v1", ((2, 2, 3, 4, 3),), f"convolution3d_param {{ {CONV} bias_term: false }}"),
    Case("Pooling3D", "max", ((2, 2, 5, 6, 5),),
         "pooling_param { kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 2 }"),
    Case("Pooling3D", "mean", ((2, 2, 5, 6, 5),),
         "pooling3d_param { pool: AVE kernel_size: 3 kernel_depth: 2 stride: 2 temporal_stride: 2 pad: 1 }"),
    Case("VoxelSoftmax", "default", ((2, 3, 2, 3, 4),)),
    Case("VoxelSoftmaxWithLoss", "default", ((2, 3, 2, 3, 4), labels(3, 2, 1, 2, 3, 4))),
]  # fmt: skip
