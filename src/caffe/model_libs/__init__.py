"""The functions of SSD's `caffe.model_libs`, with which its scripts build nets in a NetSpec.

Names, arguments and the layers that each function adds are those of weiliu89/caffe, so that scripts such as
ssd_pascal.py run. Functions of your own need none of them; see docs/models.md for the models of this package.
"""

from caffe.model_libs.blocks import (
    ConvBNLayer,
    CreateAnnotatedDataLayer,
    InceptionTower,
    ResBody,
    UnpackVariable,
    check_if_exist,
    make_if_not_exist,
)
from caffe.model_libs.bodies import ResNet101Body, ResNet152Body, VGGNetBody, ZFNetBody
from caffe.model_libs.head import CreateMultiBoxHead
from caffe.model_libs.inception import InceptionV3Body

__all__ = [
    "ConvBNLayer",
    "CreateAnnotatedDataLayer",
    "CreateMultiBoxHead",
    "InceptionTower",
    "InceptionV3Body",
    "ResBody",
    "ResNet101Body",
    "ResNet152Body",
    "UnpackVariable",
    "VGGNetBody",
    "ZFNetBody",
    "check_if_exist",
    "make_if_not_exist",
]
