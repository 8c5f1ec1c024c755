"""Layers that read images with bounding boxes of objects."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from torch import Tensor

from caffe.data.databases.annotated import AnnotatedReader, LabelReader, typed
from caffe.data.pipeline.samplers import Samplers
from caffe.data.pipeline.targets import Boxes
from caffe.data.streams.records import RecordStream
from caffe.errors import DataError
from caffe.layers.data import SSD_CROPS, Data

__all__ = ["AnnotatedData"]

_OF_OTHERS = ("yolo_data_type", "yolo_data_jitter", "train_diffcult", "single_class", "seg_scales")
_STEPS = tuple(f"TransformationParameter.{name}" for name in ("distort_param", "emit_constraint", "expand_param"))
_MOVES = "moves objects away from their boxes; write batch_sampler or expand_param"


class AnnotatedData(Data, bottoms=0, tops=(1, 2)):
    """Reads images and bounding boxes from an LMDB or LevelDB database of AnnotatedDatum records.

    tops: data (N, C, H, W); boxes (1, 1, M, 8): image, label, instance, xmin, ymin, xmax, ymax (from 0 to 1), difficult

    A batch without boxes has one row of -1. An image and its boxes go through distort_param, expand_param, one window
    of batch_sampler, resize_param, noise_param, crop and mirror; emit_constraint says which boxes stay. Records without
    a type, in a layer without anno_type, give the Datum's label (N). `caffe preview` reads label_map_file.
    Source: Liu et al., arXiv:1512.02325, section 2.2; SSD's annotated_data_layer.cpp, data_transformer.cpp.
    """

    label_shape = (1, 1, 1, 8)
    honours = (*SSD_CROPS, *_STEPS)

    @property
    def batch_option(self) -> Any:
        return self.spec.data_param

    def setup(self, *bottoms: Tensor) -> None:
        for name in _OF_OTHERS:
            default = self.opt.DESCRIPTOR.fields_by_name[name].default_value
            fact = f"annotated_data_param.{name} belongs to MobileNet-YOLO and is not implemented; remove it"
            self.require(getattr(self.opt, name) == default, fact)
        param = self.spec.transform_param
        self.require(not param.mixup, "mixup needs class labels, but this layer has boxes; remove it")
        self.require(not param.rotation, f"rotation {_MOVES}")
        self.require(not param.HasField("random_resized_crop"), f"random_resized_crop {_MOVES}")
        self.open(self._stream)
        self._log_size("annotated_data_layer.cpp:54")

    def _stream(self) -> RecordStream:
        param, opt = self.spec.data_param, self.spec.transform_param
        transformer = self.transformer()
        transformer.samplers = Samplers(self.opt.batch_sampler)
        color = self.color_of(transformer)
        read: AnnotatedReader = LabelReader(color, split=not transformer.reshaping)
        if self.opt.HasField("anno_type") or self._typed():
            read = AnnotatedReader(color, split=not transformer.reshaping)
            emit = opt.emit_constraint if opt.HasField("emit_constraint") else None
            transformer.labels = Boxes(emit, transformer.resize)
        elif transformer.samplers:
            raise DataError("batch_sampler is for records with boxes, but the first has none; write anno_type: BBOX")
        return RecordStream(self._source, read, transformer, param.batch_size, param.rand_skip)

    def _typed(self) -> bool:
        """Whether the first record has the type BBOX."""
        with closing(self._source.records()) as records:
            return typed(next(records)[1])
