"""The layer that augments images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from caffe import log
from caffe.layers.augmentation.affine import Affine
from caffe.layers.augmentation.checks import as_maps, check_coefficients, check_fit, check_map, crop_of, grid
from caffe.layers.augmentation.coefficients import (
    CHROMATIC,
    COUNT,
    EIGEN,
    FIELDS,
    combined,
    has_changes,
    packed,
    unpacked,
    values,
)
from caffe.layers.augmentation.colours import recoloured, shaded, turned
from caffe.layers.augmentation.parameters import NOWHERE, Drawing
from caffe.layers.base import Effects, shape_text
from caffe.layers.support.bilinear import interpolated
from caffe.layers.support.options import written
from caffe.layers.support.values import can_look

__all__ = ["DataAugmentation"]


class _Images(Drawing, abstract=True):
    """Base of DataAugmentation: the change of the images, and their mean."""

    mean: Tensor
    channel_mean: Tensor
    colour: Tensor
    crop: tuple[int, int] | None
    given: bool
    kinds: frozenset[str]
    fixed: bool

    @property
    def effects_now(self) -> Effects:
        opt, looks = self.opt, self.given and self.crop is not None and not self.kinds >= set(FIELDS)
        effects = Effects.RANDOM if self.crop and (self.draws or self.given) else Effects.NONE
        effects |= Effects.BUFFERS if self.draws or opt.recompute_mean else Effects.NONE
        return effects | (Effects.CHECKS if looks else Effects.NONE)

    def check_colours(self, x: Tensor) -> None:
        """Check the options about colours, and find the kinds of changes that may occur."""
        opt, number = self.opt, len(self.opt.chromatic_eigvec)
        self.require(number in (0, 9), f"has {number} chromatic_eigvec, expected 9")
        found = {kind: written(opt, fields) for kind, fields in FIELDS.items()}
        for kind in ("chromatic", "eigen", "effects"):
            fact = f"{', '.join(found[kind])} needs 3 channels, and {self.bottom_name(0)} has {x.shape[1]}"
            self.require(self.given or not found[kind] or x.shape[1] == 3, fact)
        self.require(self.given or number == 9 or not found["eigen"], f"{found['eigen']} needs 9 chromatic_eigvec")
        usable = set(FIELDS) if x.shape[1] == 3 else {"spatial"}
        usable -= set() if number else {"eigen"}
        self.kinds = frozenset(usable if self.given else {kind for kind, names in found.items() if names})
        every = [name for names in found.values() for name in names]
        why = "the second bottom contains the coefficients" if self.given else "there is no crop_height and crop_width"
        if every and (self.given or self.crop is None):
            log.warning("images.py", f'layer "{self.name}" ({self.type}): {", ".join(every)} have no effect: {why}')

    def check_mean(self, x: Tensor) -> None:
        """Decide which mean is subtracted."""
        opt = self.opt
        self.fixed = len(opt.mean) == 3 and not opt.mean_per_pixel and not opt.recompute_mean
        if opt.mean and not self.fixed:
            fact = "mean has no effect: it takes 3 numbers, mean_per_pixel: false and no recompute_mean"
            log.warning("images.py", f'layer "{self.name}" ({self.type}): {fact}')
        fact = f"mean has 3 numbers, and {self.bottom_name(0)} has {x.shape[1]} channels"
        self.require(not self.fixed or x.shape[1] == 3, fact)

    def adapted(self, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Stored blobs for this layer. A mean of images of another size becomes the mean of each channel.

        Without recompute_mean a stored mean is not used; a layer with it keeps its own mean if none is stored.
        """
        if not self.opt.recompute_mean:
            return arrays[:1]
        if len(arrays) == 1:
            return [*arrays, *(blob.cpu().numpy() for blob in self.tensors[1:])]
        size = self.mean.shape[2:]
        if len(arrays) != 3 or arrays[1].ndim != 4 or arrays[1].shape[2:] == size:
            return arrays
        flat = arrays[1].mean((2, 3), keepdims=True) if self.opt.mean_per_pixel else arrays[2]
        return [arrays[0], np.broadcast_to(flat, (*flat.shape[:2], *size)), flat]

    def coefficients(self, x: Tensor, given: tuple[Tensor, ...]) -> Tensor:
        """The coefficients of this run (N, 42, 1, 1)."""
        if given:
            return given[0].detach().reshape(len(x), COUNT, 1, 1)
        none = x.new_zeros(len(x), COUNT, 1, 1)
        if self.crop is None or not self.draws:
            return none
        size = (x.shape[2], x.shape[3])
        return packed(combined(self.opt, unpacked(none), "regenerate", self.discount().to(x), size, self.crop))

    def changed(self, x: Tensor, blob: Tensor, crop: tuple[int, int]) -> Tensor:
        """The images after the changes that the coefficients describe."""
        check_fit(self, crop, x)
        by, size = values(unpacked(blob), snap=True), (x.shape[2], x.shape[3])
        places = Affine.of(as_maps(by), crop, size).at(*grid(x, crop))
        ends = (n - 1.05 for n in size[::-1])  # as in the source: the last cell is never quite reached
        column, row = (p.nan_to_num(nan=end).clamp(max=end).clamp(min=0) for p, end in zip(places, ends, strict=True))
        y, most = interpolated(x, row, column), self.opt.max_multiplier
        if not self.given and not self.draws:
            return y
        y = turned(y, x, by, list(self.opt.chromatic_eigvec), most) if "eigen" in self.kinds else y
        y = recoloured(y, by, most) if "chromatic" in self.kinds else y
        return shaded(y, by, most) if "effects" in self.kinds else y

    def check_usable(self, blob: Tensor) -> None:
        """Raise an error for given coefficients that cannot be applied to these images."""
        names = {"chromatic": CHROMATIC, "eigen": EIGEN, "effects": ("shadow_strength", "noise")}
        for kind in names.keys() - self.kinds if can_look(blob) else ():
            by = values(unpacked(blob), snap=True)
            found = [name for name in names[kind] if has_changes(by, (name,))]
            fact = f"{self.bottom_name(1)} contains {', '.join(found)}, which needs images of 3 channels"
            self.require(not found, f"{fact} and, for {EIGEN[0]} to {EIGEN[-1]}, 9 chromatic_eigvec")

    def learned_mean(self, x: Tensor) -> Tensor:
        """The mean after this run. It is learned in the first recompute_mean runs, and constant afterwards."""
        n, per_pixel, fits = self.count, self.opt.mean_per_pixel, self.mean.shape[2:] == x.shape[2:]
        size = f"{x.shape[2]} x {x.shape[3]}"
        self.require(fits or not per_pixel, f"the mean has shape {shape_text(self.mean.shape)}, the images are {size}")
        pairs = [(self.channel_mean, x.mean((0, 2, 3)).view(1, -1, 1, 1))]
        pairs += [(self.mean, x.mean(0, keepdim=True))] if fits else []
        for mean, now in pairs:
            mean.copy_(((mean * (n - 1) + now) / n).where(n <= self.opt.recompute_mean, mean))
        return self.mean if per_pixel else self.channel_mean


class DataAugmentation(_Images, bottoms=(1, 2), tops=(1, 2), options="augmentation_param"):
    """Moves, rotates, zooms and recolours a crop of each image, then subtracts a mean. There is no gradient.

    bottoms: x (N, C, H, W), colours from 0 to 1; optionally coefficients (N, 42, 1, 1), else TRAIN, and TEST with
    augment_during_test, draw them   tops: y (N, C, crop_height, crop_width), x without a crop; the coefficients

        y = x at A p, bilinear, from 0 to H - 1.05 and W - 1.05, with A of Affine; then eigen-colours, colours, effects
        TEST without coefficients: y = the crop at the centre; with recompute_mean: k or mean, y minus that mean

    blobs: runs (1, 1, 1, 1), counted if they matter, and with recompute_mean the mean (1, C, h, w) and (1, C, 1, 1).
    fog and motion_blur only limit values to 0 ... max_multiplier; write_augmented and write_mean do nothing.
    Source: Dosovitskiy et al., arXiv:1504.06852 (FlowNet); lmb-freiburg/flownet2, data_augmentation_layer.cu.
    """

    constant = (0, 1)
    exempt = (0, 1)
    effects = Effects.RANDOM | Effects.BUFFERS | Effects.CHECKS
    without_effect = (*NOWHERE, "mode", "bottomwidth", "bottomheight", "num")

    def setup(self, x: Tensor, *given: Tensor) -> None:
        check_map(self, 0, x, None)
        self.given, self.crop = bool(given), crop_of(self, False)
        if self.crop is not None:
            check_fit(self, self.crop, x)
        for blob in given:
            check_coefficients(self, 1, blob, len(x))
        self.check_options()
        self.check_colours(x)
        self.check_mean(x)
        self.add_blob("count", (1, 1, 1, 1), trained=False)
        if self.opt.recompute_mean:
            self.add_blob("mean", (1, x.shape[1], *(self.crop or x.shape[2:])), trained=False)
            self.add_blob("channel_mean", (1, x.shape[1], 1, 1), trained=False)
        if self.fixed:
            self.register_buffer("colour", torch.tensor(list(self.opt.mean)).view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        if Effects.BUFFERS in self.effects_now:
            self.count.add_(1)
        blob = self.coefficients(x, given)
        if given and self.crop is not None:
            self.check_usable(blob)
        y = x.detach().clone() if self.crop is None else self.changed(x.detach(), blob, self.crop)
        if self.opt.recompute_mean:
            y = y - self.learned_mean(y)
        return (y - self.colour.to(y) if self.fixed else y, blob.clone())[: self.top_count]
