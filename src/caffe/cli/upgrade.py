"""`caffe upgrade`, `upgrade_net_proto_text`, `upgrade_net_proto_binary` and `upgrade_solver_proto_text`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display


@command(task="convert", arguments="IN OUT")
def upgrade_net_proto_text(flags: SimpleNamespace, display: Display) -> int:
    """Upgrade a net definition in an older format (prototxt).

    Reads V0 and V1 nets, input fields and the like, and writes the net in the current format. Options that do not
    belong to their layer are logged and dropped, and the exit code is then 1. A net in the current format is copied.

        caffe upgrade_net_proto_text old.prototxt new.prototxt
    """
    from caffe.proto import caffe_pb2, text

    source, target = flags.arguments
    net = text.read(source, caffe_pb2.NetParameter())
    whole = _upgrade(net, source, "upgrade_net_proto_text.cpp", "prototxt")
    text.write(target, net)
    _tell(display, "upgrade_net_proto_text.cpp:49", f"Wrote upgraded NetParameter text proto to {target}")
    return 0 if whole else 1


@command(task="convert", arguments="IN OUT")
def upgrade_net_proto_binary(flags: SimpleNamespace, display: Display) -> int:
    """Upgrade a weight file in an older format (caffemodel).

    caffe upgrade_net_proto_binary old.caffemodel new.caffemodel
    """
    from caffe.proto import files

    source, target = flags.arguments
    net = _read_binary(source)
    whole = _upgrade(net, source, "upgrade_net_proto_binary.cpp", "binary proto")
    with files.atomic(target) as file:
        file.write(net.SerializeToString())
    _tell(display, "upgrade_net_proto_binary.cpp:48", f"Wrote upgraded NetParameter binary proto to {target}")
    return 0 if whole else 1


@command(task="convert", arguments="IN OUT")
def upgrade_solver_proto_text(flags: SimpleNamespace, display: Display) -> None:
    """Upgrade a solver definition in an older format (prototxt).

    The enum `solver_type` becomes the string `type`. A solver in the current format is copied.

        caffe upgrade_solver_proto_text old_solver.prototxt solver.prototxt
    """
    from caffe.proto import caffe_pb2, text, upgrade

    source, target = flags.arguments
    solver = text.read(source, caffe_pb2.SolverParameter())
    if upgrade.solver_needs_upgrade(solver):
        upgrade.upgrade_solver(solver, source)
    else:
        log.error("upgrade_solver_proto_text.cpp:43", f"File already in latest proto format: {source}")
    text.write(target, solver)
    _tell(display, "upgrade_solver_proto_text.cpp:49", f"Wrote upgraded SolverParameter text proto to {target}")


@command(task="convert", arguments="IN OUT")
def upgrade(flags: SimpleNamespace, display: Display) -> int:
    """Rewrite a net or solver of a fork as BVLC Caffe reads it (prototxt).

    Upgrades older formats, writes the fields of forks in terms of BVLC's (ceil_mode, hole ...), removes fields that
    have no effect on the result (engines, quantization_param ...), and replaces layers by equal ones of BVLC's
    (DepthwiseConvolution, ReLU6). Weight files stay valid. Prints the changes, and the fields and layer types that
    BVLC Caffe does not have; these stay in the file, and the exit code is then 1.

        caffe upgrade fork.prototxt stock.prototxt
    """
    from caffe.proto import caffe_pb2, text
    from caffe.proto import upgrade as changing
    from caffe.proto.forks.stock import to_stock

    source, target = flags.arguments
    message = text.read_definition(source)
    whole = True
    if isinstance(message, caffe_pb2.NetParameter):
        whole = _upgrade(message, source, "upgrade.cpp", "prototxt", told=False)
    else:
        changing.upgrade_solver(message, source)
    changes = to_stock(message)
    text.write(target, message)
    for fact, names in (
        ("without effect, removed", changes.removed),
        ("rewritten", changes.rewritten),
        ("not in BVLC Caffe, kept", changes.remaining),
    ):
        if names:
            print(f"{fact}: {', '.join(names)}")
    print(f"wrote {target}" + ("; BVLC Caffe cannot run it" if changes.remaining else ""))
    return 0 if whole and not changes.remaining else 1


def _upgrade(net: Any, source: str, place: str, what: str, told: bool = True) -> bool:
    """Upgrade a net in place; returns False if a part of it is lost. With `told`, a current format is an error line."""
    from caffe.proto import upgrade

    if not upgrade.needs_upgrade(net):
        if told:
            log.error(f"{place}:43", f"File already in latest proto format: {source}")
        return True
    whole = upgrade.upgrade_net(net, source)
    if not whole:
        log.error(f"{place}:39", f"Encountered error(s) while upgrading {what}; see details above.")
    return whole


def _read_binary(path: str) -> Any:
    """Read the net in a binary file, without upgrading it, with its blobs."""
    from caffe.proto import detect

    with detect.binary(path, "net") as view:
        return detect.parse_net(bytes(view), path)


def _tell(display: Display, place: str, message: str) -> None:
    log.info(place, message)
    display.say(message)
