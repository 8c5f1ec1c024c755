"""Names that forks of Caffe have and this package has not: layer types, fields and values, each with its origin.

An error calls such a name by its origin instead of suggesting a known name that is spelled alike and does something
else. When a layer, field or value is added to the package, its entry here is deleted; a test compares the two.
"""

from __future__ import annotations

__all__ = ["FIELDS", "LAYERS", "OPTIONS", "VALUES", "foreign_field", "foreign_layer", "foreign_value"]

_SSD = "SSD"
_RCNN = "Faster R-CNN"
_RFCN = "R-FCN"
_CASCADE = "Cascade R-CNN and MS-CNN"
_YOLO = "YOLO"
_DEEPLAB = "DeepLab"
_SEGNET = "SegNet"
_FLOWNET = "FlowNet 2"
_HAPPYNEAR = "happynear's fork"
_NVIDIA = "NVCaffe"
_INTEL = "Intel's Caffe"
_OPENVINO = "OpenVINO's training toolbox"
_JOLIBRAIN = "jolibrain's fork"
_OCR = "caffe_ocr"
_C3D = "C3D"
_TSN = "yjxiong's fork (TSN)"
_SYNOPSYS = "Synopsys' Caffe"
_OPENCL = "the opencl branch of BVLC Caffe"
_DEPTHWISE = 'write "Convolution" with group and num_output equal to the number of channels: its weights are the same'
_RELU6 = 'write "Clip" with clip_param { min: 0 max: 6 }'

LAYERS: dict[str, tuple[str, str]] = {
    "Accum": (_FLOWNET, ""),
    "AdaptiveBiasChannel": (_DEEPLAB, ""),
    "AnchorEmbeddingExtractor": (_OPENVINO, ""),
    "AnnotatedData": (_SSD, ""),
    "AutoCrop": ("RCF", 'write "Crop" with the offset as a number'),
    "Axpy": ("SENet", 'write "Scale" with the bottoms x and a, a of shape (N, C), and axis: 0, then "Eltwise"'),
    "BN": (
        "SegNet, PSPNet and TSN, each in its own meaning",
        'write "BatchNorm" followed by "Scale", whose blobs are others',
    ),
    "BboxAccuracy": (_CASCADE, ""),
    "BiasChannel": (_DEEPLAB, ""),
    "BlackAugmentation": (_FLOWNET, ""),
    "BoxAnnotatorOHEM": (_RFCN, ""),
    "BoxData": ("yeahkun's YOLO fork", ""),
    "BoxGroupOutput": (_CASCADE, ""),
    "BoxOutput": (_CASCADE, ""),
    "CConvolution": ("deep compression", ""),
    "CConvolutionDepthwise": ("deep compression", ""),
    "CInnerProduct": ("deep compression", ""),
    "CReLU": ("CReLU's authors", 'write "Power" with scale: -1, "Concat" and "ReLU"'),
    "CTCDecoder": (_OCR, ""),
    "CTCGreedyDecoder": (_OCR, ""),
    "CTCLoss": (_OCR, ""),
    "CenterLoss": ("Wen's caffe-face", ""),
    "ChannelNorm": (_FLOWNET, ""),
    "ContinuationIndicator": ("CRNN", ""),
    "Convolution3D": (_C3D, 'write "Convolution" with a bottom of 5 axes'),
    "ConvolutionDepthwise": ("MobileNet", _DEPTHWISE),
    "Correlation": (_FLOWNET, ""),
    "Correlation1D": (_FLOWNET, ""),
    "CropAndResize": (_SYNOPSYS, ""),
    "CtcLoss": ("CRNN", ""),
    "DataAugmentation": (_FLOWNET, ""),
    "DecodeBBox": (_CASCADE, ""),
    "Deconvolution3D": (_C3D, 'write "Deconvolution" with a bottom of 5 axes'),
    "DeformableConvolution": ("Deformable ConvNets", ""),
    "DenseBlock": (_OCR, ""),
    "DenseCRF": (_DEEPLAB, ""),
    "DenseImageData": (_SEGNET, ""),
    "DepthToSpace": (_SYNOPSYS, ""),
    "DepthwiseConvolution": ("yonghenglh6's MobileNet fork", _DEPTHWISE),
    "DetectionAccuracy": (_CASCADE, ""),
    "DetectionData": (_CASCADE, ""),
    "DetectionEvaluate": (_SSD, ""),
    "DetectionLoss": ("yeahkun's YOLO fork", ""),
    "DetectionOutput": (_SSD, ""),
    "DetectNetGroundTruth": (_NVIDIA, ""),
    "DetectNetTransformation": (_NVIDIA, ""),
    "DiceCoefLoss": (_JOLIBRAIN, ""),
    "DomainTransform": (_DEEPLAB, ""),
    "Downsample": (_FLOWNET, ""),
    "EltwiseAffine": (_HAPPYNEAR, ""),
    "EvalDetection": (_YOLO, ""),
    "FlowAugmentation": (_FLOWNET, ""),
    "FlowWarp": (_FLOWNET, ""),
    "Flip": (_HAPPYNEAR, ""),
    "FocalLoss": ("focal loss", ""),
    "FrcnnOutput": (_CASCADE, ""),
    "GRN": (_OPENVINO, ""),
    "Gather": (_TSN, ""),
    "GroupNorm": ("GroupNorm", ""),
    "HardSigmoid": (_SYNOPSYS, ""),
    "ImResize": ("OpenPose's training fork", ""),
    "ImageGtData": (_CASCADE, ""),
    "ImageLabelmapData": ("HED", ""),
    "ImageSegData": (_DEEPLAB, ""),
    "Insanity": (_HAPPYNEAR, ""),
    "Interp": ("DeepLab and PSPNet", ""),
    "L1Loss": (_FLOWNET, ""),
    "LabelsequenceAccuracy": ("CRNN", ""),
    "LargeMarginInnerProduct": ("L-Softmax", ""),
    "LpqLoss": (_FLOWNET, ""),
    "Lstm": (
        "junhyukoh's caffe-lstm",
        'a layer of its own; "LSTM" has other weights and another bottom for the starts',
    ),
    "MULTI_SOFTMAX": (_CASCADE, ""),
    "MULTI_SOFTMAX_LOSS": (_CASCADE, ""),
    "MarginInnerProduct": ("SphereFace", ""),
    "MaskPooling": ("MNC", ""),
    "MaskResize": ("MNC", ""),
    "MatRead": (_DEEPLAB, ""),
    "MatWrite": (_DEEPLAB, ""),
    "Mean": (_FLOWNET, ""),
    "MergeCrop": (_OPENCL, ""),
    "Mish": ("YOLOv4", ""),
    "MultiBoxLoss": (_SSD, ""),
    "NegReLU": (_FLOWNET, 'write "Power" with scale: -1, "ReLU" and "Power" with scale: -1'),
    "Nms": ("OpenPose's training fork", ""),
    "Noise": (_HAPPYNEAR, ""),
    "Normalize": ("SSD (happynear's is another)", ""),
    "PSROIPooling": (_RFCN, ""),
    "Permute": (_SSD, ""),
    "Pooling3D": (_C3D, ""),
    "PriorBox": (_SSD, ""),
    "PriorBoxClustered": (_OPENVINO, ""),
    "Proposal": ("PVANET", ""),
    "ProposalTarget": (_CASCADE, ""),
    "PyramidROIAlign": (_SYNOPSYS, ""),
    "RReLU": (_HAPPYNEAR, ""),
    "ROIAlign": ("Mask R-CNN", ""),
    "ROIPooling": (_RCNN, ""),
    "ROIWarping": ("MNC", ""),
    "ReLU6": ("MobileNet", _RELU6),
    "RegionLoss": (_YOLO, ""),
    "Reorg": (_YOLO, ""),
    "Resample": (_FLOWNET, ""),
    "ResizeBilinear": (_SYNOPSYS, ""),
    "ResizeNearestNeighbor": (_SYNOPSYS, ""),
    "Reverse": ("jolibrain's fork and caffe_ocr", ""),
    "ReverseTime": (_OCR, ""),
    "SELU": (_JOLIBRAIN, ""),
    "ScaleFilter": (_OPENVINO, ""),
    "ScaleRoute": (_CASCADE, ""),
    "SegAccuracy": (_DEEPLAB, ""),
    "ShuffleChannel": ("ShuffleNet", ""),
    "SimpleNormalize": ("yuqj1991's fork", ""),
    "SmoothL1Loss": (_RCNN, ""),
    "SmoothL1LossOHEM": (_RFCN, ""),
    "SoftmaxWithLossOHEM": (_RFCN, ""),
    "SpaceToDepth": (_SYNOPSYS, ""),
    "SpatialDropout": (_INTEL, ""),
    "Transpose": (_OCR, ""),
    "TripletLoss": (_HAPPYNEAR, ""),
    "UNPOOLING": ("DeconvNet", ""),
    "UniqueLabel": (_DEEPLAB, ""),
    "Upsample": ("SegNet and YOLO, each in its own meaning", ""),
    "VideoData": ("C3D, SSD and TSN, each in its own meaning", ""),
    "WarpCTCLoss": (_OCR, ""),
    "YoloDetectionOutput": (_YOLO, ""),
    "YoloSeg": (_YOLO, ""),
    "Yolov3": (_YOLO, ""),
    "Yolov3DetectionOutput": (_YOLO, ""),
}
"""Layer type -> its origin, and the way out if the package can compute the same."""

OPTIONS: dict[str, str] = {
    "apl_param": _HAPPYNEAR,
    "augmentation_param": _FLOWNET,
    "bbox_reg_param": _CASCADE,
    "cconv_depthwise_param": "deep compression",
    "coeff_schedule_param": _FLOWNET,
    "crop_resize_param": _SYNOPSYS,
    "embedding_extractor_param": _OPENVINO,
    "local_param": _HAPPYNEAR,
    "norm_param": _SSD,
    "op_transform_param": "OpenPose's training fork",
    "pad_param": _SYNOPSYS,
    "quantization_param": _INTEL,
    "resize_param": _HAPPYNEAR,
    "smoothl1_param": _HAPPYNEAR,
    "split_param": _INTEL,
    "stack_param": _SYNOPSYS,
    "trt_param": _NVIDIA,
}
"""Option messages of LayerParameter, where their names do not follow from a layer's in `LAYERS`."""

FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "BatchNormParameter": {
        "bias_filler": (_NVIDIA, 'write a "Scale" layer with bias_term: true behind'),
        "bias_term": (_INTEL, 'write a "Scale" layer behind'),
        "filler": (_INTEL, 'write a "Scale" layer with that filler behind'),
        "scale_bias": (_NVIDIA, 'write a "Scale" layer with bias_term: true behind'),
        "scale_filler": (_NVIDIA, 'write a "Scale" layer with that filler behind'),
        "update_global_stats": (_DEEPLAB, ""),
        "use_weight_bias": (_INTEL, 'write a "Scale" layer with bias_term: true behind'),
    },
    "ConvolutionParameter": {
        "hole": (_DEEPLAB, "write dilation"),
        "kernel_depth": (_C3D, "write kernel_size once for each axis"),
    },
    "DataParameter": {"cache": (_NVIDIA, "remove it"), "shuffle": (_NVIDIA, ""), "side": (_YOLO, "")},
    "DropoutParameter": {
        "sample_weights_test": (_SEGNET, ""),
        "scale_train": ("py-faster-rcnn", "remove it if true, as Caffe scales while training"),
    },
    "LayerParameter": {
        "backward_math": (_NVIDIA, "remove it"),
        "backward_type": (_NVIDIA, "remove it"),
        "debug": (_NVIDIA, "remove it"),
        "forward_math": (_NVIDIA, "remove it"),
        "forward_type": (_NVIDIA, "remove it"),
        "reshape_every_iter": (_FLOWNET, "remove it"),
    },
    "LossParameter": {
        "class_weighting": (_SEGNET, ""),
        "pre_fixed_normalizer": (_RFCN, ""),
        "weight_by_label_freqs": (_SEGNET, ""),
    },
    "NetParameter": {
        "bn_stats_batch_size": (_INTEL, "remove it"),
        "default_backward_math": (_NVIDIA, "remove it"),
        "default_backward_type": (_NVIDIA, "remove it"),
        "default_forward_math": (_NVIDIA, "remove it"),
        "default_forward_type": (_NVIDIA, "remove it"),
        "eltwise_mem_sharing": (_NVIDIA, "remove it"),
        "global_grad_scale": (_NVIDIA, "remove it"),
    },
    "PoolingParameter": {
        "avg_include_pad": (_INTEL, ""),
        "ceil_mode": ("DenseNet's Caffe", "write round_mode: FLOOR for false, round_mode: CEIL for true"),
        "kernel_depth": (_C3D, ""),
        "torch_pooling": (_NVIDIA, ""),
    },
    "SolverParameter": {
        "ap_version": (_SSD, "remove it"),
        "eval_type": (_SSD, "remove it"),
        "larc": (_NVIDIA, ""),
        "larc_eta": (_NVIDIA, ""),
        "larc_policy": (_NVIDIA, ""),
        "larc_turbo": (_NVIDIA, ""),
        "local_gw_ratio": (_INTEL, ""),
        "local_lr_auto": (_INTEL, ""),
        "max_momentum": (_NVIDIA, ""),
        "momentum_power": (_NVIDIA, ""),
        "plateau_winsize": (_SSD, ""),
        "rampup_interval": (_NVIDIA, ""),
        "rampup_lr": (_NVIDIA, ""),
        "richness": (_TSN, "remove it"),
        "show_per_class_result": (_SSD, "remove it"),
        "solver_data_type": (_NVIDIA, "remove it"),
        "stageiter": (_YOLO, ""),
        "stagelr": (_YOLO, ""),
        "store_blobs_in_old_format": (_NVIDIA, "remove it"),
        "test_offset": (_INTEL, ""),
        "warmup_start_lr": (_INTEL, ""),
    },
    "TransformationParameter": {
        "crop_h": (_SSD, ""),
        "crop_w": (_SSD, ""),
        "distort_param": (_SSD, ""),
        "emit_constraint": (_SSD, ""),
        "expand_param": (_SSD, ""),
        "fix_crop": (_TSN, ""),
        "is_flow": (_TSN, ""),
        "max_distort": (_TSN, ""),
        "more_fix_crop": (_TSN, ""),
        "multi_scale": (_TSN, ""),
        "noise_param": (_SSD, ""),
        "random_aspect_ratio_param": (_INTEL, ""),
        "random_resize_param": (_INTEL, ""),
        "resize_param": (_SSD, ""),
        "scale_factors": (_DEEPLAB, ""),
        "scale_ratios": (_TSN, ""),
    },
}
"""Message -> its fields in forks, each with its origin and, if there is one, the way out."""

VALUES: dict[str, tuple[str, str]] = {
    "MKL2017": (_INTEL, "remove the engine"),
    "MKLDNN": (_INTEL, "remove the engine"),
    "PRE_FIXED": (_RFCN, "write normalization: NONE, and 1 / pre_fixed_normalizer as the loss_weight"),
    "gabor": (_INTEL, ""),
    "multifixed": (_YOLO, ""),
    "stepearly": ("of unknown origin", ""),
}
"""Values of enums and of fields that name a filler, policy or the like."""

_LAYERS_OF_OPTIONS = {f"{name.lower()}param": name for name in LAYERS}


def foreign_layer(name: str) -> str:
    """What follows `layer type "Permute"` if a fork has this type; else an empty string."""
    if name not in LAYERS:
        return ""
    origin, instead = LAYERS[name]
    return f" comes from a fork of Caffe ({origin}), and Cafetière does not have it; {instead or _OWN}"


def foreign_field(message: str, name: str) -> str:
    """What follows `PoolingParameter has no field "ceil_mode"` if a fork has it; else an empty string."""
    if name in FIELDS.get(message, ()):
        origin, instead = FIELDS[message][name]
        return f": it comes from a fork of Caffe ({origin}); {instead or 'this package cannot do what it asks for'}"
    if message not in ("LayerParameter", "V1LayerParameter"):
        return ""
    layer = _LAYERS_OF_OPTIONS.get(name.replace("_", ""))
    if layer is None:
        return f": it comes from a fork of Caffe ({OPTIONS[name]}); {_OWN}" if name in OPTIONS else ""
    origin, instead = LAYERS[layer]
    return f': it holds the options of "{layer}", a layer type of a fork of Caffe ({origin}); {instead or _OWN}'


def foreign_value(name: str) -> str:
    """What follows `unknown filler type "gabor"` if a fork has this value; else an empty string."""
    if name not in VALUES:
        return ""
    origin, instead = VALUES[name]
    return f": it comes from a fork of Caffe ({origin}); {instead or 'use one of the known ones'}"


_OWN = 'write it as a layer of your own (docs/layers_own.md, --import FILE) or as a "Python" layer'
