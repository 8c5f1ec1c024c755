"""Looks inside a net: its filters, the pixels that matter, and inputs with similar features.

    from caffe import inside

    probe = inside.Probe("deploy.prototxt", "net.caffemodel")
    heat = inside.saliency(probe, image)                  # image (C, H, W) as the net takes it, heat (H, W)
    inside.draw_heat(axes, image, heat)                   # into axes of matplotlib

Most functions return arrays; drawing functions take matplotlib axes. `caffe filters` and `caffe look` write pictures.
"""

from caffe.inside.drawing import draw_heat, draw_map, draw_neighbours, draw_tiles
from caffe.inside.features import features, neighbours, pca, tsne
from caffe.inside.filters import filters_of, first_filters
from caffe.inside.maps import class_image, grad_cam, occlusion, saliency
from caffe.inside.probe import Probe

__all__ = [
    "Probe",
    "class_image",
    "draw_heat",
    "draw_map",
    "draw_neighbours",
    "draw_tiles",
    "features",
    "filters_of",
    "first_filters",
    "grad_cam",
    "neighbours",
    "occlusion",
    "pca",
    "saliency",
    "tsne",
]
