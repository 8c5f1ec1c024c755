"""Common checks of SSD's layers that read predictions."""

from __future__ import annotations

from torch import Tensor

from caffe.layers.base import Layer, shape_text

__all__ = ["check_predictions"]


def check_predictions(
    layer: Layer, bottoms: tuple[Tensor, Tensor, Tensor], places: tuple[int, int, int], loc_classes: int, classes: int
) -> None:
    """Raise the layer's error unless the shapes of loc, conf and priors, the bottoms at `places`, are consistent."""
    loc, conf, priors = bottoms
    fact = f"{layer.bottom_name(places[2])} has shape {shape_text(priors.shape)}, expected (1, 2, 4 x prior boxes)"
    sound = priors.dim() >= 2 and priors.shape[0] == 1 and priors.shape[1] == 2
    layer.require(sound and priors[0, 0].numel() % 4 == 0, fact)
    count = priors.numel() // 8
    for place, x, each in ((places[0], loc, 4 * loc_classes), (places[1], conf, classes)):
        numbers = x[0].numel() if x.dim() and x.shape[0] else 0
        fact = f"{layer.bottom_name(place)} has shape {shape_text(x.shape)}, expected {each} numbers an item for each"
        layer.require(numbers == count * each, f"{fact} of the {count} prior boxes, {count * each}")
    fact = f"{layer.bottom_name(places[0])} has {loc.shape[0]} items, {layer.bottom_name(places[1])} {conf.shape[0]}"
    layer.require(loc.shape[0] == conf.shape[0], f"{fact}; expected equal numbers")
