"""Layer types and values that exist in forks of Caffe but not in this package, each with its origin.

For these names an error states the origin, instead of suggesting a similar known name with another meaning. When a
layer or value is added to the package, delete its entry here; a test checks this.
"""

from __future__ import annotations

from caffe.proto.forks import origins as of

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]

_OWN = 'write it as a layer of your own (docs/layers_own.md, --import FILE) or as a "Python" layer'

_READ = "read the files in Python, and use an Input layer or net.blobs"
_WRITE = "write net.blobs[...].data in Python"

LAYERS: dict[str, tuple[str, str]] = {
    "CustomData": (of.FLOWNET, 'convert its LMDB, whose records hold two images and a flow field, for "HDF5Data"'),
    "DetectNetGroundTruth": (
        of.NVIDIA,
        'NVCaffe has options of this name, but no layer; write "DetectNetTransformation"',
    ),
    "DisparityData": (of.FLOWNET, _READ),
    "FLOWriter": (of.FLOWNET, _WRITE),
    "FloatReader": (of.FLOWNET, _READ),
    "FloatWriter": (of.FLOWNET, _WRITE),
    "ImgReader": (of.FLOWNET, _READ),
    "ImgWriter": (of.FLOWNET, _WRITE),
    "PFMWriter": (of.FLOWNET, _WRITE),
    "TRT": (of.NVIDIA, "run the net of its deploy and model instead: caffe.Net(deploy, model)"),
}
"""Layer type -> its origin, and the alternative if the package can compute the same."""

VALUES: dict[str, tuple[str, str]] = {
    "Reg_Col": (of.INCREG, "prune with Caffe_IncReg"),
    "gabor": (of.INTEL, ""),
    "stepearly": ("junhyukoh's caffe-lstm", 'write "plateau" (docs/solvers.md)'),
}
"""Field values that name a filler, policy or the like."""


def foreign_layer(name: str) -> str:
    """Return the text to append to `layer type "Permute"` if a fork has this type, else an empty string."""
    if name not in LAYERS:
        return ""
    origin, instead = LAYERS[name]
    return f" comes from a fork of Caffe ({origin}), and Cafetière does not have it; {instead or _OWN}"


def foreign_value(name: str) -> str:
    """Return the text to append to `unknown filler type "gabor"` if a fork has this value, else an empty string."""
    if name not in VALUES:
        return ""
    origin, instead = VALUES[name]
    return f": it comes from a fork of Caffe ({origin}); {instead or 'use one of the known ones'}"
