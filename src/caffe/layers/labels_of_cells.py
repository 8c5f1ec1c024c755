"""Layers of forks for segmentation: accuracies of labels per cell, and sums of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, Lowering, has_values, shape_text
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look, untraced
from caffe.proto import caffe_pb2

__all__ = [
    "BatchReduction",
    "BiasChannel",
    "DiceCoefLoss",
    "MergeCrop",
    "Nms",
    "ParseEvaluate",
    "SegAccuracy",
    "Switch",
    "UniqueLabel",
]

MEAN, SUM = caffe_pb2.ReductionParameter.MEAN, caffe_pb2.ReductionParameter.SUM


class SegAccuracy(Layer, bottoms=2):
    """Accuracy of per-cell scores against labels: overall, mean per class, and mean intersection over union.

    bottoms: scores (N, C, H, W), labels (N, 1, H, W)   top (1, 1, 1, 3)

        y = share of cells whose best score is the label; the mean of that share over the classes that occur;
            the mean over all classes of intersection / union, 1 for a class without cells

    Cells with an ignore_label are left out. reset: false adds up over runs. metric has no effect, as in the source.
    Source: Chen et al., arXiv:1606.00915 (DeepLab), seg_accuracy_layer.cpp.
    """

    without_effect = ("metric",)

    constant = (0, 1)
    exempt = (0, 1)
    effects = Effects.CHECKS | Effects.BUFFERS
    counts: Tensor

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        wanted = (x.shape[0], 1, *x.shape[2:])
        fact = f"{self.bottom_name(1)} has shape {shape_text(label.shape)}, expected {shape_text(wanted)}"
        self.require(tuple(label.shape) == wanted, fact)
        self.register_buffer("counts", torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        classes = x.shape[1]
        label = label.detach().flatten().long()
        counted = torch.ones_like(label, dtype=torch.bool)
        for each in self.opt.ignore_label:
            counted &= label != each
        wrong = counted & ((label < 0) | (label >= classes))
        if can_look(label) and not is_exact() and wrong.any():
            held = f"{self.bottom_name(1)} holds the label {int(label[wrong][0])}"
            self.error(f"{held}, expected 0 to {classes - 1}; correct the data, or give ignore_label")
        best = x.detach().argmax(1).flatten()
        place = label.clamp(0, classes - 1) * classes + best
        made = torch.zeros(classes**2, dtype=torch.float64, device=x.device)
        made = made.index_add(0, place, counted.to(torch.float64)).view(classes, classes)
        if not self.opt.reset:
            made = made + self.counts
            if has_values(x):
                self.counts.copy_(made)
        right, rows = made.diagonal(), made.sum(1)
        either = rows + made.sum(0) - right
        recall = (right / rows.clamp(min=1)).sum() / (rows > 0).sum().clamp(min=1)
        jaccard = (right / either.clamp(min=1)).where(either > 0, 1).mean()
        return torch.stack([right.sum() / rows.sum().clamp(min=1), recall, jaccard]).to(x.dtype).view(1, 1, 1, 3)


class ParseEvaluate(Layer, bottoms=2):
    """Counts correct, labelled and predicted cells of each label over the batch.

    bottoms: labels found (N, 1, H, W), true labels (N, 1, H, W)   top (1, num_labels, 1, 3)

        y[l] = cells with both labels l, cells with true label l, cells with found label l

    Fractions of labels are truncated. Cells whose true label is an ignore_label are left out.
    Source: Liu et al., arXiv:1506.04579 (ParseNet), parse_evaluate_layer.cpp.
    """

    constant = (0, 1)
    exempt = (0, 1)
    effects = Effects.CHECKS

    def setup(self, found: Tensor, truth: Tensor) -> None:
        self.require(self.opt.num_labels > 0, "needs num_labels")
        for index, x in enumerate((found, truth)):
            fact = f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, expected (N, 1, H, W)"
            self.require(x.dim() == 4 and x.shape[1] == 1, fact)
        fact = f"{self.bottom_name(1)} has shape {shape_text(truth.shape)}, expected {shape_text(found.shape)}"
        self.require(truth.shape == found.shape, fact)

    def forward(self, found: Tensor, truth: Tensor) -> Tensor:
        count = self.opt.num_labels
        labels = [x.detach().flatten().long() for x in (found, truth)]
        counted = torch.ones_like(labels[0], dtype=torch.bool)
        for each in self.opt.ignore_label:
            counted &= labels[1] != each
        for index, label in enumerate(labels):
            wrong = (counted | (index == 0)) & ((label < 0) | (label >= count))
            if can_look(found) and not is_exact() and wrong.any():
                held = f"{self.bottom_name(index)} holds the label {int(label[wrong][0])}"
                self.error(f"{held}, expected 0 to {count - 1}; correct the data, or give ignore_label")
        best, true = (label.clamp(0, count - 1) for label in labels)
        zero = found.new_zeros(count)
        rows = [(true, counted & (best == true)), (true, counted), (best, counted)]
        return torch.stack([zero.index_add(0, at, part.to(found.dtype)) for at, part in rows], 1).view(1, count, 1, 3)


class UniqueLabel(Layer):
    """Lists the distinct labels of each image in ascending order, padded with -1.

    bottom: labels (N, 1, H, W)   top (N, max_labels, 1, 1)

    Labels in force_label are always added; labels in ignore_label are left out. More than max_labels are an error.
    Source: Papandreou et al., arXiv:1502.02734 (DeepLab), unique_label_layer.cpp.
    """

    constant = (0,)
    exempt = (0,)
    effects = Effects.VALUES

    def setup(self, x: Tensor) -> None:
        fits = x.dim() > 1 and x.shape[1] == 1
        self.require(fits, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, 1, H, W)")
        fact = f"max_labels is {self.opt.max_labels}, expected more than the {len(self.opt.force_label)} in force_label"
        self.require(self.opt.max_labels > len(set(self.opt.force_label)), fact)

    def forward(self, x: Tensor) -> Tensor:
        return untraced(self._labels)(x)

    @torch.no_grad()
    def _labels(self, x: Tensor) -> Tensor:
        top = x.new_full((x.shape[0], self.opt.max_labels), -1)
        if has_values(x):
            ignored, forced = x.new_tensor(list(self.opt.ignore_label)), x.new_tensor(list(self.opt.force_label))
            for row, values in zip(top, x.flatten(1), strict=True):
                found = torch.cat([values[~torch.isin(values, ignored)], forced]).unique()
                fact = f"{self.bottom_name(0)} has {len(found)} labels in an image, expected max_labels {len(row)}"
                self.require(len(found) <= len(row), f"{fact} or fewer")
                row[: len(found)] = found
        return top[:, :, None, None]


class BiasChannel(Layer, bottoms=2):
    """Adds a bias to the scores of the classes that occur in an image.

    bottoms: scores x (N, C, H, W); labels (N, L, 1, 1), where -1 and the labels in ignore_label are ignored
    top y of x's shape

        y[n, c] = x[n, c] + (bg_bias if c = 0 else fg_bias) times the number of labels c of item n

    Source: Papandreou et al., arXiv:1502.02734 (DeepLab), bias_channel_layer.cpp.
    """

    constant = (1,)
    exempt = (1,)
    effects = Effects.CHECKS

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        fits = label.dim() > 1 and label.shape[0] == x.shape[0] and label.shape[2:].numel() == 1
        fact = f"{self.bottom_name(1)} has shape {shape_text(label.shape)}, expected ({x.shape[0]}, L, 1, 1)"
        self.require(fits and label.numel() > 0, fact)
        self.require(min(self.opt.bg_bias, self.opt.fg_bias) >= 0, "bg_bias and fg_bias must not be negative")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        index = label.detach().flatten(1).nan_to_num(-2, -2, -2).long()
        counted = index != -1
        for each in self.opt.ignore_label:
            counted &= index != each
        wrong = counted & ((index < 0) | (index >= x.shape[1]))
        if can_look(label) and not is_exact() and wrong.any():
            number = number_text(float(label.flatten(1)[wrong][0]))
            self.error(f"{self.bottom_name(1)} holds the label {number}, expected 0 to {x.shape[1] - 1}; correct it")
        bias = torch.full_like(index, self.opt.fg_bias, dtype=x.dtype).where(index != 0, self.opt.bg_bias)
        place = index.clamp(0, x.shape[1] - 1)
        sums = x.new_zeros(x.shape[:2]).scatter_add(1, place, bias.where(counted, 0))
        return x + sums[:, :, None, None]


class BatchReduction(Layer):
    """Means or sums of consecutive rows of an axis.

    bottom x (..., A, ...), `reduction_param.axis` A   top (..., L, ...), without that axis for one level of 1

        y[l] = sum or mean over level[l]^2 rows of x, which follow the rows of level l - 1

    Without levels, or with one level of 1, all rows are reduced together. operation: SUM or MEAN.
    Source: Wang et al., arXiv:1608.00859 (TSN), batch_reduction_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.start = self.axis(opt.reduction_param.axis, x)
        self.require(opt.reduction_param.operation in (SUM, MEAN), "operation must be SUM or MEAN")
        self.require(opt.reduction_param.coeff == 1, "coeff has no effect in the source; remove it")
        self.require(not opt.pos, "pos is not implemented; remove it")
        levels = list(opt.level) or [1]
        self.require(min(levels) > 0, f"level has the value {min(levels)}, expected numbers above 0")
        self.sizes = [n * n for n in levels]
        fact = f"the levels take {sum(self.sizes)} rows, and axis {self.start} of {shape_text(x.shape)} has"
        self.require(levels == [1] or sum(self.sizes) == x.shape[self.start], f"{fact} {x.shape[self.start]}")

    def forward(self, x: Tensor) -> Tensor:
        mean = self.opt.reduction_param.operation == MEAN
        if self.sizes == [1]:
            return x.mean(self.start) if mean else x.sum(self.start)
        parts = x.split(self.sizes, self.start)
        return torch.stack([y.mean(self.start) if mean else y.sum(self.start) for y in parts], self.start)


class MergeCrop(Layer, bottoms=2):
    """Concatenates a blob with the centre crop of a larger blob along the channels, or adds them.

    bottoms: a (N, C, *sizes), b (N, C', *sizes') with sizes' at least as large   top (N, C + C', *sizes), or with
    operation: ADD (N, C, *sizes)

        y = [a, b'] or a + b', where b' is b from (size' - size) / 2 on, rounded down

    `backward` says which bottoms get a gradient. Its default is [true, false].
    Source: Tschopp, arXiv:1509.03371; BVLC branch opencl, mergecrop_layer.cpp.
    """

    def setup(self, a: Tensor, b: Tensor) -> None:
        opt = self.opt
        self.require(len(opt.forward) <= 2 and len(opt.backward) <= 2, "forward and backward have two values at most")
        self.require(all(opt.forward), "forward: false is not implemented; use the other bottom directly")
        self.passes = [*opt.backward, *[True, False][len(opt.backward) :]]
        fits = a.dim() == b.dim() > 2 and a.shape[0] == b.shape[0]
        fits = fits and all(n <= m for n, m in zip(a.shape[2:], b.shape[2:], strict=True))
        shapes = f"bottoms have shapes {shape_text(a.shape)} and {shape_text(b.shape)}"
        self.require(fits, f"{shapes}; expected (N, C, *sizes), the second as large or larger")
        same = opt.operation == caffe_pb2.MergeCropParameter.STACK or a.shape[1] == b.shape[1]
        self.require(same, f"{shapes}; operation: ADD needs equal numbers of channels")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        for axis, size in enumerate(a.shape[2:], 2):
            b = b.narrow(axis, (b.shape[axis] - size) // 2, size)
        a, b = (x if passes else x.detach() for x, passes in zip((a, b), self.passes, strict=True))
        return torch.cat([a, b], 1) if self.opt.operation == caffe_pb2.MergeCropParameter.STACK else a + b


class Switch(Layer, bottoms=(1, None)):
    """Outputs its last bottom.

    bottoms x_i of one shape, top y = x_last

    Source: CMU-Perceptual-Computing-Lab/caffe_rtpose, switch_layer.cpp, where a program can choose another bottom.
    """

    lowering = Lowering.FOLLOW
    traceable = False

    def setup(self, *bottoms: Tensor) -> None:
        for i, x in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected {shape_text(bottoms[0].shape)}"
            self.require(x.shape == bottoms[0].shape, fact)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[-1].clone()


class Nms(Layer):
    """Finds the peaks of each map: cells above a threshold and above their four neighbours. No gradient.

    bottom: maps (N, C, H, W)   top (N, num_parts, max_peaks + 1, 3), for the first num_parts maps: a row that begins
    with the number of peaks, then rows [column, row, value] in the order of cells, padded with zeros

    Neighbours beyond the map are 0. The number of peaks may exceed max_peaks. A single map without num_parts and
    max_peaks is for the first version of the layer: top (N, 1, num_peak + 1, 3), and cells at the threshold count.
    Source: CMU-Perceptual-Computing-Lab/caffe_rtpose, nms_layer.cu; nms_layer.cpp for the first version.
    """

    constant = (0,)
    exempt = (0,)

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        later = opt.HasField("num_parts") or opt.HasField("max_peaks")
        self.first = opt.HasField("num_peak") or (x.dim() == 4 and x.shape[1] == 1 and not later)
        self.require(
            not (self.first and later),
            "num_peak belongs to another version of the layer than num_parts and max_peaks; remove it",
        )
        self.parts: int = 1 if self.first else opt.num_parts
        self.most: int = opt.num_peak if self.first else opt.max_peaks
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W), C at least {self.parts}"
        self.require(x.dim() == 4 and x.shape[1] >= self.parts, fact)
        self.require(self.parts > 0 and self.most > 0, "num_parts, max_peaks and num_peak must be positive")

    def forward(self, x: Tensor) -> Tensor:
        maps = x.detach()[:, : self.parts]
        height, width = maps.shape[2:]
        wide = torch.nn.functional.pad(maps, (1, 1, 1, 1))
        peak = maps >= self.opt.threshold if self.first else maps > self.opt.threshold
        for down, across in ((0, 1), (2, 1), (1, 0), (1, 2)):
            peak = peak & (maps > wide[:, :, down : down + height, across : across + width])
        flat = peak.flatten(2)
        count, most = flat.sum(2), self.most
        first = torch.argsort(~flat, dim=2, stable=True)[:, :, :most]
        there = torch.arange(first.shape[2], device=x.device) < count.unsqueeze(2)
        rows = torch.stack([(first % width).to(x), (first // width).to(x), maps.flatten(2).gather(2, first)], 3)
        rows = torch.nn.functional.pad(rows.where(there.unsqueeze(3), 0), (0, 0, 0, most - first.shape[2]))
        head = torch.nn.functional.pad(count.to(x)[:, :, None, None], (0, 2))
        return torch.cat([head, rows], 2)


class DiceCoefLoss(Loss, bottoms=2):
    """Dice loss: 1 minus the mean Dice coefficient of the items.

    bottoms: a (N, ...), b (N, ...) with as many elements   top: loss ()

        loss = 1 - mean over items of (2 sum a b + 1) / (sum a^2 + sum b^2 + 1)

    Both bottoms get a gradient. As in the source, it is N times the derivative of the loss.
    Source: Milletari et al., arXiv:1606.04797; zengruizhao's fork, dice_coef_loss_layer.cpp, without do_masked.
    """

    constant = ()
    exempt = ()
    effects = Effects.NONE

    def setup(self, a: Tensor, b: Tensor) -> None:
        self.require(not self.opt.do_masked, "do_masked is not implemented; remove it")
        fits = a.dim() > 0 and b.dim() > 0 and a.shape[0] == b.shape[0] and a.numel() == b.numel()
        fact = f"bottoms have shapes {shape_text(a.shape)} and {shape_text(b.shape)}; expected equal counts per item"
        self.require(fits, fact)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        one, two = a.reshape(len(a), -1), b.reshape(len(b), -1)
        both = (2 * (one * two).sum(1) + 1) / (one.square().sum(1) + two.square().sum(1) + 1)
        if is_exact():
            tell("the gradient is N times the slope")
            return 1 - both.mean()
        total = both.sum()
        return 1 - total.detach() / len(a) - (total - total.detach())
