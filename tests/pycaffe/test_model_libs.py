"""SSD's model_libs, and the additions to NetSpec that SSD's scripts use."""

from __future__ import annotations

import math

import pytest

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.model_libs import (
    ConvBNLayer,
    CreateAnnotatedDataLayer,
    CreateMultiBoxHead,
    InceptionV3Body,
    ResNet101Body,
    ResNet152Body,
    VGGNetBody,
    ZFNetBody,
)
from caffe.net_spec import NoSuchBlob
from caffe.proto import caffe_pb2


def start(side: int) -> caffe.NetSpec:
    net = caffe.NetSpec()
    net.data = L.Input(shape={"dim": [1, 3, side, side]})
    return net


def ssd(net: caffe.NetSpec, classes: int) -> list[object]:
    """SSD300 on VGG-16, as in ssd_pascal.py."""
    VGGNetBody(net, from_layer="data", fully_conv=True, reduced=True, dilated=True, dropout=False)
    source = net.keys()[-1]
    for block, (few, many, pad, stride) in enumerate([(256, 512, 1, 2), (128, 256, 1, 2), *[(128, 256, 0, 1)] * 2], 6):
        ConvBNLayer(net, source, f"conv{block}_1", False, True, few, 1, 0, 1)
        ConvBNLayer(net, f"conv{block}_1", f"conv{block}_2", False, True, many, 3, pad, stride)
        source = f"conv{block}_2"
    return CreateMultiBoxHead(
        net,
        data_layer="data",
        from_layers=["conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"],
        use_batchnorm=False,
        min_sizes=[21.0, 45.0, 99.0, 153.0, 207.0, 261.0],
        max_sizes=[45.0, 99.0, 153.0, 207.0, 261.0, 315.0],
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        steps=[8, 16, 32, 64, 100, 300],
        normalizations=[20, -1, -1, -1, -1, -1],
        num_classes=classes,
        share_location=True,
        flip=True,
        clip=False,
        prior_variance=[0.1, 0.1, 0.2, 0.2],
        kernel_size=3,
        pad=1,
    )


def test_ssd_has_the_layers_of_the_public_file():
    net = caffe.NetSpec()
    net.data, net.label = CreateAnnotatedDataLayer(
        "coco_lmdb",
        batch_size=2,
        label_map_file="labels.prototxt",
        transform_param={"mirror": True, "resize_param": {"height": 300, "width": 300, "interp_mode": [P.Resize.AREA]}},
        batch_sampler=[{"sampler": {"min_scale": 0.3}, "max_trials": 50}],
    )
    boxes = ssd(net, 81)
    boxes.append(net.label)
    net["mbox_loss"] = L.MultiBoxLoss(
        *boxes,
        multibox_loss_param={"num_classes": 81, "code_type": P.PriorBox.CENTER_SIZE},
        loss_param={"normalization": P.Loss.VALID},
        include={"phase": caffe_pb2.Phase.Value("TRAIN")},
        propagate_down=[True, True, False, False],
    )
    proto = net.to_proto()
    by_name = {layer.name: layer for layer in proto.layer}
    assert by_name["data"].include[0].phase == caffe.TRAIN
    assert by_name["data"].annotated_data_param.batch_sampler[0].max_trials == 50
    assert by_name["conv4_3_norm_mbox_priorbox"].bottom == ["conv4_3_norm", "data"]
    assert by_name["fc6"].convolution_param.dilation[:] == by_name["fc6"].convolution_param.pad[:] == [6]
    assert by_name["conv6_2_mbox_conf"].convolution_param.num_output == 6 * 81
    assert list(by_name["mbox_loss"].bottom) == ["mbox_loc", "mbox_conf", "mbox_priorbox", "label"]
    assert proto.layer[-1].name == "mbox_loss"
    assert len(proto.layer) == 99


@pytest.mark.long
def test_ssd_predicts_for_8732_priors():
    net = start(300)
    ssd(net, 21)
    made = caffe.Net(net.to_proto(), caffe.TEST, device="meta")
    assert made.blobs["mbox_loc"].shape[:] == (1, 8732 * 4)
    assert made.blobs["mbox_conf"].shape[:] == (1, 8732 * 21)
    assert made.blobs["mbox_priorbox"].shape[:] == (1, 2, 8732 * 4)


@pytest.mark.parametrize(
    ("build", "side", "blob", "shape", "millions"),
    [
        (lambda n: ZFNetBody(n, "data", fully_conv=True, reduced=True), 224, "fc7", (1, 1024, 8, 8), 7.136384),
        (lambda n: ZFNetBody(n, "data", need_fc8=True), 224, "prob", (1, 1000), 91.717736),
        (lambda n: VGGNetBody(n, "data", nopool=True, fully_conv=True), 224, "fc7", (1, 4096, 7, 7), 139.754752),
        (
            lambda n: VGGNetBody(n, "data", need_fc=False, dilate_pool4=True),
            224,
            "conv5_3",
            (1, 512, 28, 28),
            14.714688,
        ),
        (lambda n: ResNet101Body(n, "data"), 224, "pool5", (1, 2048, 1, 1), 42.50016),
        (lambda n: ResNet152Body(n, "data", use_dilation_conv5=True), 224, "res5c", (1, 2048, 14, 14), 58.143808),
        (lambda n: InceptionV3Body(n, "data", output_pred=True), 299, "softmax_prob", (1, 1008), 23.833744),
    ],
)
def test_bodies_have_the_weights_of_the_papers_nets(build, side, blob, shape, millions):
    net = start(side)
    build(net)
    made = caffe.Net(net.to_proto(), caffe.TEST, device="meta")
    assert made.blobs[blob].shape[:] == shape
    count = sum(
        math.prod(each.shape)
        for layer, blobs in made.params.items()
        for each in blobs
        if made.layer_dict[layer].type != "BatchNorm"
    )
    assert count / 1e6 == millions


def test_fields_of_a_layer_may_be_set_later():
    net = start(8)
    net.conv = L.Convolution(net.data, num_output=2, kernel_size=1)
    net.update("conv", {"dilation": 2, "num_output": 3})
    net.conv.update({"pad": 4})
    net.end = L.Silence(net.conv, ntop=0)
    net.update("end", {"propagate_down": [False]})
    param = net.to_proto().layer[1].convolution_param
    assert (param.num_output, param.dilation[:], param.pad[:]) == (3, [2], [4])
    with pytest.raises(NoSuchBlob, match='no blob "cov"; did you mean "conv"'):
        net.update("cov", {})


def test_frozen_layers_and_normalization_parameters():
    net = start(64)
    VGGNetBody(net, "data", need_fc=False, freeze_layers=["conv1_1", "relu9"])
    ConvBNLayer(
        net, "conv5_3", "x", True, True, 4, [1, 3], [0, 1], 1, use_scale=False, use_global_stats=True, lr_mult=3
    )
    by_name = {layer.name: layer for layer in net.to_proto().layer}
    assert [spec.lr_mult for spec in by_name["conv1_1"].param] == [0, 0]
    assert [spec.lr_mult for spec in by_name["conv1_2"].param] == [1, 2]
    assert by_name["x"].convolution_param.kernel_w == 3
    assert by_name["x_bn"].batch_norm_param.use_global_stats
    assert by_name["x_bias"].param[0].lr_mult == 0
    assert by_name["x"].param[0].lr_mult == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_classes": 0}, "num_classes is 0, expected a number above 0"),
        ({"data_layer": "image"}, 'the net has no layer "image"'),
        ({"steps": [1, 2]}, "steps has 2 values, expected one for each of the 1 from_layers"),
        ({"min_sizes": []}, "min_sizes has 0 values"),
    ],
)
def test_heads_that_do_not_fit(change, says):
    net = start(8)
    with pytest.raises(ValueError, match=says):
        CreateMultiBoxHead(net, **{"num_classes": 2, "from_layers": ["data"], "min_sizes": [3], **change})
