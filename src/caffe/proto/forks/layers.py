"""Layer types and values that forks of Caffe have and this package has not, each with its origin.

An error calls such a name by its origin instead of suggesting a known name that is spelled alike and does something
else. When a layer or value is added to the package, its entry here is deleted; a test compares the two.
"""

from __future__ import annotations

from caffe.proto.forks import origins as of

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]

_OWN = 'write it as a layer of your own (docs/layers_own.md, --import FILE) or as a "Python" layer'

LAYERS: dict[str, tuple[str, str]] = {
    "Accum": (of.FLOWNET, ""),
    "AdaptiveBiasChannel": (of.DEEPLAB, ""),
    "AnchorEmbeddingExtractor": (of.OPENVINO, ""),
    "AutoCrop": ("RCF", 'write "Crop" with the offset as a number'),
    "BboxAccuracy": (of.CASCADE, ""),
    "BiasChannel": (of.DEEPLAB, ""),
    "BlackAugmentation": (of.FLOWNET, ""),
    "CConvolution": ("deep compression", ""),
    "CConvolutionDepthwise": ("deep compression", ""),
    "CInnerProduct": ("deep compression", ""),
    "CTCDecoder": (of.OCR, ""),
    "CTCGreedyDecoder": (of.OCR, ""),
    "CTCLoss": (of.OCR, ""),
    "CenterLoss": ("Wen's caffe-face", ""),
    "ContinuationIndicator": ("CRNN", ""),
    "Correlation": (of.FLOWNET, ""),
    "Correlation1D": (of.FLOWNET, ""),
    "CropAndResize": (of.SYNOPSYS, ""),
    "CtcLoss": ("CRNN", ""),
    "DataAugmentation": (of.FLOWNET, ""),
    "DenseBlock": (of.OCR, ""),
    "DenseCRF": (of.DEEPLAB, ""),
    "DepthToSpace": (of.SYNOPSYS, ""),
    "DetectionAccuracy": (of.CASCADE, ""),
    "DetectionData": (of.CASCADE, ""),
    "DetectionLoss": ("yeahkun's YOLO fork", ""),
    "DetectNetGroundTruth": (of.NVIDIA, ""),
    "DetectNetTransformation": (of.NVIDIA, ""),
    "DiceCoefLoss": (of.JOLIBRAIN, ""),
    "DomainTransform": (of.DEEPLAB, ""),
    "Downsample": (of.FLOWNET, ""),
    "EltwiseAffine": (of.HAPPYNEAR, ""),
    "EvalDetection": (of.YOLO, ""),
    "FlowAugmentation": (of.FLOWNET, ""),
    "FlowWarp": (of.FLOWNET, ""),
    "FocalLoss": ("focal loss", ""),
    "FrcnnOutput": (of.CASCADE, ""),
    "GroupNorm": ("GroupNorm", ""),
    "HardSigmoid": (of.SYNOPSYS, ""),
    "ImageGtData": (of.CASCADE, ""),
    "LabelsequenceAccuracy": ("CRNN", ""),
    "LargeMarginInnerProduct": ("L-Softmax", ""),
    "LpqLoss": (of.FLOWNET, ""),
    "Lstm": (
        "junhyukoh's caffe-lstm",
        'a layer of its own; "LSTM" has other weights and another bottom for the starts',
    ),
    "MarginInnerProduct": ("SphereFace", ""),
    "MatRead": (of.DEEPLAB, ""),
    "MatWrite": (of.DEEPLAB, ""),
    "Mean": (of.FLOWNET, ""),
    "MergeCrop": (of.OPENCL, ""),
    "Nms": (of.OPENPOSE, ""),
    "Noise": (of.HAPPYNEAR, ""),
    "ProposalTarget": (of.CASCADE, ""),
    "PyramidROIAlign": (of.SYNOPSYS, ""),
    "RReLU": (of.HAPPYNEAR, ""),
    "ROIWarping": ("MNC", ""),
    "RegionLoss": (of.YOLO, ""),
    "Resample": (of.FLOWNET, ""),
    "ResizeBilinear": (of.SYNOPSYS, ""),
    "ResizeNearestNeighbor": (of.SYNOPSYS, ""),
    "ReverseTime": (of.OCR, ""),
    "ScaleRoute": (of.CASCADE, ""),
    "SegAccuracy": (of.DEEPLAB, ""),
    "SpaceToDepth": (of.SYNOPSYS, ""),
    "SpatialDropout": (of.INTEL, ""),
    "TripletLoss": (of.HAPPYNEAR, ""),
    "UniqueLabel": (of.DEEPLAB, ""),
    "WarpCTCLoss": (of.OCR, ""),
    "YoloDetectionOutput": (of.YOLO, ""),
    "YoloSeg": (of.YOLO, ""),
    "Yolov3": (of.YOLO, ""),
    "Yolov3DetectionOutput": (of.YOLO, ""),
    "APL": (of.HAPPYNEAR, ""),
    "AssistedExcitation": ("eric612's MobileNet-YOLO", ""),
    "BatchReduction": (of.TSN, ""),
    "LaneData": ("LaneNet", ""),
    "Resize": (of.MOBILENETV2, ""),
    "SegmentationEvaluate": (of.YOLO, ""),
    "Switch": ("NVCaffe's and other forks", ""),
    "TRT": (of.NVIDIA, ""),
    "SELUDropout": (of.JOLIBRAIN, ""),
    "ParseEvaluate": ("ParseNet", ""),
}
"""Layer type -> its origin, and the way out if the package can compute the same."""

VALUES: dict[str, tuple[str, str]] = {
    "Reg_Col": (of.INCREG, "prune with Caffe_IncReg"),
    "gabor": (of.INTEL, ""),
    "stepearly": ("junhyukoh's caffe-lstm", 'write "plateau" (docs/solvers.md)'),
}
"""Values of fields that name a filler, policy or the like."""


def foreign_layer(name: str) -> str:
    """What follows `layer type "Permute"` if a fork has this type; else an empty string."""
    if name not in LAYERS:
        return ""
    origin, instead = LAYERS[name]
    return f" comes from a fork of Caffe ({origin}), and Cafetière does not have it; {instead or _OWN}"


def foreign_value(name: str) -> str:
    """What follows `unknown filler type "gabor"` if a fork has this value; else an empty string."""
    if name not in VALUES:
        return ""
    origin, instead = VALUES[name]
    return f": it comes from a fork of Caffe ({origin}); {instead or 'use one of the known ones'}"
