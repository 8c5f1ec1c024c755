"""Cases of caffe.layers.normalization."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("BatchNorm", "train", ((5, 3, 4, 2),)),
    Case("BatchNorm", "train_two_axes", ((7, 3),), "batch_norm_param { eps: 0.01 }"),
    Case("BatchNorm", "train_running", ((3, 5, 2),), "batch_norm_param { use_global_stats: true }"),
    Case("BatchNorm", "test", ((4, 3, 2, 5),), phase=TEST),
    Case("BatchNorm", "test_batch", ((2, 3, 4, 2, 5),), "batch_norm_param { use_global_stats: false }", phase=TEST),
    Case("LRN", "across", ((2, 7, 3, 5),)),
    Case("LRN", "across_power", ((2, 5, 3, 4),), "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }"),
    Case("LRN", "across_wider_than_channels", ((2, 3, 4, 5),), "lrn_param { local_size: 9 alpha: 2 }"),
    Case("LRN", "within", ((2, 3, 7, 5),), "lrn_param { local_size: 3 alpha: 0.9 norm_region: WITHIN_CHANNEL }"),
    Case("MVN", "default", ((2, 3, 5, 7),)),
    Case("MVN", "across_channels", ((2, 3, 4, 5),), "mvn_param { across_channels: true }"),
    Case("MVN", "mean_only", ((3, 2, 4, 5),), "mvn_param { normalize_variance: false }"),
    Case("MVN", "three_axes", ((2, 3, 5),)),
    Case("Normalize", "ssd", ((2, 3, 5, 7),), "norm_param { across_spatial: false channel_shared: false }"),
    Case("Normalize", "ssd_across", ((2, 3, 5, 7),), "norm_param { scale_filler { value: 20 } eps: 0.1 }"),
    Case("Normalize", "ssd_fixed", ((2, 3),), "norm_param { fix_scale: true }"),
    Case("Normalize", "ssd_by_param", ((2, 3, 5),), "param { lr_mult: 2 }"),
    Case("Normalize", "happynear", ((2, 3, 5, 7),)),
    Case("Normalize", "happynear_norm", ((2, 3, 5),), "normalize_param { bp_norm: true }", tops=2),
    Case("Normalize", "happynear_l1", ((2, 3),), 'normalize_param { normalize_type: "L1" bp_norm: true }', tops=2),
    Case("SimpleNormalize", "default", ((2, 3, 5),)),
]
