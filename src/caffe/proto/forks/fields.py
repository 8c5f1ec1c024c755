"""How each field that forks of Caffe add to BVLC's messages is treated.

There are three groups: fields that work (`EFFECT`); fields that do not change what a net computes (`WITHOUT_EFFECT`),
which cause a warning; and fields that are rejected (`REFUSED`) if they are set to anything but the default. `OPTIONS`
lists the options of forks' layer types. When you implement a field, move its entry to `EFFECT`, or add its name to
`Layer.honours`.
"""

from __future__ import annotations

from caffe.proto.forks import origins as of

__all__ = ["EFFECT", "ENGINES", "OPTIONS", "REFUSED", "WITHOUT_EFFECT"]

Table = dict[str, dict[str, str]]


def _by_message(table: dict[str, dict[str, str]]) -> Table:
    """Convert origin -> message -> names to message -> field -> origin."""
    result: Table = {}
    for origin, messages in table.items():
        for message, names in messages.items():
            result.setdefault(message, {}).update(dict.fromkeys(names.split(), origin))
    return result


ENGINES = {"MKL2017": of.INTEL, "MKLDNN": of.INTEL}
"""Values of `engine` that only forks have. All engines compute the same."""

EFFECT = _by_message(
    {
        of.NVIDIA: {
            "BatchNormParameter": "scale_bias scale_filler bias_filler",
            "PoolingParameter": "torch_pooling",
            "SolverParameter": "rampup_lr rampup_interval max_momentum momentum_power larc larc_policy larc_eta "
            "larc_turbo weight_decay_policy max_weight_decay weight_decay_power",
        },
        of.INTEL: {
            "BatchNormParameter": "filler use_weight_bias bias_term relu",
            "ConvolutionParameter": "relu negative_slope",
            "ConcatParameter": "per_fla_fuse",
            "SolverParameter": "warmup_start_lr local_lr_auto local_gw_ratio",
        },
        of.DEEPLAB: {"ConvolutionParameter": "hole hole_h hole_w"},
        of.DENSENET: {"PoolingParameter": "ceil_mode"},
        of.OPENCL: {"PoolingParameter": "more_kernel_size more_stride more_pad"},
        of.RFCN: {"LossParameter": "pre_fixed_normalizer"},
        of.SSD: {"SolverParameter": "eval_type ap_version show_per_class_result plateau_winsize"},
        of.YOLO: {"SolverParameter": "stagelr stageiter"},
    }
)

WITHOUT_EFFECT = _by_message(
    {
        of.NVIDIA: {
            "NetParameter": "default_forward_type default_backward_type default_forward_math default_backward_math "
            "global_grad_scale global_grad_scale_adaptive eltwise_mem_sharing",
            "LayerParameter": "forward_type backward_type forward_math backward_math debug cudnn_math_override",
            "DataParameter": "cache threads parser_threads",
            "ImageDataParameter": "cache precache threads",
            "DropoutParameter": "engine",
            "SolverParameter": "solver_data_type store_blobs_in_old_format",
        },
        of.INTEL: {
            "NetParameter": "bn_stats_batch_size engine multinode compile_net_state",
            "LayerParameter": "engine multinode mn_activation_param mn_grad_compress_param quantization_param "
            "split_param",
            "BatchNormParameter": "engine stats_batch_size",
            "ConcatParameter": "engine",
            "ConvolutionParameter": "conv_algorithm",
            "EltwiseParameter": "engine",
            "InnerProductParameter": "engine",
            "ReLUParameter": "fuse",
            "SolverParameter": "engine",
        },
        "NVCaffe, Intel's Caffe and TSN": {"DataParameter": "shuffle"},
        of.TSN: {"SolverParameter": "more_device_id richness"},
        of.C3D: {"ImageDataParameter": "show_data"},
        of.DEEPLAB: {"ConvolutionParameter": "strict_dim"},
        of.FLOWNET: {
            "LayerParameter": "reshape_every_iter",
            "DataParameter": "verbose disk_reader_threads huge_video_dataset",
        },
        of.INCREG: {"LayerParameter": "prune_param"},
        of.MOBILENETV2: {"TransformationParameter": "debug_params"},
    }
)

_AXES = 'write "Convolution" with a bottom of 5 axes, and each size once for each axis'
_TSN_CROPS = dict.fromkeys(
    ("fix_crop", "multi_scale", "scale_ratios", "max_distort", "is_flow", "more_fix_crop", "stride"), (of.TSN, "")
)
_COLOURS = dict.fromkeys(
    [
        "apply_probability",
        "contrast_brightness_adjustment",
        "smooth_filtering",
        "max_smooth",
        "max_color_shift",
        "min_contrast",
        "max_contrast",
        "max_rotation_angle",
    ],
    (of.MOBILENETV2, "write brightness, contrast, rotation or noise (docs/data.md)"),
)
_RESIZED = "write random_resized_crop (docs/data.md), or resize the images beforehand"
_SLICES = dict.fromkeys(
    [
        "preselection_file",
        "preselection_label",
        "range_start",
        "range_end",
        "rand_permute",
        "rand_permute_order",
        "rand_permute_seed",
        "slice_point",
        "encoding",
        "subtract",
        "permute_every_iter",
        "block_size",
        "limit_samples",
    ],
    (of.FLOWNET, "it belongs to its CustomData layer"),
)
_PRUNING = dict.fromkeys(
    [
        "prune_method",
        "AA",
        "acc_borderline",
        "target_reg",
        "iter_size_prune",
        "iter_size_losseval",
        "iter_size_retrain",
        "iter_size_final_retrain",
        "losseval_interval",
        "retrain_test_interval",
    ],
    (of.INCREG, "train without, or prune with Caffe_IncReg"),
)

REFUSED: dict[str, dict[str, tuple[str, str]]] = {
    "BatchNormParameter": {
        "update_global_stats": (
            of.DEEPLAB,
            "remove it: statistics are updated in TRAIN unless use_global_stats is true",
        ),
    },
    "ConvolutionParameter": {
        "filter_group": (of.C3D, _AXES),
        "kernel_depth": (of.C3D, _AXES),
        "temporal_pad": (of.C3D, _AXES),
        "temporal_stride": (of.C3D, _AXES),
    },
    "DataParameter": {"side": (of.YOLO, ""), **_SLICES},
    "DropoutParameter": {
        "sample_weights_test": (of.SEGNET, ""),
        "scale_train": ("py-faster-rcnn", "remove it: this layer scales while training"),
    },
    "FillerParameter": {"scale": (of.INTEL, 'write type: "gaussian" with an explicit std')},
    "ImageDataParameter": {
        "ignore_label": (of.DEEPLAB, ""),
        "is_flow": (of.C3D, ""),
        "label_type": (of.DEEPLAB, ""),
        "min_height": (of.INTEL, "write new_height and new_width"),
        "min_width": (of.INTEL, "write new_height and new_width"),
        "new_length": (of.C3D, ""),
        "normalize": ("DSS", "write scale: 0.00392156862745098 in transform_param"),
        "num_truth_channels": (of.C3D, ""),
        "truth_scale": (of.C3D, ""),
        "use_image": (of.C3D, ""),
        "use_temporal_jitter": (of.C3D, ""),
    },
    "LossParameter": {
        "class_weighting": (of.SEGNET, 'write "InfogainLoss" with a matrix that has the weights on its diagonal'),
        "label_smoothing": (of.INTEL, 'write "InfogainLoss" with a matrix of smoothed labels'),
        "weight_by_label_freqs": (of.SEGNET, 'write "InfogainLoss" with a matrix that has the weights on its diagonal'),
    },
    "PoolingParameter": {
        "avg_include_pad": (of.INTEL, ""),
        "axis": (of.OPENCL, ""),
        "dilation": (of.OPENCL, ""),
        "kernel_depth": (of.C3D, ""),
        "temporal_pad": (of.C3D, ""),
        "temporal_stride": (of.C3D, ""),
    },
    "SolverParameter": {
        "disabled_update": (of.INTEL, "write base_lr: 0"),
        "stepearly": ("junhyukoh's caffe-lstm", 'write lr_policy: "plateau" (docs/solvers.md)'),
        "test_offset": (of.INTEL, "set test_initialization and test_interval"),
        **_PRUNING,
    },
    "TransformationParameter": {
        "allow_upscale": (of.NVIDIA, _RESIZED),
        "crop_h": (of.SSD, ""),
        "crop_height": (of.DEEPLAB, ""),
        "crop_w": (of.SSD, ""),
        "crop_width": (of.DEEPLAB, ""),
        "distort_param": (of.SSD, "write brightness, contrast, saturation and hue (docs/data.md)"),
        "emit_constraint": (of.SSD, ""),
        "expand_param": (of.SSD, ""),
        "flow": (of.INTEL, ""),
        "horizontal_stretch_lower": (of.NVIDIA, _RESIZED),
        "horizontal_stretch_upper": (of.NVIDIA, _RESIZED),
        "img_rand_resize_lower": (of.NVIDIA, _RESIZED),
        "img_rand_resize_upper": (of.NVIDIA, _RESIZED),
        "more_resize_param": (of.MOBILENETYOLO, ""),
        "noise_param": (of.SSD, "write noise (docs/data.md), which adds Gaussian noise"),
        "pad": (of.INTEL, ""),
        "rand_resize_ratio_lower": (of.NVIDIA, _RESIZED),
        "rand_resize_ratio_upper": (of.NVIDIA, _RESIZED),
        "random_aspect_ratio_param": (of.INTEL, _RESIZED),
        "random_resize_param": (of.INTEL, _RESIZED),
        "resize_param": (of.SSD, "resize the images beforehand (docs/data.md)"),
        "scale_factors": (of.DEEPLAB, ""),
        "vertical_stretch_lower": (of.NVIDIA, _RESIZED),
        "vertical_stretch_upper": (of.NVIDIA, _RESIZED),
        **_TSN_CROPS,
        **_COLOURS,
    },
}
"""Message -> field -> origin, and the alternative if there is one."""

OPTIONS: dict[str, str] = {
    name: origin
    for origin, names in {
        of.SSD: "annotated_data_param detection_evaluate_param detection_output_param multibox_loss_param norm_param "
        "permute_param prior_box_param",
        of.RCNN: "roi_pooling_param smooth_l1_loss_param",
        of.RFCN: "box_annotator_ohem_param psroi_pooling_param",
        "PVANET": "proposal_param",
        "Mask R-CNN": "roi_align_param",
        "Deformable ConvNets": "deformable_convolution_param deformable_psroi_pooling_param",
        "MNC": "mask_resize_param roi_warping_param",
        of.CASCADE: "bbox_reg_param box_group_output_param box_output_param decode_bbox_param detection_accuracy_param "
        "detection_data_param detection_group_accuracy_param detection_group_loss_param detection_param "
        "eval_data_param frcnn_output_param image_gt_data_param proposal_target_param scale_route_param",
        "YOLO and MS-CNN, each in its own meaning": "detection_loss_param",
        of.YOLO: "eval_detection_param region_loss_param reorg_param segmentation_evaluate_param "
        "yolo_detection_output_param yolo_seg_param yolov3_detection_output_param yolov3_param",
        of.NVIDIA: "detectnet_augmentation_param detectnet_groundtruth_param trt_param",
        "SegNet and YOLO, each in its own meaning": "upsample_param",
        "SegNet, PSPNet and TSN, each in its own meaning": "bn_param",
        of.SEGNET: "dense_image_data_param",
        "DeepLab and PSPNet": "interp_param",
        of.DEEPLAB: "adaptive_bias_channel_param bias_channel_param dense_crf_param domain_transform_param "
        "mat_read_param mat_write_param seg_accuracy_param unique_label_param",
        "DeconvNet": "unpooling_param",
        "ParseNet": "parse_evaluate_param",
        of.TSN: "batch_reduction_param seg_data_param",
        of.C3D: "convolution3d_param pooling3d_param",
        "C3D, SSD and TSN, each in its own meaning": "video_data_param",
        of.FLOWNET: "accum_param augmentation_param black_augmentation_param coeff_schedule_param correlation_param "
        "downsample_param flow_warp_param l1_loss_param lpq_loss_param mean_param reader_param resample_param "
        "writer_param",
        "ShuffleNet": "shuffle_channel_param",
        "SENet": "axpy_param",
        "MobileNet": "relu6_param",
        "deep compression": "cconv_depthwise_param cconvolution_param cinner_product_param",
        of.OCR: "ctc_decoder_param denseblock_param reverse_time_param transpose_param",
        of.OPENCL: "mergecrop_param",
        of.OPENVINO: "embedding_extractor_param grn_param scale_filter_param",
        "GroupNorm": "group_norm_param",
        "YOLOv4": "mish_param",
        of.JOLIBRAIN: "dice_coef_loss_param selu_dropout_param selu_param",
        of.INTEL: "spatial_dropout_param",
        of.HAPPYNEAR: "apl_param eltwise_affine_param flip_param insanity_param noise_param normalize_param "
        "rrelu_param smoothl1_param triplet_loss_param",
        "xiaolonw's and MobileNetv2's forks": "resize_param",
        of.XIAOLONW: "label_drop_param pose_image_data_param",
        "Wen's caffe-face": "center_loss_param",
        "SphereFace": "margin_inner_product_param",
        "L-Softmax": "largemargin_inner_product_param",
        "focal loss": "focal_loss_param",
        "junhyukoh's caffe-lstm": "lstm_param",
        "CRNN": "continuation_indicator_param ctc_loss_param labelsequence_accuracy_param",
        "jolibrain's fork and caffe_ocr": "reverse_param",
        of.OPENPOSE: "imresize_param nms_param op_transform_param",
        of.SYNOPSYS: "crop_and_resize_param depth_to_space_param hard_sigmoid_param layer_norm_param "
        "pyramid_roi_align_param resize_bilinear_param resize_nearest_neighbor_param space_to_depth_param",
        "ArcFace": "arcface_param",
        "AM-Softmax": "label_specific_add_param",
        of.MOBILENETYOLO: "assisted_excitation_param",
    }.items()
    for name in names.split()
}
"""Options of LayerParameter that belong to a fork's layer type -> origin."""
