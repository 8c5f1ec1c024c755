"""Detection lists of YOLO 2 and 3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values
from caffe.layers.support.boxes import nms
from caffe.layers.support.values import untraced
from caffe.layers.yolo.cells import anchors_of, apart, boxes_of, check_map, corners

__all__ = ["YoloDetectionOutput", "Yolov3DetectionOutput"]


class _Detections(Layer, abstract=True):
    """Base of both layers: the detections of each image after non-maximum suppression."""

    effects = Effects.VALUES  # for the number of detections

    def check(self, bottoms: tuple[Tensor, ...]) -> None:
        """Raise an error for options and bottoms that neither layer supports."""
        opt = self.opt
        self.exempt = tuple(range(len(bottoms)))
        self.require(opt.HasField("num_classes") and opt.num_classes > 0, "needs num_classes")
        self.require(opt.num_box > 0, "num_box must be positive")
        self.require(opt.nms_threshold > 0, f"nms_threshold is {opt.nms_threshold:g}, expected a number above 0")
        # a box is dropped at an overlap of nms_threshold or more, while `nms` drops only above its threshold
        self.threshold = float(np.nextafter(np.float32(opt.nms_threshold), np.float32(0)))
        for i, x in enumerate(bottoms):
            check_map(self, i, x, opt.num_box, opt.num_classes)
            same = x.shape[0] == bottoms[0].shape[0]
            self.require(same, f"{self.bottom_name(i)} has {x.shape[0]} images, bottom 0 has {bottoms[0].shape[0]}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        return untraced(self._detect)(*bottoms)

    @torch.no_grad()
    def _detect(self, *bottoms: Tensor) -> Tensor:
        if not has_values(bottoms[0]):
            return bottoms[0].new_empty(1, 1, 1, 7)
        candidates = [self.candidates(i, x) for i, x in enumerate(bottoms)]
        image, label, score, box = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        rows = []
        for each in range(len(bottoms[0])):
            mine = (image == each).nonzero().flatten()
            mine = mine[nms(box[mine], score[mine], self.threshold)]
            head = torch.stack([image[mine].to(score.dtype), label[mine].to(score.dtype) + 1, score[mine]], 1)
            rows.append(torch.cat([head, box[mine]], 1))
        top = torch.cat(rows)
        if not len(top):
            top = top.new_full((len(bottoms[0]), 7), -1)
            top[:, 0] = torch.arange(len(top), device=top.device)
        return top[None, None]

    def candidates(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, label, score and corners of the boxes of map `index` whose score passes the threshold."""
        raise NotImplementedError(self.type)


class Yolov3DetectionOutput(_Detections, bottoms=(1, None)):
    """The detections of YOLO 3, from maps of several scales.

    bottoms: mask_group_num maps (N, num_box (5 + num_classes), H, W), their channels tx, ty, tw, th, objectness o and
    classes c for each anchor   top (1, 1, K, 7): rows [image, label, score, xmin, ymin, xmax, ymax]

        x = (column + s(tx)) / W,  w = e^tw biases[0] / (W anchors_scale),  likewise y, h;  s the sigmoid
        score = s(o) s(c) > confidence_threshold;  label = class + 1

    `mask` is divided equally among the maps: the indices of their anchors in `biases`. Each map has an anchors_scale.
    Boxes of any class that overlap a better box by nms_threshold or more are dropped. Rows are sorted by score. If
    there is no detection, each image gives a row [image, -1, ...]. The source treats a batch as one image.
    Source: Redmon and Farhadi, arXiv:1804.02767; eric612/MobileNet-YOLO, yolov3_detection_output_layer.cpp.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.check(bottoms)
        opt, count = self.opt, len(bottoms)
        self.require(not opt.gaussian_box, "gaussian_box is not implemented; remove it")
        fact = f"has {count} bottoms, mask_group_num {opt.mask_group_num} and {len(opt.anchors_scale)} values of"
        fits = count == opt.mask_group_num and count <= len(opt.anchors_scale) and min(opt.anchors_scale) > 0
        self.require(fits, f"{fact} anchors_scale; expected the same number, and scales above 0")
        fact = f"has {len(opt.mask)} values of mask, expected {count * opt.num_box}, num_box for each bottom"
        self.require(len(opt.mask) == count * opt.num_box, fact)
        anchors = anchors_of(self)
        self.require(max(opt.mask) < len(anchors), f"mask names the anchor {max(opt.mask)} of {len(anchors)} in biases")
        chosen = [anchors[i] for i in opt.mask]
        self.anchors = [chosen[i * opt.num_box : (i + 1) * opt.num_box] for i in range(count)]

    def candidates(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cells = apart(x, self.opt.num_box)
        boxes = boxes_of(cells[..., :2].sigmoid(), cells[..., 2:4], self.anchors[index], self.opt.anchors_scale[index])
        score = cells[..., 4:5].sigmoid() * cells[..., 5:].sigmoid()
        score, boxes = score.permute(0, 2, 3, 1, 4), boxes.permute(0, 2, 3, 1, 4)
        place = (score > self.opt.confidence_threshold).nonzero()
        image, row, column, anchor, label = place.unbind(1)
        box = corners(boxes[image, row, column, anchor])
        return image, label, score[image, row, column, anchor, label], box


class YoloDetectionOutput(_Detections, bottoms=(1, 2)):
    """The detections of YOLO 2, one box for each anchor and cell.

    bottoms: one or two maps (N, num_box (5 + num_classes), H, W), their channels tx, ty, tw, th, objectness o and
    classes c for each anchor   top (1, 1, K, 7): rows [image, label, score, xmin, ymin, xmax, ymax]

        x = (column + s(tx)) / W,  w = e^tw biases[0] / W,  likewise y, h;  s the sigmoid
        score = s(o) max softmax(c) >= confidence_threshold;  label = the class of the maximum + 1

    Suppression, order and empty batches are as for Yolov3DetectionOutput. label_map_file has no effect.
    Source: Redmon and Farhadi, arXiv:1612.08242; eric612/MobileNet-YOLO, yolo_detection_output_layer.cpp.
    """

    without_effect = ("label_map_file",)

    def setup(self, *bottoms: Tensor) -> None:
        self.check(bottoms)
        self.require(self.opt.coords == 4, f"coords is {self.opt.coords}, expected 4")
        self.anchors = anchors_of(self, self.opt.num_box)

    def candidates(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cells = apart(x, self.opt.num_box)
        boxes = boxes_of(cells[..., :2].sigmoid(), cells[..., 2:4], self.anchors).permute(0, 2, 3, 1, 4)
        best, label = cells[..., 5:].softmax(-1).max(-1)
        score, label = (y.permute(0, 2, 3, 1) for y in (cells[..., 4].sigmoid() * best, label))
        place = (score >= self.opt.confidence_threshold).nonzero().unbind(1)
        return place[0], label[place], score[place], corners(boxes[place])
