"""Layers that run in place must not change the shape of their bottom."""

from __future__ import annotations

import re

import pytest

import caffe
from caffe.errors import LayerError

INPUT = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 5 } } }
layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 3 } } }
layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 2 } } }
layer { name: "z" type: "Input" top: "z" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 5 } } }
"""


def build(tmp_path, layer: str) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(f'{INPUT}layer {{ name: "l" bottom: "x" top: "x" {layer} }}\n')
    return caffe.Net(path, caffe.TRAIN)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('type: "Flatten"', "2 120 (240)"),
        ('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', "2 120 (240)"),
        ('type: "Pooling" pooling_param { kernel_size: 2 }', "2 4 5 4 (160)"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }', "2 2 4 3 (48)"),
        ('type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 2 }', "2 4 7 6 (336)"),
        ('type: "InnerProduct" inner_product_param { num_output: 7 }', "2 7 (14)"),
        ('type: "ArgMax" argmax_param { axis: 1 }', "2 1 6 5 (60)"),
        ('type: "Reduction" reduction_param { axis: 1 }', "2 (2)"),
        ('type: "Tile" tile_param { axis: 1 tiles: 2 }', "2 8 6 5 (480)"),
        ('type: "Im2col" convolution_param { kernel_size: 3 }', "2 36 4 3 (864)"),
        ('type: "SPP" spp_param { pyramid_height: 1 }', "2 4 1 1 (8)"),
        ('type: "Concat" bottom: "z"', "2 8 6 5 (480)"),
        ('type: "BatchReindex" bottom: "i"', "3 4 6 5 (360)"),
    ],
)
def test_another_shape_in_place_is_refused(tmp_path, layer, shape):
    kind = layer.split('"')[1]
    says = (
        f'net.prototxt:5: layer "l" ({kind}): works in place on "x" of shape 2 4 6 5 (240), but its top has shape '
        f"{shape}; give the top another name"
    )
    with pytest.raises(LayerError, match=re.escape(says)):
        build(tmp_path, layer)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Reshape" reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }',
        'type: "Pooling" pooling_param { kernel_size: 3 pad: 1 }',
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 }',
        'type: "Crop" bottom: "z"',
    ],
)
def test_the_same_shape_in_place_is_allowed(tmp_path, layer):
    net = build(tmp_path, layer)
    net.forward()
    net.backward()


def test_reshape_refuses_another_shape_in_place(tmp_path):
    net = build(tmp_path, 'type: "Crop" bottom: "z" crop_param { axis: 2 }')
    net.blobs["z"].reshape(2, 4, 3, 2)
    says = (
        'net.prototxt:5: layer "l" (Crop): works in place on "x" of shape 2 4 6 5 (240), but its top has shape 2 4 3 2'
    )
    with pytest.raises(LayerError, match=re.escape(says)):
        net.reshape()
    assert net.blobs["x"].shape == (2, 4, 6, 5)


def test_filter_in_place_is_refused(tmp_path):
    """Its top has fewer items than its bottom, depending on the values."""
    with pytest.raises(LayerError, match=r"works in place on .'x'.*give the tops names of their own"):
        build(tmp_path, 'type: "Filter" bottom: "s"')
