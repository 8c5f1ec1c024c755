"""Connectionist temporal classification (CTC): losses, decoders and accuracies for unaligned label sequences."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, Loss, has_values, shape_text
from caffe.layers.support.exact import is_exact
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look

__all__ = ["CTCDecoder", "CTCGreedyDecoder", "CTCLoss", "CtcLoss", "LabelsequenceAccuracy", "WarpCTCLoss"]


class _Ctc(Loss, abstract=True):
    """Base of the losses: the negative log probability of each item's labels, summed over all alignments."""

    constant: tuple[int, ...] = (1, 2, 3)
    exempt: tuple[int, ...] = (1, 2, 3)
    blank: int

    def check_scores(self, x: Tensor) -> None:
        """Check that x is (T, N, C), optionally with trailing axes of size 1."""
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (T, N, C): steps, items, scores"
        self.require(x.dim() >= 3 and x.shape[3:].numel() == 1 and min(x.shape[:3]) > 0, fact)

    def check_labels(self, index: int, y: Tensor, shape: tuple[int, int], what: str) -> None:
        """Check that bottom `index` has these sizes (0 for any), optionally with trailing axes of size 1."""
        fits = y.dim() >= 2 and y.shape[2:].numel() == 1
        fits = fits and all(b in (0, a) for a, b in zip(y.shape[:2], shape, strict=True))
        sizes = " ".join("any" if n == 0 else str(n) for n in shape)
        self.require(fits, f"{self.bottom_name(index)} has shape {shape_text(y.shape)}, expected {what}: {sizes}")

    def read_blank(self, given: bool, value: int, classes: int) -> None:
        """Store the blank label. A negative value means the last class."""
        self.require(given, "blank_index must be given: the forks that have this layer differ in its default")
        self.blank = value if value >= 0 else classes - 1
        self.require(self.blank < classes, f"the blank label is {self.blank}, and there are {classes} scores")

    def losses(self, x: Tensor, label: Tensor, kept: Tensor, steps: Tensor | None) -> Tensor:
        """The loss (N) of scores x (T, N, C) for the labels (N, L) marked by `kept`; 0 for labels with no alignment."""
        classes = x.shape[2]
        index = label.nan_to_num(-1, -1, -1).long()
        wrong = kept & ((index < 0) | (index >= classes))
        if can_look(label) and not is_exact() and wrong.any():
            number = number_text(float(label[wrong][0]))
            where = self.bottom_name(len(self.spec.bottom) - 1)
            self.error(f"{where} holds the label {number}, expected 0 to {classes - 1} for {classes} scores")
        if not has_values(x):
            return x.sum((0, 2)) * 0
        order = torch.argsort(~kept, dim=1, stable=True)
        target = index.gather(1, order).clamp(0, classes - 1)
        counts = kept.sum(1)
        steps = torch.full_like(counts, len(x)) if steps is None else steps
        return F.ctc_loss(F.log_softmax(x, 2), target, steps, counts, self.blank, reduction="none", zero_infinity=True)


def _steps_of(indicator: Tensor) -> Tensor:
    """The number of steps of each item: those before the second 0, the start of the next sequence, in (T, N)."""
    return (indicator[1:] >= 0.5).cumprod(0).sum(0).long() + 1


class CtcLoss(_Ctc, bottoms=2):
    """CTC loss for label sequences that are padded with the blank label.

    bottoms: scores x (T, N, C), labels (N, L), where blank_label entries are ignored   top: loss ()

        loss = -sum over items of log(sum over alignments of the product over steps of softmax(x)) / N

    An alignment has a label or a blank at each step. Repeated labels are merged, then blanks are removed. An item with
    too few steps for its labels has loss 0. alphabet_size is C, time_step T or less.
    Source: Graves et al., ICML 2006; yalecyu/crnn.caffe, ctc_loss_layer.cpp.
    """

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.check_scores(x)
        self.check_labels(1, label, (x.shape[1], 0), "labels (N, L)")
        opt = self.opt
        fact = f"alphabet_size is {opt.alphabet_size}, expected {x.shape[2]}, the number of scores"
        self.require(opt.alphabet_size == x.shape[2], fact)
        fact = f"time_step is {opt.time_step}, expected 1 to {x.shape[0]}, the number of steps"
        self.require(0 < opt.time_step <= x.shape[0], fact)
        self.read_blank(True, opt.blank_label, x.shape[2])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x, label = x.flatten(2), label.detach().flatten(1)
        return self.losses(x[: self.opt.time_step], label, label != self.blank, None).mean()


class CTCLoss(_Ctc, bottoms=3, options="ctc_loss_param"):
    """CTC loss for sequences of different lengths.

    bottoms: scores x (T, N, C); indicators (T, N), 0 where a sequence begins, and only the first sequence is read;
    labels (T, N), which end at the first negative one   top: loss ()

        loss = -sum over items of log(sum over alignments of the product over steps of softmax(x)) / N

    The first output_delay steps are ignored. preprocess_collapse_repeated merges repeated labels. An item without
    labels has loss 0; more labels than the steps can hold are an error. blank_index is required; negative means the
    last class. loss_calculation_t has no effect, since each step gives the same result.
    Source: Graves et al., ICML 2006; ChWick/caffe, ctc_loss_layer.cpp.
    """

    def setup(self, x: Tensor, indicator: Tensor, label: Tensor) -> None:
        opt = self.opt
        self.check_scores(x)
        self.check_labels(1, indicator, tuple(x.shape[:2]), "indicators (T, N)")  # type: ignore[arg-type]
        self.check_labels(2, label, tuple(x.shape[:2]), "labels (T, N)")  # type: ignore[arg-type]
        self.require(opt.ctc_merge_repeated, "ctc_merge_repeated: false is not implemented; remove it")
        fact = f"output_delay is {opt.output_delay}, expected 0 to {x.shape[0] - 1}"
        self.require(0 <= opt.output_delay < x.shape[0], fact)
        self.read_blank(opt.HasField("blank_index"), opt.blank_index, x.shape[2])

    def forward(self, x: Tensor, indicator: Tensor, label: Tensor) -> Tensor:
        x, label = x.flatten(2), label.detach().flatten(1).mT
        kept = (label >= 0).cumprod(1).bool()
        some = kept.any(1)
        if self.opt.preprocess_collapse_repeated:
            kept = torch.cat([kept[:, :1], kept[:, 1:] & (label[:, 1:] != label[:, :-1])], 1)
        steps = (_steps_of(indicator.detach().flatten(1)) - self.opt.output_delay).clamp(min=0)
        whole = (label + 0.5).floor()
        if can_look(label) and not is_exact():
            counts = kept.sum(1)
            if bool((some & (counts > steps)).any()):
                item = int((some & (counts > steps)).nonzero()[0])
                fact = f"item {item} has {int(counts[item])} labels and {int(steps[item])} steps"
                self.error(f"{fact}; expected at least as many")
        made = self.losses(x[self.opt.output_delay :], whole, kept, steps)
        return made.where(some, 0).sum() / x.shape[1]


class WarpCTCLoss(_Ctc, bottoms=(2, 4), options="ctc_loss_param"):
    """CTC loss with the bottoms of warp-ctc's layer.

    bottoms: scores x (T, N, C), and   top: loss ()
        labels (N, L), where blank_index entries are ignored; or
        indicators (T, N), 0 where a sequence begins, and labels (T, N), which end at the first negative one and start
        at 1 if blank_index is 0; or
        steps (N), numbers of labels (N), and labels (L, N)

        loss = -sum over items of log(sum over alignments of the product over steps of softmax(x)) / N

    An item with too few steps for its labels has loss 0. blank_index is required.
    Source: Graves et al., ICML 2006; ChWick/caffe, warp_ctc_loss_layer.cpp.
    """

    def setup(self, x: Tensor, *others: Tensor) -> None:
        opt = self.opt
        self.check_scores(x)
        steps, items = x.shape[:2]
        if len(others) == 1:
            self.check_labels(1, others[0], (items, 0), "labels (N, L)")
        elif len(others) == 2:
            self.check_labels(1, others[0], (steps, items), "indicators (T, N)")
            self.check_labels(2, others[1], (steps, items), "labels (T, N)")
        else:
            for i in (0, 1):
                fact = f"{self.bottom_name(i + 1)} has {others[i].numel()} elements, expected one for each of {items}"
                self.require(others[i].numel() == items, f"{fact} items")
            self.check_labels(3, others[2], (0, items), "labels (L, N)")
        others_given = [name for name in ("output_delay", "loss_calculation_t") if getattr(opt, name)]
        self.require(not others_given, f"{', '.join(others_given)} belongs to CTCLoss; remove it")
        self.read_blank(opt.HasField("blank_index"), opt.blank_index, x.shape[2])

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        x, flat = x.flatten(2), [y.detach().flatten(1) if y.dim() > 1 else y.detach() for y in others]
        if len(flat) == 1:
            return self.losses(x, flat[0], flat[0] != self.blank, None).mean()
        if len(flat) == 2:
            label = flat[1].mT
            kept = (label >= 0).cumprod(1).bool()
            steps = _steps_of(flat[0]).where(kept.any(1), 0)
            label = (label + 0.5).floor() + (1 if self.blank == 0 else 0)
            return self.losses(x, label, kept, steps).where(kept.any(1), 0).mean()
        steps, counts, label = flat[0].flatten().long(), flat[1].flatten().long(), flat[2].mT
        if can_look(x) and not is_exact():
            fits = bool((steps >= 0).all() and (steps <= len(x)).all() and (counts <= label.shape[1]).all())
            self.require(fits, f"has numbers of steps beyond {len(x)}, or of labels beyond {label.shape[1]}")
        kept = torch.arange(label.shape[1], device=label.device) < counts.unsqueeze(1)
        return self.losses(x, label, kept, steps.clamp(0, len(x))).mean()


def _told(best: Tensor, blank: int, there: Tensor, merge: bool = True) -> tuple[Tensor, Tensor]:
    """Decode the best labels (N, T): the decoded labels (N, T), moved to the front, and their number (N)."""
    new = torch.cat([torch.ones_like(there[:, :1]), best[:, 1:] != best[:, :-1]], 1) if merge else there
    kept = new & (best != blank) & there
    order = torch.argsort(~kept, dim=1, stable=True)
    return best.gather(1, order), kept.sum(1)


def _distances(a: Tensor, counts: Tensor, b: Tensor, others: Tensor) -> Tensor:
    """The edit distance (N) between rows of a (N, T) of length counts (N) and rows of b (N, L) of length others (N)."""
    row = torch.arange(b.shape[1] + 1, device=a.device).expand(len(a), -1)
    place = torch.arange(b.shape[1] + 1, device=a.device)
    result = row.gather(1, others.unsqueeze(1)).squeeze(1)
    for step in range(a.shape[1]):
        swapped = row[:, :-1] + (a[:, step : step + 1] != b)
        first = torch.cat([row[:, :1] + 1, torch.minimum(swapped, row[:, 1:] + 1)], 1)
        row = (first - place).cummin(1).values + place  # insertions from the left
        result = row.gather(1, others.unsqueeze(1)).squeeze(1).where(counts == step + 1, result)
    return result


class _Decoder(Layer, abstract=True):
    """Base of the decoders: take the best label of each step, merge repeated labels and remove blanks."""

    constant = (0, 1, 2)
    exempt = (0, 1, 2)

    def check_scores(self, x: Tensor) -> None:
        """Check that x is (T, N, C) and that the blank label is one of the C classes."""
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (T, N, C): steps, items, scores"
        self.require(x.dim() >= 3 and x.shape[3:].numel() == 1 and min(x.shape[:3]) > 0, fact)
        blank = self.opt.blank_index
        self.blank = blank if blank >= 0 else x.shape[2] - 1
        self.require(self.blank < x.shape[2], f"blank_index is {blank}, and there are {x.shape[2]} scores")


class _CTCDecoder(_Decoder, abstract=True):
    """Base of CTCDecoder, which finds the steps of each item."""

    def _accuracy(self, told: Tensor, counts: Tensor, label: Tensor) -> Tensor:
        others = (label >= 0).cumprod(1).sum(1).long()
        far = _distances(told, counts, (label + 0.5).floor().long(), others)
        return 1 - (far / torch.maximum(counts, others).clamp(min=1)).sum() / len(told)


class CTCDecoder(_CTCDecoder, bottoms=(2, 3), tops=(1, 3)):
    """Decodes the best labels of sequences, and compares them with the true labels.

    bottoms: scores x (T, N, C); indicators (T, N), 0 where a sequence begins; optionally true labels (T, N), which end
    at the first negative one   tops: labels (N, T, 1, 1), padded with -1; score (N, 1, 1, 1), the product of the
    largest x of each step; accuracy (1, 1, 1, 1). With three bottoms and two tops, the second is the accuracy.

        accuracy = 1 - sum of edit distance / length of the longer one / N

    blank_index defaults to 0; negative means the last class. ctc_merge_repeated: false keeps repeated labels.
    Source: ChWick/caffe, ctc_decoder_layer.cpp; senlinuc/caffe_ocr.
    """

    traceable = False

    def setup(self, x: Tensor, indicator: Tensor, *label: Tensor) -> None:
        self.check_scores(x)
        for i, y in enumerate((indicator, *label), 1):
            fact = f"{self.bottom_name(i)} has shape {shape_text(y.shape)}, expected (T, N)"
            self.require(y.shape[:2] == x.shape[:2] and y.numel() == x.shape[:2].numel(), fact)
        fits = self.top_count <= (3 if label else 2)
        self.require(fits, "has three tops and no true labels; expected labels and score, or a third bottom")

    def forward(self, x: Tensor, indicator: Tensor, *label: Tensor) -> tuple[Tensor, ...]:
        largest, best = x.detach().flatten(2).max(2)
        steps = _steps_of(indicator.detach().flatten(1))
        there = torch.arange(len(x), device=x.device).unsqueeze(1) < steps
        told, counts = _told(best.mT, self.blank, there.mT, self.opt.ctc_merge_repeated)
        kept = torch.arange(len(x), device=x.device) < counts.unsqueeze(1)
        tops = [told.where(kept, -1).to(x.dtype)[:, :, None, None]]
        if self.top_count == 3 or (self.top_count == 2 and not label):
            tops.append(largest.where(there, 1).prod(0).view(-1, 1, 1, 1))
        if self.top_count > len(tops):
            tops.append(self._accuracy(told, counts, label[0].detach().flatten(1).mT).to(x.dtype).view(1, 1, 1, 1))
        return tuple(tops)


class CTCGreedyDecoder(_Decoder, options="ctc_decoder_param"):
    """Decodes the best labels of sequences that all have T steps.

    bottom: scores x (T, N, C)   top: labels (N, T), padded with -1

    blank_index defaults to 0; negative means the last class. ctc_merge_repeated: false keeps repeated labels.
    Source: senlinuc/caffe_ocr. A second bottom with true labels is not supported.
    """

    def setup(self, x: Tensor) -> None:
        self.check_scores(x)

    def forward(self, x: Tensor) -> Tensor:
        best = x.detach().flatten(2).argmax(2).mT
        told, counts = _told(best, self.blank, torch.ones_like(best, dtype=torch.bool), self.opt.ctc_merge_repeated)
        return told.where(torch.arange(len(x), device=x.device) < counts.unsqueeze(1), -1).to(x.dtype)


class LabelsequenceAccuracy(Layer, bottoms=2):
    """The share of items whose decoded labels all equal the true labels.

    bottoms: scores x (N, T, C); true labels (N, L), where blank_label entries are ignored   top: accuracy ()

    Labels are decoded as by CTCGreedyDecoder, with blank_label. Source: yalecyu/crnn.caffe.
    """

    constant = (0, 1)
    exempt = (0, 1)
    traceable = False

    def setup(self, x: Tensor, label: Tensor) -> None:
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, T, C): items, steps, scores"
        self.require(x.dim() >= 3 and x.shape[3:].numel() == 1 and min(x.shape[:3]) > 0, fact)
        fact = f"{self.bottom_name(1)} has shape {shape_text(label.shape)}, expected (N, L) with N = {x.shape[0]}"
        self.require(label.dim() >= 2 and label.shape[0] == x.shape[0] and label.shape[2:].numel() == 1, fact)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        best, blank = x.detach().flatten(2).argmax(2), self.opt.blank_label
        told, counts = _told(best, blank, torch.ones_like(best, dtype=torch.bool))
        true = label.detach().flatten(1).long()
        kept = true != blank
        true = true.gather(1, torch.argsort(~kept, dim=1, stable=True))
        width = min(true.shape[1], told.shape[1])
        beyond = torch.arange(width, device=x.device) >= counts.unsqueeze(1)
        same = ((told[:, :width] == true[:, :width]) | beyond).all(1) & (counts == kept.sum(1))
        return same.to(x.dtype).mean()
