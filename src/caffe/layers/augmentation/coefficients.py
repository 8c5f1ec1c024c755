"""The coefficients of FlowNet's augmentations: their names and order, and how they are drawn.

A blob (N, 42, 1, 1) holds the coefficients of N images, each as its difference from the value that changes nothing: the
logarithm of those that multiply, and the value of those that are added. The sum of two blobs does both augmentations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.augmentation.affine import Affine

__all__ = ["CHROMATIC", "COUNT", "EFFECTS", "EIGEN", "FIELDS", "KINDS", "NAMES", "SPATIAL"]
__all__ += ["Columns", "combined", "drawn", "flags", "has_changes", "packed", "unpacked", "values"]

Columns = dict[str, Tensor]
"""Name -> the coefficients (N) of all images."""

KINDS = ("uniform", "gaussian", "bernoulli", "uniform_bernoulli", "gaussian_bernoulli")
SPATIAL = ("mirror", "dx", "dy", "angle", "zoom_x", "zoom_y")
CHROMATIC = ("gamma", "brightness", "contrast", "color1", "color2", "color3")
EIGEN = (
    *(
        f"{kind}_{when}{axis}"
        for when in ("nomean", "withmean")
        for kind in ("pow", "add", "mult")
        for axis in range(3)
    ),
    *("lmult_pow", "lmult_add", "lmult_mult", "col_angle"),
)
EFFECTS = (
    *("fog_amount", "fog_size", "motion_blur_angle", "motion_blur_size"),
    *("shadow_angle", "shadow_distance", "shadow_strength", "noise"),
)
NAMES = (*SPATIAL, *CHROMATIC, *EIGEN, *EFFECTS)
"""The coefficients in the order of a blob."""
COUNT = len(NAMES)

_ADDED = ("add_", "lmult_add", "col_angle", "brightness", "mirror", "dx", "dy", "angle")
_MULTIPLIES = {name: not name.startswith(_ADDED) and name not in EFFECTS for name in NAMES}
_TRIES = 49
"""How often a spatial change is drawn. The source draws 50 times, and discards the last one."""

FIELDS = {
    "spatial": ("mirror", "translate", "translate_x", "translate_y", "rotate", "zoom", "squeeze"),
    "chromatic": ("gamma", "brightness", "contrast", "color"),
    "eigen": (
        *(f"{kind}_{how}" for kind in ("lmult", "sat", "col", "ladd") for how in ("pow", "mult", "add")),
        "col_rotate",
    ),
    "effects": EFFECTS,
}
"""The fields of AugmentationParameter that contain distributions, by kind."""

_TARGETS = {
    **{name: (name,) for name in ("gamma", "brightness", "contrast", "lmult_pow", "lmult_mult", "lmult_add", "noise")},
    "color": ("color1", "color2", "color3"),
    "col_rotate": ("col_angle",),
    **{f"ladd_{how}": (f"{how}_nomean0",) for how in ("pow", "add", "mult")},
    **{f"col_{how}": (f"{how}_nomean1", f"{how}_nomean2") for how in ("pow", "add", "mult")},
    **{f"sat_{how}": (f"{how}_withmean1 {how}_withmean2",) for how in ("pow", "add", "mult")},
}
"""Field -> coefficients, each of which gets a number of its own. Names in one string share a number."""

_GROUPS = (EFFECTS[:2], EFFECTS[2:4], EFFECTS[4:7])
"""Effects that are drawn together if one of them is given. The others are then 0."""


def unpacked(blob: Tensor) -> Columns:
    """The columns of a blob (N, 42, 1, 1), as they are stored."""
    return dict(zip(NAMES, blob.detach().reshape(len(blob), COUNT).unbind(1), strict=True))


def packed(columns: Columns) -> Tensor:
    """The blob (N, 42, 1, 1) of stored columns."""
    return torch.stack([columns[name] for name in NAMES], 1).view(-1, COUNT, 1, 1)


def values(columns: Columns, snap: bool = False) -> Columns:
    """The values of stored columns. With `snap`, values less than 0.001 from the neutral one are set to it."""
    found = {}
    for name, x in columns.items():
        neutral = 1.0 if _MULTIPLIES[name] else 0.0
        x = x.exp() if neutral else x
        found[name] = torch.where((x - neutral).abs() < 1e-3, neutral, x) if snap else x
    return found


def has_changes(by: Columns, names: tuple[str, ...]) -> Tensor:
    """Whether any of these coefficients, of any image, has a value that is not neutral: a tensor ()."""
    return torch.stack([(by[name] != (1 if _MULTIPLIES[name] else 0)).any() for name in names]).any()


def flags(param: Any, like: Tensor, discount: Tensor | float, otherwise: float | None) -> Tensor:
    """Whether the numbers that `drawn` draws, before they are rounded, differ from 0."""
    return _drawn(param, like, discount, otherwise, False) != 0


def drawn(param: Any, like: Tensor, discount: Tensor | float, otherwise: float | None = None) -> Tensor:
    """Random numbers in the shape of `like` from the distribution of a RandomGeneratorParameter.

    `discount` multiplies the spread if apply_schedule is true. Where a distribution that ends in _bernoulli draws
    nothing, the number is `otherwise`, or that of a draw of 0 if it is None.
    """
    return _drawn(param, like, discount, otherwise, param.discretize)


def _drawn(param: Any, like: Tensor, discount: Tensor | float, otherwise: float | None, whole: bool) -> Tensor:
    kind = param.rand_type
    happens = torch.rand_like(like) < param.prob if kind.endswith("bernoulli") else None
    if kind == "bernoulli":
        assert happens is not None
        value = happens.to(like)
    else:
        noise = torch.randn_like(like) if kind.startswith("gaussian") else torch.rand_like(like) * 2 - 1
        spread = torch.clamp(like.new_ones(()) * param.spread * (discount if param.apply_schedule else 1), min=0)
        value = param.mean + spread * noise
        value = value if happens is None else value.where(happens, 0)
        value = value.exp() if param.exp else value
    if whole:
        value = (value.abs() + 0.5).floor() * value.sign()
    value = value * param.multiplier
    skips = happens is not None and kind != "bernoulli" and otherwise is not None
    return value.where(happens, otherwise) if skips else value  # type: ignore[arg-type]


def combined(
    aug: Any, base: Columns, mode: str, discount: Tensor, size: tuple[int, int], crop: tuple[int, int]
) -> Columns:
    """Stored columns: `base` with random changes from an AugmentationParameter.

    `mode` is "add", "replace" (only what is drawn), or "regenerate" (`base` counts as neutral). `size` and `crop` are
    heights and widths of the image and of the crop.
    """
    like, made = base["dx"], dict(base)
    if mode == "regenerate":
        made = {name: torch.zeros_like(like) for name in NAMES}
    if any(aug.HasField(field) for field in FIELDS["spatial"]):
        start = {name: torch.zeros_like(like) if mode == "replace" else made[name] for name in SPATIAL}
        made.update(_valid(aug, start, discount, size, crop))
    for name, value in _colours(aug, like, discount).items():
        step = value.log() if _MULTIPLIES[name] else value
        made[name] = made[name] + step if mode == "add" else step
    return made


def _valid(aug: Any, start: Columns, discount: Tensor, size: tuple[int, int], crop: tuple[int, int]) -> Columns:
    """Stored spatial columns: `start` plus the first change whose crop lies in the image; `start` if there is none."""
    like = start["dx"].new_empty(len(start["dx"]), _TRIES)
    found = _spatial(aug, like, discount)
    tries = {}
    for name, x in start.items():
        step = found.get(name)
        step = torch.zeros_like(like) if step is None else step.log() if _MULTIPLIES[name] else step
        tries[name] = x.unsqueeze(1) + step
    fits = Affine.of(values(tries), crop, size).keeps(crop, size)
    first, any_fits = fits.int().argmax(1, keepdim=True), fits.any(1)
    return {name: tries[name].gather(1, first).squeeze(1).where(any_fits, x) for name, x in start.items()}


def _spatial(aug: Any, like: Tensor, discount: Tensor) -> Columns:
    """The values of the spatial coefficients that are drawn, in the shape of `like`."""
    made: Columns = {}

    def draw(field: str, otherwise: float = 0.0) -> Tensor:
        return drawn(getattr(aug, field), like, discount, otherwise)

    if aug.HasField("mirror"):
        made["mirror"] = flags(aug.mirror, like, 0.0, None).to(like)  # the source passes 0 as the discount
    for name in ("dx", "dy"):
        own = f"translate_{name[1]}"
        for field in ("translate", own):
            if aug.HasField(field):
                made[name] = draw(field)
    if aug.HasField("rotate"):
        made["angle"] = draw("rotate")
    if aug.HasField("zoom"):
        made["zoom_x"] = made["zoom_y"] = draw("zoom", 1.0)
    if aug.HasField("squeeze"):
        by, one = draw("squeeze", 1.0), torch.ones_like(like)
        made["zoom_x"], made["zoom_y"] = made.get("zoom_x", one) * by, made.get("zoom_y", one) / by
    return made


def _colours(aug: Any, like: Tensor, discount: Tensor) -> Columns:
    """The values of the drawn coefficients that change colours, in the shape of `like`."""
    made: Columns = {}
    for field, targets in _TARGETS.items():
        if aug.HasField(field):
            for target in targets:
                made.update(dict.fromkeys(target.split(), drawn(getattr(aug, field), like, discount)))
    for group in _GROUPS:
        if any(aug.HasField(name) for name in group):
            made.update({name: drawn(getattr(aug, name), like, discount, 0.0) for name in group})
    return made
