"""Fields that forks of Caffe add: each is applied, ignored with a message, or rejected, and files keep their values."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

import caffe
from caffe.errors import NetError, ProtoError, SolverError
from caffe.layers import layer_class
from caffe.net_spec import assign_proto
from caffe.proto import caffe_pb2, text, upgrade
from caffe.proto.forks import effects, fields
from caffe.solver.momentum import Momentum
from caffe.solver.options import check_settings
from caffe.solver.policy import Policy
from tests.conftest import ROOT

MESSAGES = caffe_pb2.DESCRIPTOR.message_types_by_name
BVLC = {"V1LayerParameter": "LayerParameter"}  # which gets the same fields with the same treatment


def net(source: str) -> caffe_pb2.NetParameter:
    """Read a net and upgrade it."""
    param = text.parse(source, caffe_pb2.NetParameter(), "n.prototxt")
    upgrade.upgrade_net(param, "n.prototxt")
    return param


def solver(source: str) -> caffe_pb2.SolverParameter:
    return text.parse(source, caffe_pb2.SolverParameter(), "s.prototxt")


def added() -> set[tuple[str, str]]:
    """Message and name of each field that forks add to a message of BVLC's."""
    bvlc = re.findall(r"^message (\w+)", (ROOT / "src/caffe/proto/caffe.proto").read_text(), re.MULTILINE)
    return {
        (BVLC.get(name, name), field.name)
        for name in bvlc
        for field in MESSAGES[name].fields
        if field.number >= effects.FIRST
    }


def test_every_field_of_a_fork_has_exactly_one_fate():
    tables = [
        {(message, name) for message, names in table.items() for name in names}
        for table in (fields.EFFECT, fields.WITHOUT_EFFECT, fields.REFUSED, {"LayerParameter": fields.OPTIONS})
    ]
    assert set.union(*tables) == added()
    assert sum(map(len, tables)) == len(added())


def test_lstm_does_not_take_the_options_of_lstm_in_small_letters():
    assert layer_class("LSTM").options == "recurrent_param"
    assert (
        caffe.to_proto(caffe.layers.LSTM(*caffe.layers.Input(ntop=2), num_output=3)).layer[1].recurrent_param.num_output
        == 3
    )


FAMILIES = {
    "ssd": """
        layer { name: "d" type: "AnnotatedData" top: "d" top: "l" include { phase: TRAIN }
          transform_param { resize_param { prob: 0.1 resize_mode: WARP height: 320 width: 320 interp_mode: LINEAR }
            resize_param { prob: 0.9 height: 352 width: 352 interp_mode: [AREA, CUBIC] }
            emit_constraint { emit_type: CENTER } distort_param { brightness_prob: 0.5 brightness_delta: 32 }
            expand_param { prob: 0.5 max_expand_ratio: 4 } }
          annotated_data_param { label_map_file: "map" yolo_data_type: 1
            batch_sampler { sampler { min_scale: 0.3 } sample_constraint { min_jaccard_overlap: 0.1 } } } }
        layer { name: "p" type: "Permute" bottom: "d" top: "p" permute_param { order: 0 order: [2, 3, 1] } }
        layer { name: "b" type: "PriorBox" prior_box_param { min_size: 30 aspect_ratio: 2 variance: [0.1, 0.2] } }
        layer { name: "m" type: "MultiBoxLoss" multibox_loss_param { mining_type: NONE code_type: CORNER } }
        layer { name: "o" type: "DetectionOutput" detection_output_param { nms_param { nms_threshold: 0.45 }
          save_output_param { output_format: "VOC" } code_type: CENTER_SIZE keep_top_k: 200 } }
        layer { name: "n" type: "Normalize" norm_param { across_spatial: false scale_filler { value: 20 } } }
    """,
    "rcnn": """
        layer { name: "r" type: "ROIPooling" roi_pooling_param { pooled_w: 7 pooled_h: 7 spatial_scale: 0.0625 } }
        layer { name: "l" type: "SmoothL1LossOHEM" smooth_l1_loss_param { sigma: 3 }
          loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 128 } }
        layer { name: "q" type: "PSROIPooling" psroi_pooling_param { output_dim: 21 group_size: 7 } }
        layer { name: "g" type: "BoxGroupOutput" box_group_output_param { box_group_param { field_h: [1, 2] } } }
        layer { name: "x" type: "DecodeBBox" bbox_reg_param { bbox_mean: [0, 0, 0, 0] cls_aware: false } }
    """,
    "yolo": """
        layer { name: "u" type: "Upsample" upsample_param { scale: 2 } }
        layer { name: "r" type: "Reorg" reorg_param { stride: 2 } }
        layer { name: "y" type: "Yolov3" yolov3_param { biases: [10, 14] mask: 3 num: 3 use_logic_gradient: false } }
        layer { name: "e" type: "EvalDetection" eval_detection_param { score_type: MULTIPLY nms: 0.45 } }
    """,
    "segmentation": """
        layer { name: "b" type: "BN" bn_param { slope_filler { value: 1 } frozen: true momentum: 0.95 } }
        layer { name: "s" type: "BN" bn_param { scale_filler { value: 1 } bn_mode: INFERENCE } }
        layer { name: "i" type: "Interp" interp_param { zoom_factor: 8 } }
        layer { name: "a" type: "SegAccuracy" seg_accuracy_param { metric: PixelIOU ignore_label: 255 } }
        layer { name: "f" type: "Correlation" correlation_param { max_displacement: 20 stride_2: 2 } }
    """,
    "video": """
        layers { name: "v" type: VIDEO_DATA top: "d" image_data_param { source: "l" new_length: 16 use_image: true } }
        layers { name: "c" type: CONVOLUTION3D bottom: "d" top: "c" blobs_lr: 1
          convolution_param { num_output: 64 kernel_size: 3 kernel_depth: 3 temporal_pad: 1 } }
        layers { name: "p" type: POOLING3D bottom: "c" top: "p" pooling_param { kernel_depth: 2 temporal_stride: 2 } }
        layers { name: "w" type: RESIZE bottom: "p" top: "w" resize_param { height: 64 width: 48 } }
    """,
    "sequences": """
        layer { name: "l" type: "Lstm" lstm_param { num_output: 128 clipping_threshold: 0.1 } }
        layer { name: "t" type: "Transpose" transpose_param { dim: [3, 2, 0, 1] } }
        layer { name: "c" type: "CtcLoss" ctc_loss_param { alphabet_size: 11 time_step: 13 blank_label: 10 } }
    """,
    "settings": """
        default_forward_type: FLOAT16 default_backward_math: FLOAT global_grad_scale: 1000. bn_stats_batch_size: 32
        multinode { compress_layer_type_list { layer_type: "InnerProduct" } }
        layer { name: "c" type: "Convolution" engine: "MKL2017" forward_type: FLOAT
          convolution_param { num_output: 3 kernel_size: 1 engine: MKLDNN conv_algorithm: "winograd" }
          quantization_param { bw_layer_in: 8 scale_params: [1.5, 2] is_negative_input: true } }
    """,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_each_family_keeps_all_fields(family):
    param = text.parse(FAMILIES[family], caffe_pb2.NetParameter())
    printed = text.dumps(param)
    assert text.parse(printed, caffe_pb2.NetParameter()) == param
    assert "more_" not in printed
    upgrade.upgrade_net(param, "n.prototxt")
    assert text.parse(text.dumps(param), caffe_pb2.NetParameter()) == param
    assert caffe_pb2.NetParameter.FromString(param.SerializeToString()) == param


def test_a_file_of_each_family_has_the_values():
    ssd, video = (net(FAMILIES[name]) for name in ("ssd", "video"))
    transform = ssd.layer[0].transform_param
    assert (transform.resize_param.height, [other.height for other in transform.more_resize_param]) == (320, [352])
    assert list(ssd.layer[1].permute_param.order) == [0, 2, 3, 1]
    assert [layer.type for layer in video.layer] == ["VideoData", "Convolution3D", "Pooling3D", "RESIZE"]
    assert video.layer[1].convolution_param.kernel_depth == 3
    assert (video.layer[3].resize_param.height, video.layer[3].resize_param.width) == (64, 48)


def test_layers_of_another_phase_and_of_forks_do_not_hinder_a_net():
    param = net(FAMILIES["ssd"].split('layer { name: "p"')[0] + 'layer { name: "i" type: "Input" top: "x" }')
    assert "x" in caffe.Net(param, caffe.TEST).blobs
    param.layer[0].transform_param.pad = 3
    with pytest.raises(NetError, match=r"\(AnnotatedData\): transform_param.pad comes from a fork"):
        caffe.Net(param, caffe.TRAIN)


# -- fields with an effect ---------------------------------------------------------------------------------------------

POOL = 'layer {{ name: "i" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 1, 5, 7] }} }} }} ' + (
    'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {} }} }}'
)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ("kernel_size: 2 stride: 2 ceil_mode: false", (1, 1, 2, 3)),
        ("kernel_size: 2 stride: 2 ceil_mode: true", (1, 1, 3, 4)),
        ("kernel_size: 2 stride: 2 torch_pooling: true", (1, 1, 2, 3)),
        ("kernel_size: 2 stride: 2 torch_pooling: false", (1, 1, 3, 4)),
        ("kernel_size: 2 kernel_size: 3 stride: [2, 1]", (1, 1, 3, 5)),
        ("kernel_size: [2, 3] pad: [0, 1] ceil_mode: false", (1, 1, 4, 7)),
    ],
)
def test_pooling_in_the_words_of_forks(options, shape):
    assert caffe.Net(net(POOL.format(options)), caffe.TEST).blobs["y"].data.shape == shape


def test_what_is_translated_reads_as_in_stock_caffe():
    param = net(POOL.format("kernel_size: 2 kernel_size: 3 ceil_mode: false"))
    assert text.dumps(param.layer[1].pooling_param) == "kernel_h: 2\nkernel_w: 3\nround_mode: FLOOR\n"
    assert upgrade.needs_upgrade(text.parse(POOL.format("ceil_mode: true"), caffe_pb2.NetParameter()))
    conv = net('layer { type: "Convolution" convolution_param { hole: 2 hole: 3 } }').layer[0].convolution_param
    assert text.dumps(conv) == "dilation: 2\ndilation: 3\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("pooling_param { ceil_mode: false round_mode: CEIL }", "ceil_mode and round_mode contradict each other"),
        ("pooling_param { kernel_size: [2, 2, 2] }", "kernel_size is given 3 times.*opencl branch"),
        ("convolution_param { hole: 2 dilation: 3 }", "hole and dilation contradict each other"),
        ("convolution_param { hole_h: 2 }", "hole is to be given as hole, or as hole_h and hole_w"),
    ],
)
def test_contradictions_are_errors(source, error):
    with pytest.raises(ProtoError, match=f'n.prototxt: layer "a" .*{error}'):
        net(f'layer {{ name: "a" type: "A" {source} }}')


NORM = (
    'layer {{ name: "i" type: "Input" top: "x" input_param {{ shape {{ dim: [4, 3, 2, 5] }} }} }} '
    'layer {{ name: "n" type: "BatchNorm" bottom: "x" top: "y" {} }}'
)
SCALE = 'layer { name: "s" type: "Scale" bottom: "y" top: "z" scale_param { bias_term: true } }'


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ("scale_bias: true", (1, 0)),
        ("scale_filler { value: 2 } bias_filler { value: 3 }", (2, 3)),
        ("filler { value: 2 } bias_filler { value: 3 }", (2, 3)),
        ("use_weight_bias: true bias_term: false", (1, None)),
    ],
)
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_batch_norm_with_a_scale_of_its_own(options, first, phase):
    """The layer gives the same results as BatchNorm followed by Scale, forward and backward, and has five blobs."""
    one = caffe.Net(net("force_backward: true " + NORM.format(f"batch_norm_param {{ {options} }}")), phase)
    two = caffe.Net(net("force_backward: true " + NORM.format("") + SCALE), phase)
    blobs = one.params["n"]
    assert [blob.data.shape for blob in blobs] == [(3,), (3,), (1,), (3,), (3,)][: len(blobs)]
    assert (blobs[3].data[0], blobs[4].data[0] if len(blobs) == 5 else None) == first
    rng = np.random.default_rng(3)
    for blob, twin in zip(blobs, [*two.params["n"], *two.params["s"]], strict=False):
        blob.data[...] = twin.data[...] = rng.uniform(0.5, 1.5, blob.data.shape)
    two.blobs["x"].data[...] = one.blobs["x"].data[...] = rng.normal(size=(4, 3, 2, 5))
    one.blobs["y"].diff[...] = two.blobs["z"].diff[...] = rng.normal(size=(4, 3, 2, 5))
    one.forward(), two.forward()
    np.testing.assert_allclose(one.blobs["y"].data, two.blobs["z"].data, rtol=1e-5, atol=1e-6)
    one.backward(), two.backward()
    np.testing.assert_allclose(one.blobs["x"].diff, two.blobs["x"].diff, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(blobs[3].diff, two.params["s"][0].diff, rtol=1e-4, atol=1e-5)


def test_a_filler_of_intel_before_a_scale_adds_nothing():
    param = net(NORM.format("batch_norm_param { filler { value: 1 } }") + SCALE)
    assert len(caffe.Net(param, caffe.TRAIN).params["n"]) == 3
    assert param.layer[1].batch_norm_param.filler.value == 1


CONV = (
    'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: [2, 3, 6, 5] } } } '
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 '
    'weight_filler { type: "xavier" } } } '
    'layer { name: "n" type: "BatchNorm" bottom: "c" top: "y" batch_norm_param { scale_bias: true } } '
)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_the_optimised_net_has_the_scale_too(phase):
    """Folding into the convolution and merging with a following Scale include the layer's own scale and bias."""
    one = caffe.Net(net(CONV + SCALE), phase)
    rng = np.random.default_rng(3)
    for name in ("n", "s"):
        for blob in one.params[name]:
            blob.data[...] = rng.uniform(0.5, 1.5, blob.data.shape)
    one.blobs["x"].data[...] = rng.normal(size=(2, 3, 6, 5))
    one.forward()
    x = one.blobs["c"].data.copy()
    mean, variance, factor, scale, bias = (blob.data.copy() for blob in one.params["n"])
    if phase == caffe.TRAIN:
        mean, variance, factor = x.mean((0, 2, 3)), x.var((0, 2, 3)), np.ones(1)
    mean, variance, scale, bias = (part[:, None, None] for part in (mean / factor, variance / factor, scale, bias))
    y = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    weight, shift = (blob.data[:, None, None] for blob in one.params["s"])
    np.testing.assert_allclose(one.blobs["z"].data, y * weight + shift, rtol=1e-4, atol=1e-5)
    one.blobs["z"].data[...] = 0
    one.evaluate()
    np.testing.assert_allclose(one.blobs["z"].data, y * weight + shift, rtol=1e-4, atol=1e-5)


LOSS = (
    'layer {{ name: "i" type: "Input" top: "x" top: "t" input_param {{ shape {{ dim: [4, 3] }} shape {{ dim: 4 }} }} '
    "}} "
    'layer {{ name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "y" loss_param {{ {} }} }}'
)


def test_a_relu_inside_a_convolution_or_batch_norm():
    """In Intel's Caffe, relu with negative_slope replaces a ReLU layer; a slope alone has no effect."""
    source = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 1, 2, 2] } } }
      layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 1 kernel_size: 1 %s
              weight_filler { type: "constant" value: 2 } } }
      layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" batch_norm_param { use_global_stats: true %s } }"""
    x = np.array([-1, 2, -3, 4, 5, -6, 7, -8], np.float32).reshape(2, 1, 2, 2)
    for conv, norm, sloped, cut in (
        ("relu: true negative_slope: 0.5", "", 0.5, 0),
        ("negative_slope: 0.5", "relu: true", 1, 1),
        ("relu: false", "relu: false", 1, 0),
    ):
        param = net(source % (conv, norm))
        made = caffe.Net(param, caffe.TEST)
        made.params["b"][0].data[...], made.params["b"][1].data[...], made.params["b"][2].data[...] = 0, 1, 1
        made.blobs["x"].data[...] = x
        middle = np.where(x > 0, 2 * x, 2 * sloped * x)
        want = np.maximum(middle, 0) if cut else middle
        np.testing.assert_allclose(made.forward()["b"], want / np.sqrt(1 + 1e-5), rtol=1e-6)
        made.optimize()
        np.testing.assert_allclose(made.forward()["b"], want / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_normalization_by_a_fixed_number():
    """Each of 4 items has the loss log(3). PRE_FIXED has its own number, so that 3 is still NONE, as in BVLC Caffe."""
    results = {}
    for options in ("normalization: PRE_FIXED pre_fixed_normalizer: 8", "normalization: NONE", "normalization: 3"):
        results[options] = float(caffe.Net(net(LOSS.format(options)), caffe.TRAIN).forward()["y"])
    assert list(results.values()) == pytest.approx([np.log(3) / 2, 4 * np.log(3), 4 * np.log(3)])


def rates(source: str, iterations: list[int]) -> list[float]:
    param = solver(source)
    policy = Policy.find(param.lr_policy)(param)
    return [policy.at(iteration, policy.step_at(iteration, 0)) for iteration in iterations]


def test_rates_of_forks():
    stages = 'lr_policy: "multifixed" stagelr: [0.1, 0.2, 0.3] stageiter: [10, 20, 30]'
    assert rates(stages, [0, 10, 11, 20, 30, 31]) == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    warm = 'lr_policy: "fixed" base_lr: 1 warmup_iter: 4 warmup_start_lr: 0.2'
    assert rates(warm, [0, 1, 2, 4]) == pytest.approx([0.2, 0.4, 0.6, 1])
    ramp = 'lr_policy: "fixed" base_lr: 1 rampup_interval: 4 rampup_lr: 0.2'
    assert rates(ramp, [0, 2, 4]) == pytest.approx([0.2, 0.4, 1])
    poly = 'lr_policy: "poly" base_lr: 1 max_iter: 10 power: 2 min_lr: 0.2'
    assert rates(poly, [0, 5, 10]) == pytest.approx([1, 0.4, 0.2])


def test_momenta_of_nvcaffe():
    param = solver('momentum: 0.5 momentum_policy: "poly" max_momentum: 0.9 momentum_power: 2 max_iter: 10')
    policy = Momentum.find("poly")(param)
    assert [policy.value(iteration) for iteration in (0, 5, 10)] == pytest.approx([0.5, 0.6, 0.9])
    assert Momentum.find("fixed")(param).value(7) == 0.5


def test_a_list_of_devices():
    param = solver('device_id: [3, 1] net: "a" device_id: 0')
    assert (param.device_id, list(param.more_device_id)) == (3, [1, 0])
    assert text.dumps(param).count("device_id: ") == 3
    with pytest.raises(ProtoError, match="base_lr twice"):
        solver("base_lr: 1 base_lr: 1")
    with pytest.raises(ProtoError, match="expected a number"):
        solver("base_lr: [1, 2]")


# -- fields without an effect, and rejected fields ---------------------------------------------------------------------


def test_fields_without_effect_are_logged_once(caplog):
    with caplog.at_level(logging.WARNING, "caffe"):
        for _ in range(2):
            param = text.parse(FAMILIES["settings"], caffe_pb2.NetParameter())
            upgrade.upgrade_net(param, "settings.prototxt")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "settings.prototxt: no effect on the result, ignored: engine: MKLDNN, conv_algorithm, engine, "
        "quantization_param, bn_stats_batch_size, multinode (Intel's Caffe); forward_type, default_forward_type, "
        "default_backward_math, global_grad_scale (NVCaffe)"
    )


def refusable() -> list[tuple[str, str]]:
    return [(message, name) for message, names in fields.REFUSED.items() for name in names]


def example(message: str, name: str) -> str:
    """Return a value of the field that differs from its default."""
    field = MESSAGES[message].fields_by_name[name]
    if field.message_type is not None:
        return f"{name} {{ }}"
    if field.enum_type is not None:
        return f"{name}: {field.enum_type.values[-1].name}"
    if field.cpp_type == field.CPPTYPE_STRING:
        return f'{name}: "word"'
    return f"{name}: {str(not field.default_value).lower() if field.cpp_type == field.CPPTYPE_BOOL else 77}"


@pytest.mark.parametrize(("message", "name"), refusable())
def test_a_refused_field_is_called_by_its_fork(message, name):
    origin, way_out = fields.REFUSED[message][name]
    expected = rf"{name} .*comes from a fork of Caffe \({re.escape(origin)}\); "
    if message == "SolverParameter":
        with pytest.raises(SolverError, match=expected):
            check_settings(solver(example(message, name) + " base_lr: 1"))
        return
    owner = (
        next(f.name for f in MESSAGES["LayerParameter"].fields if f.message_type is MESSAGES.get(message))
        if (message != "FillerParameter")
        else "inner_product_param { weight_filler"
    )
    options = f"{owner} {{ {example(message, name)} }}" + " }" * (message == "FillerParameter")
    source = f'layer {{ name: "a" type: "DummyData" top: "a" {options} }}'
    with pytest.raises(NetError, match=f'layer "a" .*{expected}'):
        caffe.Net(net(source), caffe.TEST)
    assert "did you mean" not in way_out


def test_a_refused_field_may_say_what_caffe_does_anyway():
    source = 'layer { name: "a" type: "Input" top: "a" dropout_param { scale_train: true } pooling_param { axis: 1 } }'
    assert caffe.Net(net(source), caffe.TEST).blobs
    check_settings(solver("base_lr: 1 larc: false test_offset: 0"))


def test_a_layer_honours_a_field_that_others_refuse():
    layer = net('layer { type: "D" transform_param { resize_param { height: 3 } crop_h: 2 } }').layer[0]
    with pytest.raises(NetError, match="crop_h"):
        effects.refuse_layer(layer, ("TransformationParameter.resize_param",))
    effects.refuse_layer(layer, ("TransformationParameter.resize_param", "TransformationParameter.crop_h"))


def test_scripts_set_fields_of_forks():
    layer = caffe.layers.Permute(caffe.layers.Input(shape={"dim": [1, 2]}), order=[0, 1])
    assert list(caffe.to_proto(layer).layer[1].permute_param.order) == [0, 1]
    pool = caffe_pb2.PoolingParameter()
    assign_proto(pool, "ceil_mode", False)
    assert pool.HasField("ceil_mode")
    assert caffe.params.PriorBox.CENTER_SIZE == caffe_pb2.PriorBoxParameter.CENTER_SIZE
