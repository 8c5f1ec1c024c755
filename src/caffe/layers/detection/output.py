"""DetectionOutput: converts SSD's predictions to a list of detected objects."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Effects, Layer, has_values
from caffe.layers.detection.predictions import check_predictions
from caffe.layers.detection.results import ResultFiles, is_missing
from caffe.layers.support.boxes import CENTER_SIZE, batched_nms, best, decode
from caffe.layers.support.values import untraced

__all__ = ["DetectionOutput"]


class _Selection(Layer, abstract=True):
    """Base of DetectionOutput: its options, and the detections of each image."""

    loc_classes: int
    least: float
    top_k: int | None
    saves: bool
    files: ResultFiles | None

    def setup(self, loc: Tensor, conf: Tensor, priors: Tensor, *others: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_classes > 0, "needs num_classes, background included")
        self.loc_classes = 1 if opt.share_location else opt.num_classes
        self.labels = [label for label in range(opt.num_classes) if label != opt.background_label_id]
        how = opt.nms_param
        self.require(how.nms_threshold >= 0, f"nms_threshold is {how.nms_threshold:g}, expected 0 or more")
        self.require(0 < how.eta <= 1, f"eta is {how.eta:g}, expected a number above 0 and up to 1")
        self.top_k = how.top_k if how.HasField("top_k") and how.top_k >= 0 else None
        self.least = opt.confidence_threshold if opt.HasField("confidence_threshold") else -torch.inf
        self._check_polygons()
        if opt.visualize:
            log.warning(
                "output.py",
                f'layer "{self.name}" ({self.type}): visualize does not open a window; see the rows of the top',
            )
        self.saves, self.files = self._saves(), None
        if self.saves:
            self.effects |= Effects.CALLS
            if not is_missing(self, opt.save_output_param.label_map_file, opt.save_output_param.name_size_file):
                self.files = ResultFiles(self, opt.save_output_param, self.labels)
        self._check(loc, conf, priors, *others)

    @property
    def _numbers(self) -> int:
        """Numbers of a prediction in loc: those of the box, and with use_polygon those of four corners."""
        return 12 if self.opt.use_polygon else 4

    def _check_polygons(self) -> None:
        if not self.opt.use_polygon:
            return
        first = self.opt.code_type != CENTER_SIZE or self.opt.variance_encoded_in_target
        fact = "use_polygon is for code_type: CENTER_SIZE, without variance_encoded_in_target, as in TextBoxes++"
        self.require(not first, fact)
        self.require(len(self.spec.bottom) != 5, "use_polygon cannot be combined with the five bottoms of RefineDet")

    def _saves(self) -> bool:
        """Whether the layer writes files."""
        param = self.opt.save_output_param
        if not param.output_directory:
            return False
        missing = [name for name in ("label_map_file", "name_size_file") if not getattr(param, name)]
        if missing:
            self._warn(f"writes no files, since save_output_param has no {' and no '.join(missing)}")
        return not missing

    def _warn(self, fact: str) -> None:
        log.warning("output.py", f'layer "{self.name}" ({self.type}): {fact}')

    def _check(self, loc: Tensor, conf: Tensor, priors: Tensor, *others: Tensor) -> None:
        numbers = self._numbers * self.loc_classes
        check_predictions(self, (loc, conf, priors), (0, 1, 2), numbers // 4, self.opt.num_classes)
        if len(others) == 2:
            check_predictions(self, (others[1], others[0], priors), (4, 3, 2), 1, 2)

    def _rows(self, boxes: Tensor, conf: Tensor) -> list[Tensor]:
        """The rows (K, 7) of each image, from boxes (N, P, L, 4) and scores (N, P, C); (K, 15) with corners behind."""
        how, (images, priors, classes) = self.opt.nms_param, conf.shape
        scores = conf.mT.contiguous()  # (N, C, P)
        likely = scores > self.least
        if 0 <= self.opt.background_label_id < classes:
            likely[:, self.opt.background_label_id] = False
        image, label, prior = likely.nonzero().unbind(1)
        score, place = scores[likely], image * priors + prior
        place = place * self.loc_classes + label if self.loc_classes > 1 else place
        found, options = boxes.flatten(0, -2), {"top_k": self.top_k, "eta": how.eta, "places": place}
        kept = batched_nms(found[:, :4], score, image * classes + label, how.nms_threshold, **options)
        image, label, score = image[kept], label[kept], score[kept]
        head = torch.stack([image.to(score.dtype), label.to(score.dtype), score], 1)
        counts = torch.bincount(image, minlength=images).tolist()
        rows = torch.cat([head, found[place[kept]]], 1).split(counts)
        most = self.opt.keep_top_k
        return [part[best(part[:, 2], most).sort().values] if 0 <= most < len(part) else part for part in rows]


class DetectionOutput(_Selection, bottoms=(3, 5)):
    """Converts SSD's predictions to a list of detected objects.

    bottoms: offsets loc (N, P L 4), L = 1 or num_classes; scores conf (N, P C); priors (1, 2, P 4); optionally the
    image, not read; or RefineDet's first stage, conf (N, P 2) and loc (N, P 4), which moves the priors and drops those
    below objectness_score.    top (1, 1, K, 7): rows [image, label, score, xmin, ymin, xmax, ymax], sorted

    Each class but background_label_id keeps the top_k boxes with score > confidence_threshold, then applies non-maximum
    suppression with nms_threshold. Each image keeps its keep_top_k best. K depends on values; if there is no detection,
    each image gives a row [image, -1, ...]. Coordinates are relative to the image size and not clipped. use_polygon: 12
    numbers a prior in loc, offsets of the box and its corners; rows (15) end with x1, y1 ... x4, y4. save_output_param
    writes VOC, COCO or ILSVRC files, given output_directory, label_map_file and name_size_file, read at the first run.
    Source: arXiv:1512.02325 (SSD), 1711.06897 (RefineDet), 1801.02765 (TextBoxes++, whose code loses two corners).
    """

    constant = (0, 1, 2, 3, 4)
    effects = Effects.VALUES
    honours = ("TransformationParameter.resize_param",)  # for the images of visualize only

    def forward(self, loc: Tensor, conf: Tensor, priors: Tensor, *others: Tensor) -> Tensor:
        self._check(loc, conf, priors, *others)
        return untraced(self._detect)(loc, conf, priors, *others)

    @torch.no_grad()
    def _detect(self, *bottoms: Tensor) -> Tensor:
        loc, conf, priors, *others = bottoms
        if not has_values(loc):
            return loc.new_empty(1, 1, 1, 3 + self._numbers)
        device, opt, images = loc.device, self.opt, len(loc)
        loc, conf, priors, *others = (x.detach().cpu() for x in bottoms)
        boxes, variances = priors[0].reshape(2, 1, -1, 1, 4)
        weights = None if opt.variance_encoded_in_target else variances
        conf = conf.reshape(images, -1, opt.num_classes)
        if len(others) == 2:
            boxes = decode(others[1].reshape(images, -1, 1, 4), boxes, weights, opt.code_type)
            unlikely = others[0].reshape(images, -1, 2)[..., 1] < opt.objectness_score
            conf = conf.masked_fill(unlikely.unsqueeze(-1), 0)
        loc = loc.reshape(images, -1, self.loc_classes, self._numbers)
        found = decode(loc[..., :4], boxes, weights, opt.code_type)
        if opt.use_polygon:
            found = torch.cat([found, _corners(loc[..., 4:], boxes, variances)], -1)
        rows = self._rows(found, conf)
        if self.saves:
            if self.files is None:
                self.files = ResultFiles(self, opt.save_output_param, self.labels)
            for each in rows:
                self.files.add(each)
        top = torch.cat(rows)
        if not len(top):
            log.info("output.py", f'layer "{self.name}": no detection')
            top = top.new_full((images, 3 + self._numbers), -1)
            top[:, 0] = torch.arange(images)
        return top[None, None].to(device)


def _corners(offsets: Tensor, boxes: Tensor, variances: Tensor) -> Tensor:
    """The four corners (..., 8), clockwise from the first of the prior (..., 4), each moved by its offset."""
    size = (boxes[..., 2:] - boxes[..., :2]) * variances[..., :2]
    return boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]] + offsets * size.repeat(*[1] * (size.dim() - 1), 4)
