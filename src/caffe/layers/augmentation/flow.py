"""The layers that augment flow fields: as their images, or together with them."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.augmentation.affine import Affine
from caffe.layers.augmentation.checks import as_maps, check_coefficients, check_kinds, check_map, crop_of, grid
from caffe.layers.augmentation.coefficients import drawn, flags, unpacked, values
from caffe.layers.base import Effects, Layer, shape_text
from caffe.limits import check_size
from caffe.proto import caffe_pb2

__all__ = ["BlackAugmentation", "FlowAugmentation"]


class FlowAugmentation(Layer, bottoms=3, options="augmentation_param"):
    """Changes a flow field as DataAugmentation changes the two images between which it points. There is no gradient.

    bottoms: flow (N, 2, H, W), columns and rows; coefficients of the first and the second image, each (N, 42, 1, 1)
    top (N, 2, crop_height, crop_width)

        y[p] = B^-1 (q + flow at the cell nearest to q) - p,  q = A p

    A and B map cells of the crop to positions in the first and the second image (Affine). Positions outside the field
    take its nearest cell; the source reads other memory there. Of augmentation_param only the crop is read.
    Source: Dosovitskiy et al., arXiv:1504.06852 (FlowNet); lmb-freiburg/flownet2, flow_augmentation_layer.cu.
    """

    constant = (0, 1, 2)
    exempt = (0, 1, 2)
    without_effect = tuple(
        name for name in caffe_pb2.AugmentationParameter.DESCRIPTOR.fields_by_name if not name.startswith("crop_")
    )
    crop: tuple[int, int]

    def setup(self, flow: Tensor, first: Tensor, second: Tensor) -> None:
        check_map(self, 0, flow, None, 2)
        for index, blob in enumerate((first, second), 1):
            check_coefficients(self, index, blob, len(flow))
        self.crop = crop_of(self, True) or (0, 0)
        check_size("the top", (len(flow), 2, *self.crop), self.error)

    @torch.no_grad()
    def forward(self, flow: Tensor, first: Tensor, second: Tensor) -> Tensor:
        (height, width), (column, row) = flow.shape[2:], grid(flow, self.crop)
        one, two = (Affine.of(as_maps(values(unpacked(blob))), self.crop, (height, width)) for blob in (first, second))
        x, y = one.at(column, row)
        i, j = ((p + 0.5).trunc().long().clamp(0, n - 1) for p, n in ((y, height), (x, width)))
        step = flow.flatten(2).gather(2, (i * width + j).flatten(1).unsqueeze(1).expand(-1, 2, -1))
        step = step.view(len(flow), 2, *self.crop)
        x, y = two.inverse().at(x + step[:, 0], y + step[:, 1])
        return torch.stack([x - column, y - row], 1)


class BlackAugmentation(Layer, bottoms=(1, None), tops=(1, None)):
    """Replaces some pairs of images by pairs without motion, or draws a black border around them.

    bottoms x_i (N, 3, H, W), images, or (N, 2, H, W), flow fields   tops y_i of the same shapes

    For each item: with `black`, the images become the last bottom with 3 channels, and the flow 0. Otherwise `border`
    is the share of the width, of the height, or of both (each with probability 1/3) that becomes 0 on each side.
    Random numbers are drawn in TRAIN and in TEST, as in the source.
    Source: lmb-freiburg/flownet2, black_augmentation_layer.cu, which leaves out the copy of the last image itself.
    """

    effects = Effects.RANDOM

    def setup(self, *bottoms: Tensor) -> None:
        self.require(self.top_count == len(bottoms), f"has {len(bottoms)} bottoms and {self.top_count} tops")
        for index, x in enumerate(bottoms):
            check_map(self, index, x, len(bottoms[0]))
            fact = f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, expected 2 or 3 channels"
            fits = x.shape[1] in (2, 3) and x.shape[2:] == bottoms[0].shape[2:]
            self.require(fits, f"{fact} and the height and width of the first bottom")
        check_kinds(self, ("black", "border"))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        like, (height, width) = bottoms[0].new_empty(len(bottoms[0]), 1, 1, 1), bottoms[0].shape[2:]
        black, border = flags(self.opt.black, like, 1.0, 0.0), drawn(self.opt.border, like, 1.0, 0.0)
        kind = torch.randint(3, like.shape, device=like.device)
        column, row = grid(like, (height, width))
        inside = []
        for place, cells, other in ((column, width, 1), (row, height, 0)):
            edge = (border * cells).trunc().where(kind != other, 0)
            inside.append((place >= edge) & (place < cells - edge))
        kept = inside[0] & inside[1]
        image = next((x for x in reversed(bottoms) if x.shape[1] == 3), None)
        tops = []
        for x in bottoms:
            still = image if image is not None and x.shape[1] == 3 else torch.zeros_like(x)
            tops.append(still.where(black, x.where(kept, 0)))
        return tuple(tops)
