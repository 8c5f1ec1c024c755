"""Converts V0 layers, `layers { layer { type: "conv" ... } }` of 2013, to V1 layers.

Source: BVLC upgrade_proto.cpp.
"""

from __future__ import annotations

from caffe import log
from caffe.errors import ProtoError, did_you_mean
from caffe.proto import caffe_pb2

__all__ = ["is_v0", "upgrade"]

_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}
_OPTIONS = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}
# V0 field -> current option name, and the V0 types that have it. In the order of Caffe's messages.
_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "num_output": ("num_output", ("conv", "innerproduct")),
    "biasterm": ("bias_term", ("conv", "innerproduct")),
    "weight_filler": ("weight_filler", ("conv", "innerproduct")),
    "bias_filler": ("bias_filler", ("conv", "innerproduct")),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", ("data", "hdf5_data", "images", "window_data", "infogain_loss")),
    "batchsize": ("batch_size", ("data", "hdf5_data", "images", "window_data")),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}
_TRANSFORMS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_CARRIED = ("name", "input", "input_dim", "force_backward")  # fields of the net that Caffe's upgrade keeps


def is_v0(net: caffe_pb2.NetParameter) -> bool:
    """Whether any layer is a V0 layer."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade(net: caffe_pb2.NetParameter, name: str) -> bool:
    """Convert a V0 net to V1 in place. Returns False if options were dropped, each of which is logged.

    Raises `ProtoError` for an unknown layer type, and for padding before a layer that cannot take it over.
    """
    old = caffe_pb2.NetParameter()
    old.CopyFrom(net)
    _warn_of_losses(old, name)
    net.Clear()
    for field, value in old.ListFields():
        if field.name in ("name", "force_backward"):
            setattr(net, field.name, value)
        elif field.name in _CARRIED:
            getattr(net, field.name).MergeFrom(value)
    complete = [_upgrade_layer(layer, net.layers.add(), name) for layer in _without_padding(old, name)]
    return all(complete)


def _without_padding(net: caffe_pb2.NetParameter, name: str) -> list[caffe_pb2.V1LayerParameter]:
    """Return the layers without those of type padding, whose `pad` moves to the following convolution or pooling."""
    kept = []
    producer: dict[str, caffe_pb2.V1LayerParameter | None] = dict.fromkeys(net.input)
    for connection in net.layers:
        layer = caffe_pb2.V1LayerParameter()
        layer.CopyFrom(connection)
        for index, bottom in enumerate(connection.bottom):
            where = f'{name}: layer "{layer.layer.name}" ({layer.layer.type}): bottom "{bottom}"'
            if bottom not in producer:
                raise ProtoError(f"{where} is unknown: no layer above has such a top{did_you_mean(bottom, producer)}")
            source = producer[bottom]
            if source is None or source.layer.type != "padding":
                continue
            _check_padding(layer, source, where)
            layer.layer.pad = source.layer.pad
            layer.bottom[index] = source.bottom[0]
        if layer.layer.type != "padding":
            kept.append(layer)
        producer.update(dict.fromkeys(connection.top, connection))
    return kept


def _check_padding(layer: caffe_pb2.V1LayerParameter, source: caffe_pb2.V1LayerParameter, where: str) -> None:
    if layer.layer.type not in ("conv", "pool"):
        raise ProtoError(f'{where} comes from a padding layer, which only "conv" and "pool" can take over')
    if len(layer.bottom) != 1:
        raise ProtoError(f"{where} comes from a padding layer: expected 1 bottom, got {len(layer.bottom)}")
    if (len(source.bottom), len(source.top)) != (1, 1):
        counts = f"{len(source.bottom)} bottom(s) and {len(source.top)} top(s)"
        raise ProtoError(f"{where} comes from a padding layer with {counts}, expected 1 and 1")


def _upgrade_layer(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.V1LayerParameter, name: str) -> bool:
    """Fill the V1 layer `new`. Returns False if an option does not belong to the layer's type."""
    inner, kind = old.layer, old.layer.type
    new.bottom.extend(old.bottom)
    new.top.extend(old.top)
    if inner.HasField("name"):
        new.name = inner.name
    if inner.HasField("type"):
        if kind not in _TYPES:
            hint = did_you_mean(kind, _TYPES)
            raise ProtoError(f'{name}: layer "{inner.name}": unknown type "{kind}" of a V0 layer{hint}')
        new.type = caffe_pb2.V1LayerParameter.LayerType.Value(_TYPES[kind])
    for field in ("blobs", "blobs_lr", "weight_decay"):
        getattr(new, field).MergeFrom(getattr(inner, field))
    for field, target in _TRANSFORMS.items():
        if inner.HasField(field):
            setattr(new.transform_param, target, getattr(inner, field))
    complete = [_move_option(inner, new, field) for field in _FIELDS if inner.HasField(field)]
    if inner.HasField("hdf5_output_param"):
        if kind == "hdf5_output":
            new.hdf5_output_param.CopyFrom(inner.hdf5_output_param)
        else:
            complete.append(_unknown("hdf5_output_param", kind))
    return all(complete)


def _move_option(inner: caffe_pb2.V0LayerParameter, new: caffe_pb2.V1LayerParameter, field: str) -> bool:
    target, kinds = _FIELDS[field]
    if inner.type not in kinds:
        return _unknown("shuffle" if field == "shuffle_images" else field, inner.type)
    options, value = getattr(new, _OPTIONS[inner.type]), getattr(inner, field)
    if field.endswith("_filler"):
        getattr(options, target).CopyFrom(value)
    elif inner.type == "conv" and target in ("pad", "kernel_size", "stride"):
        getattr(options, target).append(value)
    else:
        setattr(options, target, value)
    return True


def _unknown(field: str, kind: str) -> bool:
    log.error("upgrade_proto.cpp:237", f"Unknown parameter {field} for layer type {kind}")
    return False


def _warn_of_losses(net: caffe_pb2.NetParameter, name: str) -> None:
    """Log the fields of a V0 net that its upgrade drops. Caffe drops them silently."""
    lost = [field.name for field, _ in net.ListFields() if field.name not in (*_CARRIED, "layers")]
    for layer in net.layers:
        beside = [field.name for field, _ in layer.ListFields() if field.name not in ("bottom", "top", "layer")]
        inside = [field for field in ("new_num", "new_channels") if layer.layer.HasField(field)]
        lost += [f'{field} of layer "{layer.layer.name or layer.name}"' for field in beside + inside]
    if lost:
        log.warning("upgrade_proto.cpp:28", f"{name}: not part of the V0 format and left out: {', '.join(lost)}")
