"""The layer that draws coefficients, and the base of those that do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.augmentation.checks import check_coefficients, check_kinds, check_map, crop_of
from caffe.layers.augmentation.coefficients import COUNT, EFFECTS, FIELDS, combined, packed, unpacked
from caffe.layers.base import Effects, Layer

__all__ = ["NOWHERE", "Drawing", "GenerateAugmentationParameters"]

_MODES = ("add", "replace", "regenerate")
_DISTRIBUTIONS = tuple(field for fields in FIELDS.values() for field in fields)
NOWHERE = ("write_augmented", "write_mean", *EFFECTS[:4])
"""Options that change nothing in the source, except that values are limited."""


class Drawing(Layer, abstract=True):
    """Base of the layers that draw coefficients: options, and the schedule, which follows the number of runs."""

    more_options = ("coeff_schedule_param",)
    count: Tensor

    @property
    def draws(self) -> bool:
        """Whether random numbers are drawn in the present phase."""
        return self.training or bool(self.opt.augment_during_test)

    def check_options(self) -> None:
        check_kinds(self, _DISTRIBUTIONS)
        half = self.spec.coeff_schedule_param.half_life
        self.require(half > 0, f"half_life is {half:g}, expected a number above 0")
        self.require(self.opt.mode in _MODES, f'mode is "{self.opt.mode}", expected one of {", ".join(_MODES)}')

    def discount(self) -> Tensor:
        """The factor of the spreads in this run, which goes from initial_coeff to final_coeff: a tensor ()."""
        schedule = self.spec.coeff_schedule_param
        share = 2 / (1 + torch.exp(-1.0986 * self.count.view(()) / schedule.half_life)) - 1
        return schedule.initial_coeff + (schedule.final_coeff - schedule.initial_coeff) * share


class GenerateAugmentationParameters(Drawing, bottoms=(1, 3), options="augmentation_param"):
    """Draws coefficients for DataAugmentation and FlowAugmentation. There is no gradient.

    bottoms: x (N, C, H, W), which gives the size and has neutral coefficients; or coefficients (N, 42, 1, 1), with
    bottomheight, bottomwidth; or coefficients, an image and its crop   top (N, 42, 1, 1)

    mode "add" adds to the given coefficients, "replace" replaces what is drawn, "regenerate" starts from neutral ones.
    Spatial changes are drawn 49 times; the first whose crop lies in the image counts. If there is none, the given ones
    stay. Spreads follow coeff_schedule_param over the runs. TEST without augment_during_test copies, or gives zeros.
    Without a crop bottom, crop_height and crop_width are needed. Options that only DataAugmentation reads are named.
    Source: lmb-freiburg/flownet2, generate_augmentation_parameters_layer.cu and augmentation_layer_base.cpp.
    """

    constant = (0, 1, 2)
    exempt = (0, 1, 2)
    effects = Effects.RANDOM | Effects.BUFFERS
    traceable = False  # torch.compile cannot trace the question which options are set
    without_effect = (
        *NOWHERE,
        *("recompute_mean", "mean_per_pixel", "mean", "max_multiplier", "chromatic_eigvec", "num"),
    )
    mode: str

    @property
    def effects_now(self) -> Effects:
        return self.effects if self.draws else Effects.NONE

    def setup(self, first: Tensor, *others: Tensor) -> None:
        self.check_options()
        self.require(len(others) != 1, "has 2 bottoms, expected 1, or 3: coefficients, an image and its crop")
        self.mode = "regenerate" if not others and _is_planar(first) else self.opt.mode
        if others or self.mode != "regenerate":
            check_coefficients(self, 0, first, len(first) if first.dim() else 0)
        for index, x in enumerate(others, 1):
            check_map(self, index, x, None)
        if not others:
            crop_of(self, True)
        (height, width), _ = _sizes(self.opt, first, *others)
        self.require(min(height, width) > 0, "needs bottomheight and bottomwidth: no bottom has the size of the image")
        self.register_buffer("count", torch.zeros(1))

    @torch.no_grad()
    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        fresh = self.mode == "regenerate"
        base = first.new_zeros(len(first), COUNT, 1, 1) if fresh else first.detach().reshape(-1, COUNT, 1, 1).clone()
        if not self.draws:
            return base
        self.count.add_(1)
        sizes = _sizes(self.opt, first, *others)
        return packed(combined(self.opt, unpacked(base), self.mode, self.discount().to(base), *sizes))


def _is_planar(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[2:].numel() > 1


def _sizes(opt: Any, *bottoms: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Heights and widths of the image and of its crop."""
    if len(bottoms) == 3:
        image, crop = ((x.shape[2], x.shape[3]) for x in bottoms[1:])
        return image, crop
    first, given = bottoms[0], (opt.bottomheight, opt.bottomwidth)
    return (first.shape[2], first.shape[3]) if _is_planar(first) else given, (opt.crop_height, opt.crop_width)
