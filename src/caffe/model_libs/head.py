"""The head of SSD: predictions and prior boxes for several layers of a net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from caffe.model_libs.blocks import ConvBNLayer
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L

__all__ = ["CreateMultiBoxHead"]


@dataclass
class _Head:
    """The arguments of `CreateMultiBoxHead` with their defaults, without those of ConvBNLayer."""

    use_objectness: bool = False
    normalizations: Sequence[float] = ()
    use_batchnorm: bool = True
    lr_mult: float = 1
    use_scale: bool = True
    min_sizes: Sequence[Any] = ()
    max_sizes: Sequence[Any] = ()
    prior_variance: Sequence[float] = (0.1,)
    aspect_ratios: Sequence[Any] = ()
    steps: Sequence[float] = ()
    img_height: int = 0
    img_width: int = 0
    share_location: bool = True
    flip: bool = True
    clip: bool = True
    offset: float = 0.5
    inter_layer_depth: Sequence[int] = ()
    kernel_size: int = 1
    pad: int = 0
    conf_postfix: str = ""
    loc_postfix: str = ""

    def outputs(self, num_classes: int) -> list[tuple[str, str, int]]:
        """The predictions: their name, its ending, and the number of values for each prior."""
        made = [("mbox_loc", self.loc_postfix, 4 if self.share_location else 4 * num_classes)]
        made.append(("mbox_conf", self.conf_postfix, num_classes))
        return [*made, ("mbox_objectness", "", 2)] if self.use_objectness else made

    def priors(self, index: int) -> tuple[int, dict[str, Any]]:
        """The number of priors per cell for a layer, and the fields of its PriorBox."""
        sizes, ratios, largest = (_listed(each, index) for each in (self.min_sizes, self.aspect_ratios, self.max_sizes))
        prior: dict[str, Any] = {"min_size": sizes, "clip": self.clip, "variance": list(self.prior_variance)}
        prior["offset"] = self.offset
        prior |= {"max_size": largest} if largest else {}
        prior |= {"aspect_ratio": ratios, "flip": self.flip} if ratios else {}
        prior |= {"step": self.steps[index]} if len(self.steps) > index and self.steps[index] else {}
        prior |= _image(self.img_height, self.img_width)
        return (1 + bool(largest) + len(ratios) * (1 + bool(self.flip))) * len(sizes), prior


def CreateMultiBoxHead(
    net: NetSpec, data_layer: str = "data", num_classes: int = 0, from_layers: Sequence[str] = (), **options: Any
) -> list[Top]:
    """Add predictions of offsets and scores and prior boxes for each of `from_layers`, and concatenate them.

    Returns mbox_loc, mbox_conf, mbox_priorbox and, with `use_objectness`, mbox_objectness. The options are, as in SSD:
    use_objectness, normalizations, use_batchnorm, lr_mult, min_sizes, max_sizes, prior_variance, aspect_ratios, steps,
    img_height, img_width, share_location, flip, clip, offset, inter_layer_depth, kernel_size, pad, conf_postfix,
    loc_postfix, and those of BatchNorm for ConvBNLayer. Lists have a value for each layer: a normalization of -1 adds
    no Normalize layer, a depth of 0 no layer between. use_scale has no effect, as in SSD.
    """
    known = {field.name for field in fields(_Head)}
    head = _Head(**{name: value for name, value in options.items() if name in known})
    norm = {name: value for name, value in options.items() if name not in known}
    _check(net, data_layer, num_classes, from_layers, head)
    conv = {"use_bn": head.use_batchnorm, "lr_mult": head.lr_mult, "stride": 1, **norm}
    parts: dict[str, list[Top]] = {"mbox_loc": [], "mbox_conf": [], "mbox_priorbox": [], "mbox_objectness": []}
    for i, source in enumerate(from_layers):
        if head.normalizations and head.normalizations[i] != -1:
            source = _normalized(net, source, head.normalizations[i])
        if head.inter_layer_depth and head.inter_layer_depth[i] > 0:
            name, depth = f"{source}_inter", head.inter_layer_depth[i]
            ConvBNLayer(net, source, name, use_relu=True, num_output=depth, kernel_size=3, pad=1, **conv)
            source = name
        count, prior = head.priors(i)
        for kind, postfix, width in head.outputs(num_classes):
            name = f"{source}_{kind}{postfix}"
            window: dict[str, Any] = {"kernel_size": head.kernel_size, "pad": head.pad}
            ConvBNLayer(net, source, name, use_relu=False, num_output=count * width, **window, **conv)
            parts[kind].append(_flat(net, name))
        net[f"{source}_mbox_priorbox"] = L.PriorBox(net[source], net[data_layer], **prior)
        parts["mbox_priorbox"].append(net[f"{source}_mbox_priorbox"])
    made = [kind for kind in parts if parts[kind]]
    for kind in made:
        net[kind] = L.Concat(*parts[kind], axis=2 if kind == "mbox_priorbox" else 1)
    return [net[kind] for kind in made]


def _check(net: NetSpec, data_layer: str, num_classes: int, from_layers: Sequence[str], head: _Head) -> None:
    """Raise a `ValueError` for arguments that do not fit."""
    if not num_classes or num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected a number above 0, with the background")
    if data_layer not in net.tops:
        raise ValueError(f'the net has no layer "{data_layer}", which data_layer names')
    for name in ("min_sizes", "normalizations", "max_sizes", "aspect_ratios", "steps", "inter_layer_depth"):
        given, wanted = getattr(head, name), len(from_layers)
        if len(given) != wanted and (given or name == "min_sizes"):
            raise ValueError(f"{name} has {len(given)} values, expected one for each of the {wanted} from_layers")


def _listed(values: Sequence[Any], index: int) -> list[Any]:
    """The value of a layer as a list; empty if there is none."""
    if len(values) <= index:
        return []
    value = values[index]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _normalized(net: NetSpec, source: str, value: float) -> str:
    name = f"{source}_norm"
    scale = {"type": "constant", "value": value}
    net[name] = L.Normalize(net[source], scale_filler=scale, across_spatial=False, channel_shared=False)
    return name


def _flat(net: NetSpec, name: str) -> Top:
    """Put the channels last and flatten."""
    net[f"{name}_perm"] = L.Permute(net[name], order=[0, 2, 3, 1])
    net[f"{name}_flat"] = L.Flatten(net[f"{name}_perm"], axis=1)
    top: Top = net[f"{name}_flat"]
    return top


def _image(height: int, width: int) -> dict[str, int]:
    """The fields of PriorBox for the size of the image; none if it is not given."""
    if not (height and width):
        return {}
    return {"img_size": height} if height == width else {"img_h": height, "img_w": width}
