"""Layer types and values that forks of Caffe have and this package has not, each with its origin.

An error calls such a name by its origin instead of suggesting a known name that is spelled alike and does something
else. When a layer or value is added to the package, its entry here is deleted; a test compares the two.
"""

from __future__ import annotations

from caffe.proto.forks import origins as of

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]

_DEPTHWISE = 'write "Convolution" with group and num_output equal to the number of channels: its weights are the same'
_RELU6 = 'write "Clip" with clip_param { min: 0 max: 6 }'
_OWN = 'write it as a layer of your own (docs/layers_own.md, --import FILE) or as a "Python" layer'

LAYERS: dict[str, tuple[str, str]] = {
    "Accum": (of.FLOWNET, ""),
    "AdaptiveBiasChannel": (of.DEEPLAB, ""),
    "AnchorEmbeddingExtractor": (of.OPENVINO, ""),
    "AnnotatedData": (of.SSD, ""),
    "AutoCrop": ("RCF", 'write "Crop" with the offset as a number'),
    "Axpy": ("SENet", 'write "Scale" with the bottoms x and a, a of shape (N, C), and axis: 0, then "Eltwise"'),
    "BN": (
        "SegNet, PSPNet and TSN, each in its own meaning",
        'write "BatchNorm" followed by "Scale", whose blobs are others',
    ),
    "BboxAccuracy": (of.CASCADE, ""),
    "BiasChannel": (of.DEEPLAB, ""),
    "BlackAugmentation": (of.FLOWNET, ""),
    "BoxAnnotatorOHEM": (of.RFCN, ""),
    "BoxData": ("yeahkun's YOLO fork", ""),
    "BoxGroupOutput": (of.CASCADE, ""),
    "BoxOutput": (of.CASCADE, ""),
    "CConvolution": ("deep compression", ""),
    "CConvolutionDepthwise": ("deep compression", ""),
    "CInnerProduct": ("deep compression", ""),
    "CReLU": ("CReLU's authors", 'write "Power" with scale: -1, "Concat" and "ReLU"'),
    "CTCDecoder": (of.OCR, ""),
    "CTCGreedyDecoder": (of.OCR, ""),
    "CTCLoss": (of.OCR, ""),
    "CenterLoss": ("Wen's caffe-face", ""),
    "ChannelNorm": (of.FLOWNET, ""),
    "ContinuationIndicator": ("CRNN", ""),
    "Convolution3D": (of.C3D, 'write "Convolution" with a bottom of 5 axes'),
    "ConvolutionDepthwise": ("MobileNet", _DEPTHWISE),
    "Correlation": (of.FLOWNET, ""),
    "Correlation1D": (of.FLOWNET, ""),
    "CropAndResize": (of.SYNOPSYS, ""),
    "CtcLoss": ("CRNN", ""),
    "DataAugmentation": (of.FLOWNET, ""),
    "DecodeBBox": (of.CASCADE, ""),
    "Deconvolution3D": (of.C3D, 'write "Deconvolution" with a bottom of 5 axes'),
    "DeformableConvolution": ("Deformable ConvNets", ""),
    "DenseBlock": (of.OCR, ""),
    "DenseCRF": (of.DEEPLAB, ""),
    "DenseImageData": (of.SEGNET, ""),
    "DepthToSpace": (of.SYNOPSYS, ""),
    "DepthwiseConvolution": ("yonghenglh6's MobileNet fork", _DEPTHWISE),
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
    "Flip": (of.HAPPYNEAR, ""),
    "FocalLoss": ("focal loss", ""),
    "FrcnnOutput": (of.CASCADE, ""),
    "GRN": (of.OPENVINO, ""),
    "Gather": (of.TSN, ""),
    "GroupNorm": ("GroupNorm", ""),
    "HardSigmoid": (of.SYNOPSYS, ""),
    "ImResize": (of.OPENPOSE, ""),
    "ImageGtData": (of.CASCADE, ""),
    "ImageLabelmapData": ("HED", ""),
    "ImageSegData": (of.DEEPLAB, ""),
    "Insanity": (of.HAPPYNEAR, ""),
    "Interp": ("DeepLab and PSPNet", ""),
    "L1Loss": (of.FLOWNET, ""),
    "LabelsequenceAccuracy": ("CRNN", ""),
    "LargeMarginInnerProduct": ("L-Softmax", ""),
    "LpqLoss": (of.FLOWNET, ""),
    "Lstm": (
        "junhyukoh's caffe-lstm",
        'a layer of its own; "LSTM" has other weights and another bottom for the starts',
    ),
    "MULTI_SOFTMAX": (of.XIAOLONW, ""),
    "MULTI_SOFTMAX_LOSS": (of.XIAOLONW, ""),
    "MarginInnerProduct": ("SphereFace", ""),
    "MaskPooling": ("MNC", ""),
    "MaskResize": ("MNC", ""),
    "MatRead": (of.DEEPLAB, ""),
    "MatWrite": (of.DEEPLAB, ""),
    "Mean": (of.FLOWNET, ""),
    "MergeCrop": (of.OPENCL, ""),
    "Mish": ("YOLOv4", ""),
    "NegReLU": (of.FLOWNET, 'write "Power" with scale: -1, "ReLU" and "Power" with scale: -1'),
    "Nms": (of.OPENPOSE, ""),
    "Noise": (of.HAPPYNEAR, ""),
    "PSROIPooling": (of.RFCN, ""),
    "Pooling3D": (of.C3D, ""),
    "Proposal": ("PVANET", ""),
    "ProposalTarget": (of.CASCADE, ""),
    "PyramidROIAlign": (of.SYNOPSYS, ""),
    "RReLU": (of.HAPPYNEAR, ""),
    "ROIAlign": ("Mask R-CNN", ""),
    "ROIPooling": (of.RCNN, ""),
    "ROIWarping": ("MNC", ""),
    "ReLU6": ("MobileNet", _RELU6),
    "RegionLoss": (of.YOLO, ""),
    "Reorg": (of.YOLO, ""),
    "Resample": (of.FLOWNET, ""),
    "ResizeBilinear": (of.SYNOPSYS, ""),
    "ResizeNearestNeighbor": (of.SYNOPSYS, ""),
    "Reverse": ("jolibrain's fork and caffe_ocr", ""),
    "ReverseTime": (of.OCR, ""),
    "SELU": (of.JOLIBRAIN, ""),
    "ScaleFilter": (of.OPENVINO, ""),
    "ScaleRoute": (of.CASCADE, ""),
    "SegAccuracy": (of.DEEPLAB, ""),
    "ShuffleChannel": ("ShuffleNet", ""),
    "SmoothL1LossOHEM": (of.RFCN, ""),
    "SoftmaxWithLossOHEM": (of.RFCN, ""),
    "SpaceToDepth": (of.SYNOPSYS, ""),
    "SpatialDropout": (of.INTEL, ""),
    "Transpose": (of.OCR, ""),
    "TripletLoss": (of.HAPPYNEAR, ""),
    "UNPOOLING": ("DeconvNet", ""),
    "UniqueLabel": (of.DEEPLAB, ""),
    "Upsample": ("SegNet and YOLO, each in its own meaning", ""),
    "VideoData": ("C3D, SSD and TSN, each in its own meaning", ""),
    "WarpCTCLoss": (of.OCR, ""),
    "YoloDetectionOutput": (of.YOLO, ""),
    "YoloSeg": (of.YOLO, ""),
    "Yolov3": (of.YOLO, ""),
    "Yolov3DetectionOutput": (of.YOLO, ""),
    "ANGLE_LOSS": (of.XIAOLONW, ""),
    "APL": (of.HAPPYNEAR, ""),
    "AssistedExcitation": ("eric612's MobileNet-YOLO", ""),
    "BatchReduction": (of.TSN, ""),
    "LABEL_DROPOUT": (of.XIAOLONW, ""),
    "LaneData": ("LaneNet", ""),
    "Maximum": ("yjxiong's fork (TSN)", 'write "Eltwise" with operation: MAX'),
    "NORM": (of.XIAOLONW, ""),
    "POSE_IMAGE_DATA": (of.XIAOLONW, ""),
    "RESIZE": (of.XIAOLONW, ""),
    "Resize": (of.MOBILENETV2, ""),
    "SIGMOID_LOSS": (of.XIAOLONW, ""),
    "SegData": (of.TSN, ""),
    "SegmentationEvaluate": (of.YOLO, ""),
    "Switch": ("NVCaffe's and other forks", ""),
    "TRT": (of.NVIDIA, ""),
    "VideoSegmentationData": (of.C3D, ""),
    "VideoWithVoxelTruthData": (of.C3D, ""),
    "VoxelSoftmax": (of.C3D, ""),
    "VoxelSoftmaxWithLoss": (of.C3D, ""),
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
