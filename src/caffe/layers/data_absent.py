"""Data layers of forks that declare the shapes of their tops but read no files.

A net with such a layer can be built, inspected and edited. To run it, replace the layer or fill its blobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from caffe.layers.base import Source

__all__ = ["POSE_IMAGE_DATA", "BoxData", "DetectionData", "EvalData", "ImageGtData", "LaneData", "SegData"]
__all__ += ["VideoData", "VideoSegmentationData", "VideoWithVoxelTruthData", "is_absent"]

_VIDEO = (
    "ignore_label",
    "is_flow",
    "new_length",
    "num_truth_channels",
    "truth_scale",
    "use_image",
    "use_temporal_jitter",
)
_LENGTH = 16
"""The default of new_length, the frames of a clip, as in C3D's own nets."""
_TSN = ("fix_crop", "multi_scale", "scale_ratios", "max_distort", "is_flow", "more_fix_crop", "stride")
_SSD = ("resize_param", "noise_param", "crop_h", "crop_w", "distort_param", "expand_param", "emit_constraint")


class _Absent(Source, abstract=True):
    """Base of the layers that know the shapes of their tops, and raise an error when a run asks for data."""

    more_options = ("transform_param", "data_param", "image_data_param")
    honours = tuple(f"ImageDataParameter.{name}" for name in _VIDEO) + tuple(
        f"TransformationParameter.{name}" for name in (*_TSN, *_SSD)
    )

    def setup(self, *bottoms: Tensor) -> None:
        shapes = self.declared()
        fact = f"has {len(self.spec.top)} tops, but its fields give {len(shapes)}"
        self.require(len(self.spec.top) <= len(shapes), fact)
        self.shapes = shapes[: len(self.spec.top)]
        self.require(min(min(shape) for shape in self.shapes) > 0, f"gives a top of shape {self.shapes}; set all sizes")

    def declared(self) -> list[tuple[int, ...]]:
        """The shapes of the tops, from the layer's fields."""
        raise NotImplementedError(self.type)

    def deliver(self) -> tuple[Tensor | None, ...] | None:
        self.error(
            "has no data, because this package does not read its files: only the shapes of its tops are known. Replace "
            'it by an "Input" layer and fill the blobs, or write a layer of your own (docs/layers_own.md)'
        )

    def sides(self, height: int = 0, width: int = 0) -> tuple[int, int]:
        """Height and width of the images: crop_size if given, else resize_param, else the arguments."""
        param = self.spec.transform_param
        if param.crop_size:
            return param.crop_size, param.crop_size
        if param.crop_h and param.crop_w:
            return param.crop_h, param.crop_w
        if param.HasField("resize_param"):
            return param.resize_param.height, param.resize_param.width
        fact = "its fields do not give the size of images; write crop_size in transform_param"
        self.require(height > 0 and width > 0, fact)
        return height, width


def is_absent(kind: type) -> bool:
    """Whether a class of layers declares the shapes of its tops without files, and delivers no data."""
    return issubclass(kind, _Absent)


class VideoData(_Absent, bottoms=0, tops=(1, 2)):
    """Clips or frames of videos, and optionally labels. Only the shapes are known; a run needs data from elsewhere.

    tops: by the fields: image_data_param (C3D), or source of video_data_param alone (video-caffe): clips
    (N, 3, new_length, H, W), label (N, 1, 1, 1, 1) or (N); with num_segments, modality or name_pattern (TSN): frames as
    channels, 3 (RGB) or 2 (FLOW) times new_length num_segments, label (N, 1, 1, 1); data_param (SSD): frames
    (N, 3, H, W), label (N)

    Source: C3D's, TSN's and SSD's video_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        opt, images = self.opt, self.spec.image_data_param
        if self.spec.HasField("image_data_param"):
            sides = self.sides(images.new_height, images.new_width)
            return [(images.batch_size, 3, images.new_length, *sides), (images.batch_size, 1, 1, 1, 1)]
        if opt.source and not any(map(opt.HasField, ("num_segments", "modality", "name_pattern"))):
            sides = self.sides(opt.new_height, opt.new_width)
            return [(opt.batch_size, 3, opt.new_length, *sides), (opt.batch_size,)]
        if opt.source:
            channels = (2 if opt.modality == opt.FLOW else 3) * opt.new_length * opt.num_segments
            sides = self.sides(opt.new_height, opt.new_width)
            return [(opt.batch_size, channels, *sides), (opt.batch_size, 1, 1, 1)]
        count = self.spec.data_param.batch_size
        return [(count, 3, *self.sides()), (count,)]


class BoxData(_Absent, bottoms=0, tops=(1, 2), options="data_param"):
    """Images and the cells of YOLO's grid that hold an object. Only shapes are known; a run needs other data.

    tops: data (N, 3, H, W), cells (N, 7 side^2)

    Source: yeahkun's box_data_layer.cpp, whose Datum has additional fields.
    """

    honours = (*_Absent.honours, "DataParameter.side")

    def declared(self) -> list[tuple[int, ...]]:
        count, side = self.opt.batch_size, self.opt.side
        return [(count, 3, *self.sides()), (count, 7 * side * side)]


class SegData(_Absent, bottoms=0, tops=2):
    """Images and label maps, scaled at random. Only the shapes are known; a run needs data from elsewhere.

    tops: data (N, 3, H, W), classes (N, 1, H, W) of crop_size, or crop_height and crop_width

    Source: lxx1991's caffe_mpi, seg_data_layer.cpp. ImageSegData reads the same lists, without random scales.
    """

    honours = (*_Absent.honours, "TransformationParameter.crop_height", "TransformationParameter.crop_width")

    def declared(self) -> list[tuple[int, ...]]:
        count = self.opt.batch_size if self.opt.HasField("batch_size") else 1
        param = self.spec.transform_param
        sides = self.sides(param.crop_height, param.crop_width)
        return [(count, 3, *sides), (count, 1, *sides)]


class VideoSegmentationData(_Absent, bottoms=0, tops=2, options="image_data_param"):
    """Clips of videos and the class of each voxel. Only the shapes are known; a run needs data from elsewhere.

    tops: clips (N, 3, new_length, H, W), classes (N, 1, new_length, H, W)

    Source: C3D's video_segmentation_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        opt = self.opt
        length = opt.new_length if opt.HasField("new_length") else _LENGTH
        rest = (length, *self.sides(opt.new_height, opt.new_width))
        return [(opt.batch_size, 3, *rest), (opt.batch_size, self._channels(), *rest)]

    def _channels(self) -> int:
        return 1


class VideoWithVoxelTruthData(VideoSegmentationData, bottoms=0, tops=2, options="image_data_param"):
    """Clips of videos and values of each voxel, such as optical flow. Only shapes are known; a run needs other data.

    tops: clips (N, 3, new_length, H, W), values (N, num_truth_channels, new_length, H, W)

    Source: C3D's video_with_voxel_truth_data_layer.cpp.
    """

    def _channels(self) -> int:
        return self.opt.num_truth_channels


class LaneData(_Absent, bottoms=0, tops=(1, 3), options="annotated_data_param"):
    """Images, lanes and masks of the lanes. Only the shapes are known; a run needs data from elsewhere.

    tops: data (N, 3, H, W) of the first resize_param; lanes (N, 5, 64, 3), rows x, y, lane; masks (N, 1, h, w), h, w
    seg_resize_height and seg_resize_width, or H, W / seg_scales

    Source: eric612/MobileNet-YOLO, lane_data_layer.cpp.
    """

    honours = (*_Absent.honours, "TransformationParameter.more_resize_param")

    def declared(self) -> list[tuple[int, ...]]:
        opt, count, sides = self.opt, self.spec.data_param.batch_size, self.sides()
        small = (opt.seg_resize_height, opt.seg_resize_width)
        if not all(small):
            self.require(opt.seg_scales > 0 or len(self.spec.top) < 3, "seg_scales must be positive for the third top")
            small = (sides[0] // max(1, opt.seg_scales), sides[1] // max(1, opt.seg_scales))
        return [(count, 3, *sides), (count, 5, 64, 3), (count, 1, *small)]


class _Fielded(_Absent, abstract=True):
    """Base of the data layers of MS-CNN and Cascade R-CNN, whose labels are maps of fields."""

    def maps(self, sides: tuple[int, int], strides: Sequence[int], columns: int) -> list[tuple[int, ...]]:
        """The shapes of the images, of a map of labels for each stride, and of the true boxes with output_gt_boxes."""
        opt, count = self.opt, self.opt.batch_size
        same = len(strides) == len(opt.field_h) == len(opt.field_w)
        given = f"{len(strides)} strides, {len(opt.field_h)} values of field_h and {len(opt.field_w)} of field_w"
        self.require(same and all(strides), f"has {given}, expected as many of each, all positive")
        cells = [tuple(round(side / stride) for side in sides) for stride in strides]
        boxes = [(1, columns, 1, 1)] if opt.output_gt_boxes else []
        return [(count, 3, *sides), *((count, 2 + opt.coord_num, *size) for size in cells), *boxes]


class ImageGtData(_Fielded, bottoms=0, tops=(1, None)):
    """Images and the boxes in them, as MS-CNN trains on them. Only the shapes are known; a run needs other data.

    tops: data (N, 3, H, W); labels (N, 6, H / rate, W / rate) for each downsample_rate, in the channels label, x, y, w,
    h, overlap; with output_gt_boxes, boxes (1, 7, 1, 1), as many rows as boxes: image, x1, y1, x2, y2, label,
    ignored. H, W are crop_height and crop_width, else resize_height and resize_width

    Source: zhaoweicai/mscnn, image_gt_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        opt = self.opt
        given = [(opt.crop_height or opt.resize_height), (opt.crop_width or opt.resize_width)]
        self.require(all(given), "needs resize_height and resize_width, or crop_height and crop_width")
        return self.maps((given[0], given[1]), opt.downsample_rate, 7)


class DetectionData(_Fielded, bottoms=0, tops=(1, None)):
    """Images and the boxes in them, as Cascade R-CNN trains on them. Only the shapes are known; a run needs other data.

    tops: data (N, 3, H, W); labels (N, 6, H / stride, W / stride) for each stride; with output_gt_boxes, boxes
    (1, 8, 1, 1), as many rows as boxes. H, W are crop_height and crop_width, else crop_long_size and
    crop_short_size, resize_height and resize_width, or long_size and short_size (then they depend on the images)

    Source: zhaoweicai/cascade-rcnn, detection_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        return self.maps(sides_of(self, crops=True), self.opt.stride, 8)


class EvalData(_Absent, bottoms=0, tops=(2, 3)):
    """Images and the boxes in them, as Cascade R-CNN is tested on them. Only the shapes are known.

    tops: data (N, 3, H, W); boxes (1, 8, 1, 1), as many rows as boxes; optionally height and width (N, 2, 1, 1)
    H, W are resize_height and resize_width, or long_size and short_size (then they depend on the images)

    Source: zhaoweicai/cascade-rcnn, eval_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        count = self.opt.batch_size
        return [(count, 3, *sides_of(self)), (1, 8, 1, 1), (count, 2, 1, 1)]


def sides_of(layer: Source, crops: bool = False) -> tuple[int, int]:
    """Height and width from the first of the pairs of fields that is given: crops, fixed sizes, long and short side."""
    opt = layer.opt
    pairs = [("crop_height", "crop_width"), ("crop_long_size", "crop_short_size")] if crops else []
    for pair in (*pairs, ("resize_height", "resize_width"), ("long_size", "short_size")):
        if all(opt.HasField(name) and getattr(opt, name) for name in pair):
            return getattr(opt, pair[0]), getattr(opt, pair[1])
    layer.error("its fields do not give the size of images; write resize_height and resize_width")


class POSE_IMAGE_DATA(_Absent, bottoms=0, tops=2, options="pose_image_data_param"):  # noqa: N801 - the type's name
    """Images of people and maps of their joints. Only the shapes are known; a run needs data from elsewhere.

    tops: data (N, 3, new_height, new_width), maps (N, key_point_num, out_height, out_width)

    Source: xiaolonw's pose_image_data_layer.cpp.
    """

    def declared(self) -> list[tuple[int, ...]]:
        opt = self.opt
        maps = (opt.batch_size, opt.key_point_num, opt.out_height, opt.out_width)
        return [(opt.batch_size, 3, opt.new_height, opt.new_width), maps]
