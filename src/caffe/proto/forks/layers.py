"""Layer types and values that forks of Caffe have and this package has not, each with its origin.

An error calls such a name by its origin instead of suggesting a known name that is spelled alike and does something
else. When a layer or value is added to the package, its entry here is deleted; a test compares the two.
"""

from __future__ import annotations

from caffe.proto.forks import origins as of

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]

_OWN = 'write it as a layer of your own (docs/layers_own.md, --import FILE) or as a "Python" layer'

LAYERS: dict[str, tuple[str, str]] = {
    "AdaptiveBiasChannel": (of.DEEPLAB, ""),
    "AnchorEmbeddingExtractor": (of.OPENVINO, ""),
    "BlackAugmentation": (of.FLOWNET, ""),
    "DataAugmentation": (of.FLOWNET, ""),
    "DenseBlock": (of.OCR, ""),
    "DenseCRF": (of.DEEPLAB, ""),
    "DetectNetGroundTruth": (of.NVIDIA, ""),
    "DomainTransform": (of.DEEPLAB, ""),
    "FlowAugmentation": (of.FLOWNET, ""),
    "TRT": (of.NVIDIA, "run the net of its deploy and model instead: caffe.Net(deploy, model)"),
}
"""Layer type -> its origin, and the way out if the package can compute the same."""

VALUES: dict[str, tuple[str, str]] = {
    "Reg_Col": (of.INCREG, "prune with Caffe_IncReg"),
    "gabor": (of.INTEL, ""),
    "stepearly": ("junhyukoh's caffe-lstm", 'write "plateau" (docs/solvers.md)'),
}
"""Values of fields that name a filler, policy or the like."""


def foreign_layer(name: str) -> str:
    """What follows `layer type "Permute"` if a fork has this type; else an empty string."""
    if name not in LAYERS:
        return ""
    origin, instead = LAYERS[name]
    return f" comes from a fork of Caffe ({origin}), and Cafetière does not have it; {instead or _OWN}"


def foreign_value(name: str) -> str:
    """What follows `unknown filler type "gabor"` if a fork has this value; else an empty string."""
    if name not in VALUES:
        return ""
    origin, instead = VALUES[name]
    return f": it comes from a fork of Caffe ({origin}); {instead or 'use one of the known ones'}"
