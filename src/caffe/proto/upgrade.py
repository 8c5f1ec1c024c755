"""Reads nets and solvers of all formats.

A net is upgraded in steps, and each step logs what Caffe logs: V0 layers, transformations in the options of data
layers, V1 layers, input fields, BatchNorm parameters. Source: BVLC upgrade_proto.cpp.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf.message import Message

from caffe import log
from caffe.errors import ProtoError
from caffe.proto import caffe_pb2, detect, text, v0, v1
from caffe.proto.files import PathLike
from caffe.proto.forks import effects
from caffe.proto.v1 import V1_TYPES

__all__ = [
    "V1_TYPES",
    "check_modern",
    "needs_upgrade",
    "read_net",
    "read_net_binary",
    "read_solver",
    "solver_needs_upgrade",
    "upgrade_net",
    "upgrade_solver",
]

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def read_net(path: PathLike) -> caffe_pb2.NetParameter:
    """Read a net from a prototxt file of any format and upgrade it. Raises `FileError`, `ProtoError`."""
    net = text.read(path, caffe_pb2.NetParameter())
    upgrade_net(net, os.fspath(path))
    return net


def read_net_binary(path: PathLike) -> caffe_pb2.NetParameter:
    """Read a net with its blobs from a binary file of any format and upgrade it.

    To read only weights, use `weights.read`.

    Raises `FileError`, `ProtoError`.
    """
    with detect.binary(path, "net") as view:
        net = detect.parse_net(bytes(view), path)
    upgrade_net(net, os.fspath(path))
    return net


def read_solver(path: PathLike) -> caffe_pb2.SolverParameter:
    """Read a solver from a prototxt file and upgrade it. Raises `FileError`, `ProtoError`.

    As in Caffe, a missing snapshot_prefix becomes the file's name without its suffix; if it is a folder, the file's
    stem is appended.
    """
    solver = text.read(path, caffe_pb2.SolverParameter())
    upgrade_solver(solver, os.fspath(path))
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = os.fspath(Path(path).with_suffix(""))
        log.info("upgrade_proto.cpp:1109", f"snapshot_prefix was not specified and is set to {solver.snapshot_prefix}")
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, Path(path).stem)
        log.info(
            "upgrade_proto.cpp:1114", f"snapshot_prefix was a directory and is replaced to {solver.snapshot_prefix}"
        )
    return solver


def needs_upgrade(net: caffe_pb2.NetParameter) -> bool:
    """Whether `upgrade_net` would change the net."""
    old = bool(net.layers) or bool(net.input) or any(_has_three_params(layer) for layer in net.layer)
    return old or effects.has_effects(net)


def upgrade_net(net: caffe_pb2.NetParameter, name: str) -> bool:
    """Upgrade a net in place. `name` is the file's name, for logs and errors.

    Returns False if a V0 layer had options that do not belong to its type; they are logged and dropped. Raises
    `ProtoError` for what cannot be upgraded.
    """
    success = True
    if v0.is_v0(net):
        success = _upgrade_v0(net, name)
    if v1.needs_transforms(net):
        log.info("upgrade_proto.cpp:46", _attempt("transformation parameters", name))
        v1.move_transforms(net)
        log.info("upgrade_proto.cpp:49", _success("data transformation parameters."))
        log.warning("upgrade_proto.cpp:51", _future("transform_param messages for transformation fields."))
    if net.layers:
        log.info("upgrade_proto.cpp:55", _attempt("V1LayerParameter", name))
        _upgrade_v1(net, name)
        log.info("upgrade_proto.cpp:63", _success("V1LayerParameter"))
    if net.input:
        log.info("upgrade_proto.cpp:69", _attempt("input fields", name))
        _upgrade_inputs(net, name)
        log.info("upgrade_proto.cpp:72", _success("input fields."))
        log.warning("upgrade_proto.cpp:74", _future("input layers and not input fields."))
    if any(_has_three_params(layer) for layer in net.layer):
        log.info("upgrade_proto.cpp:79", f"Attempting to upgrade batch norm layers using deprecated params: {name}")
        _freeze_statistics(net)
        log.info("upgrade_proto.cpp:82", "Successfully upgraded batch norm layers using deprecated params.")
    effects.apply(net, name)
    effects.tell(net, name)
    return success


def solver_needs_upgrade(solver: caffe_pb2.SolverParameter) -> bool:
    """Whether the solver's type is given by the older enum."""
    return solver.HasField("solver_type")


def upgrade_solver(solver: caffe_pb2.SolverParameter, name: str) -> None:
    """Convert the enum `solver_type` to `type` in place. Raises `ProtoError` if both are given; `name` is the file's
    name.
    """
    effects.tell(solver, name)
    if not solver_needs_upgrade(solver):
        return
    field = "'solver_type' field (enum)"
    log.info("upgrade_proto.cpp:1084", _attempt(f"{field}'", name))
    if solver.HasField("type"):
        raise ProtoError(
            f'{name}: both "type" and the older "solver_type" are given, expected one of them; '
            f'remove "solver_type" to use type: "{solver.type}"'
        )
    solver.type = _SOLVER_TYPES[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
    solver.ClearField("solver_type")
    log.info("upgrade_proto.cpp:1091", _success(f"{field} to 'type' field (string)."))
    log.warning("upgrade_proto.cpp:1093", _future("'type' field (string) for a solver's type."))


def check_modern(net: caffe_pb2.NetParameter, name: str | None = None) -> None:
    """Raise a `ProtoError` for fields of an upgraded net that Caffe ignores silently.

    These are transformations in data_param and the like, which are allowed only in V1 layers, and input shapes without
    an input. `name` is the file's name.
    """
    for index, layer in enumerate(net.layer):
        for options in v1.TRANSFORMED.values():
            misplaced = _misplaced(getattr(layer, options))
            if misplaced:
                raise ProtoError(
                    f'{_place(name, index, layer)}layer "{layer.name}" ({layer.type}): {options}.{misplaced} has no '
                    f"effect in the current format; move {misplaced} to transform_param"
                )
    if net.input_shape or net.input_dim:
        field = "input_shape" if net.input_shape else "input_dim"
        where = f"{name}: " if name else ""
        raise ProtoError(f'{where}{field} is given without "input"; name the input blob: input: "data"')


def _misplaced(options: Message) -> str:
    """Return the first transformation among the options that is set to anything but its default."""
    for field in v1.TRANSFORM_FIELDS:
        if field == "scale" and options.DESCRIPTOR.name == "WindowDataParameter":
            continue  # exception: WindowData still uses this one instead of transform_param.scale
        if getattr(options, field) != options.DESCRIPTOR.fields_by_name[field].default_value:
            return field
    return ""


def _place(name: str | None, index: int, layer: caffe_pb2.LayerParameter) -> str:
    line = text.layer_line(name, index, layer.name) if name and os.path.isfile(name) else None
    return f"{name}:{line}: " if line else f"{name}: " if name else ""


def _upgrade_v0(net: caffe_pb2.NetParameter, name: str) -> bool:
    log.info("upgrade_proto.cpp:28", _attempt("V0LayerParameter", name))
    success = v0.upgrade(net, name)
    if success:
        log.info("upgrade_proto.cpp:36", _success("V0LayerParameter"))
    else:
        log.error(
            "upgrade_proto.cpp:33",
            "Warning: had one or more problems upgrading V0NetParameter to NetParameter (see above); "
            "continuing anyway.",
        )
    log.warning(
        "upgrade_proto.cpp:39",
        "Note that future Caffe releases will not support V0NetParameter; use 'caffe upgrade_net_proto_text' "
        "for prototxt and 'caffe upgrade_net_proto_binary' for model weights upgrade this and any other net "
        "protos to the new format.",
    )
    return success


def _upgrade_v1(net: caffe_pb2.NetParameter, name: str) -> None:
    if net.layer:
        raise ProtoError(
            f'{name}: the net has both "layer" and the older "layers"; expected one kind. Write layer {{ type: "ReLU" '
            '... } throughout, or upgrade the older part by itself with "caffe upgrade_net_proto_text"'
        )
    for old in net.layers:
        v1.upgrade_layer(old, net.layer.add())
    net.ClearField("layers")


def _upgrade_inputs(net: caffe_pb2.NetParameter, name: str) -> None:
    """Convert the input fields to one Input layer at the front. Inputs without any shape are dropped, as in Caffe."""
    shapes = _input_shapes(net, name)
    if shapes:
        layers = [caffe_pb2.LayerParameter(name="input", type="Input", top=net.input), *net.layer]
        layers[0].input_param.shape.extend(shapes)
        net.ClearField("layer")
        net.layer.extend(layers)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def _input_shapes(net: caffe_pb2.NetParameter, name: str) -> list[caffe_pb2.BlobShape]:
    """Return a shape for each input, or none at all."""
    inputs, dims = len(net.input), list(net.input_dim)
    if net.input_shape:
        if len(net.input_shape) != inputs:
            raise ProtoError(f"{name}: {len(net.input_shape)} input_shape for {inputs} input, expected one each")
        return list(net.input_shape)
    if inputs == 1 and 0 < len(dims) < 4:
        log.warning("upgrade_proto.cpp:69", f"{name}: {len(dims)} input_dim, taken for an input of {len(dims)} axes")
        return [caffe_pb2.BlobShape(dim=dims)]
    if dims and len(dims) != 4 * inputs:
        raise ProtoError(
            f"{name}: {len(dims)} input_dim for {inputs} input, expected 4 each; for another number of axes "
            "use input_shape { dim: ... }"
        )
    return [caffe_pb2.BlobShape(dim=dims[at : at + 4]) for at in range(0, len(dims), 4)]


def _has_three_params(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether a BatchNorm layer sets rates for its three statistics.

    Older versions needed this to keep them from training.
    """
    return layer.type == "BatchNorm" and len(layer.param) == 3


def _freeze_statistics(net: caffe_pb2.NetParameter) -> None:
    for layer in filter(_has_three_params, net.layer):
        for param in layer.param:
            param.lr_mult = param.decay_mult = 0


def _attempt(what: str, name: str) -> str:
    return f"Attempting to upgrade input file specified using deprecated {what}: {name}"


def _success(what: str) -> str:
    return f"Successfully upgraded file specified using deprecated {what}"


def _future(what: str) -> str:
    return f"Note that future Caffe releases will only support {what}"
