"""What a layer type states about itself, as class attributes, so that other code need not compare type names."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

from caffe.layers.support.effects import Effects

__all__ = ["Lowering", "Records", "Traits", "along_records"]


class Lowering(enum.Enum):
    """The precision in which a layer computes when the net runs in 16 bits (caffe.net.plan.precision)."""

    NEVER = enum.auto()  # always float32: the layer adds up many values, or small differences matter
    FOLLOW = enum.auto()  # the type of the bottoms, which the tops get too; blobs stay float32
    ALWAYS = enum.auto()  # 16 bits, which make the layer faster: bottoms and blobs are converted


class Records(enum.Enum):
    """What the tops of a layer hold of the records of a batch, so that a batch can be cut into micro-batches."""

    UNKNOWN = enum.auto()  # not stated; the layer may mix records
    EACH = enum.auto()  # for each record, values that are computed from this record alone
    MEAN = enum.auto()  # the first top is a mean over the records


class Traits:
    """The class attributes of layers, with their defaults."""

    constant: tuple[int, ...] = ()
    """Bottoms that have no gradient. Requesting one is an error."""
    exempt: tuple[int, ...] = ()
    """Bottoms that `force_backward` does not apply to, such as labels."""
    default_loss_weight: ClassVar[float] = 0.0
    """Default loss weight of the first top."""
    effects: Effects = Effects.NONE
    """Side effects of `forward`. A class without tops that does not set this is assumed to have side effects."""
    more_options: ClassVar[tuple[str, ...]] = ()
    """Further fields of LayerParameter that the layer type reads, besides `options`."""
    honours: ClassVar[tuple[str, ...]] = ()
    """Fields of forks, such as "TransformationParameter.resize_param", that this layer type accepts."""
    without_effect: ClassVar[tuple[str, ...]] = ()
    """Options that have no effect in their fork. Setting one gives a warning."""
    channels_last: ClassVar[bool] = False
    """Whether 4-axis blobs and tops are stored in the channels-last memory format, which makes convolutions faster."""
    lowering: Lowering = Lowering.NEVER
    """The layer's precision in a net that runs in 16 bits."""
    traceable: bool = True
    """Whether torch.compile and the export to OpenVINO can trace `forward`: it reads no values and calls only torch."""
    lends: ClassVar[bool] = False
    """Whether the layer keeps a reference to the tops that `forward` returned and uses their memory later."""
    forgets_top: bool = False
    """Whether a later layer may overwrite the top. A subclass that defines `forward` does not inherit this."""
    splits: ClassVar[bool] = False
    """Whether the tops equal the bottom, and backward adds their gradients. Runs of the whole net skip such layers."""
    user_fed: ClassVar[bool] = False
    """Whether the user fills the tops, which are then inputs of the net."""
    takes_arrays: ClassVar[bool] = False
    """Whether the layer's data and labels are set with `set_arrays`."""
    inner_layer: ClassVar[bool] = False
    """Whether Caffe creates an internal layer in this one and logs its name."""
    auto_tops: ClassVar[bool] = False
    """Whether the net creates tops that the prototxt does not list, under the name "(automatic)"."""
    records: Records = Records.UNKNOWN
    """What the tops hold of the records of a batch. A subclass does not inherit this."""
    probabilities: ClassVar[bool] = False
    """Whether the top contains the probabilities of classes, along the class axis."""
    expects_probabilities: ClassVar[bool] = False
    """Whether bottom 0 must contain probabilities, as a Softmax layer computes them."""
    reads_classes: ClassVar[bool] = False
    """Whether bottom 1 contains class indices, which the layer compares with bottom 0."""
    is_score: ClassVar[bool] = False
    """Whether the first top is the share of correct answers, so that larger is better."""
    marks_detections: ClassVar[bool] = False
    """Whether the top contains marked detections, of which a test computes the average precision."""
    spreads: ClassVar[bool] = False
    """Whether each weight is multiplied with every cell of the bottom instead of the top, as in a deconvolution."""
    fills_weights: ClassVar[bool] = False
    """Whether the layer has `num_output` outputs and learned weights that start with the values of `weight_filler`."""
    label_shape: ClassVar[tuple[int, ...]] = ()
    """Shape of a data layer's labels, where 0 stands for the size of the images; () for one number per image."""
    blob_names: ClassVar[tuple[str, ...]] = ("weight", "bias")
    """Names of the blobs in a weight file without a prototxt, which does not say how the layer was set up."""

    @classmethod
    def class_axis(cls, spec: Any) -> int:
        """The class axis of bottom 0, in a layer with `reads_classes`. `spec` is the layer's LayerParameter."""
        return int(spec.softmax_param.axis)

    @classmethod
    def ignored_label(cls, spec: Any) -> int | None:
        """The label that does not count, in a layer with `reads_classes`; None if all labels count."""
        return int(spec.loss_param.ignore_label) if spec.loss_param.HasField("ignore_label") else None


def along_records(axis: int, axes: int) -> str:
    """The reason that a layer mixes records if `axis` is axis 0, the axis of the records; else ""."""
    return "works along the axis of the records (axis 0)" if axis in (0, -axes) else ""
