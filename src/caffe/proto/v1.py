"""Converts V1 layers, `layers { type: CONVOLUTION ... }` of 2014, to current layers.

The table is complete: layer types added later have no V1 name. The names in its last part were only in forks.
Source: BVLC upgrade_proto.cpp.
"""

from __future__ import annotations

from caffe.proto import caffe_pb2

__all__ = ["TRANSFORMED", "V1_TYPES", "move_transforms", "needs_transforms", "upgrade_layer"]

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
    "CONVOLUTION3D": "Convolution3D",
    "DECONVOLUTION3D": "Deconvolution3D",
    "POOLING3D": "Pooling3D",
    "VIDEO_DATA": "VideoData",
    "VIDEO_SEGMENTATION_DATA": "VideoSegmentationData",
    "VIDEO_WITH_VOXEL_TRUTH_DATA": "VideoWithVoxelTruthData",
    "VOXEL_SOFTMAX": "VoxelSoftmax",
    "VOXEL_SOFTMAX_LOSS": "VoxelSoftmaxWithLoss",
    **{name: name for name in ("ANGLE_LOSS", "LABEL_DROPOUT", "MULTI_SOFTMAX", "MULTI_SOFTMAX_LOSS", "NORM")},
    **{name: name for name in ("POSE_IMAGE_DATA", "RESIZE", "SIGMOID_LOSS", "UNPOOLING", "BN")},
    "INTERP": "Interp",
    "SEG_ACCURACY": "SegAccuracy",
    "IMAGE_SEG_DATA": "ImageSegData",
    "MAT_READ": "MatRead",
    "MAT_WRITE": "MatWrite",
    "DENSE_CRF": "DenseCRF",
    "BIAS_CHANNEL": "BiasChannel",
    "ADAPTIVE_BIAS_CHANNEL": "AdaptiveBiasChannel",
    "UNIQUE_LABEL": "UniqueLabel",
}
"""V1 enum name -> layer type."""

TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
TRANSFORMED |= dict.fromkeys(
    ("VIDEO_DATA", "VIDEO_SEGMENTATION_DATA", "VIDEO_WITH_VOXEL_TRUTH_DATA"), "image_data_param"
)
"""V1 types whose options once held what is now in transform_param."""

TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_PARAM_FIELDS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
_TYPE_NAME = caffe_pb2.V1LayerParameter.LayerType.Name


def needs_transforms(net: caffe_pb2.NetParameter) -> bool:
    """Whether a V1 layer has transformations among the options of its type."""
    return any(_old_options(layer) for layer in net.layers)


def move_transforms(net: caffe_pb2.NetParameter) -> None:
    """Move scale, mean_file, crop_size and mirror to transform_param, where the older field wins over the newer one."""
    for layer in net.layers:
        options = TRANSFORMED.get(_TYPE_NAME(layer.type))
        if options is None:
            continue
        old, new = getattr(layer, options), layer.transform_param
        old.SetInParent()
        new.SetInParent()
        for field in _old_options(layer):
            setattr(new, field, getattr(old, field))
            old.ClearField(field)


def upgrade_layer(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    """Fill the current layer `new` from the V1 layer `old`."""
    for field, value in old.ListFields():
        if field.name == "type":
            new.type = V1_TYPES[_TYPE_NAME(value)]
        elif field.name == "name":
            new.name = value
        elif field.name in _PARAM_FIELDS:
            for index, item in enumerate(value):
                while len(new.param) <= index:
                    new.param.add()
                setattr(new.param[index], _PARAM_FIELDS[field.name], item)
        elif field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
        elif isinstance(value, (int, str)):  # options of forks
            setattr(new, field.name, value)
        else:  # bottom, top, blobs, loss_weight, include, exclude
            getattr(new, field.name).MergeFrom(value)


def _old_options(layer: caffe_pb2.V1LayerParameter) -> list[str]:
    """Return the transformations among the options of a layer's type."""
    options = TRANSFORMED.get(_TYPE_NAME(layer.type))
    return [field for field in TRANSFORM_FIELDS if options and getattr(layer, options).HasField(field)]
