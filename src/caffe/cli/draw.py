"""`caffe draw`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, did_you_mean

RANKDIR = Flag(
    "rankdir",
    "",
    "Direction of the data flow: LR, TB, BT or RL (left to right, top to bottom, ...). The default is LR, or TB if "
    "LR would be wider than 5,000 pixels.",
)
DISPLAY_LRM = Flag("display_lrm", False, "Show the learning rate multipliers of layers with weights.")

_PHASES = ("ALL", "TRAIN", "TEST")


@command("phase", RANKDIR, DISPLAY_LRM, task="nets", arguments="NET PICTURE")
def draw(flags: SimpleNamespace, display: Display) -> None:
    """Draw the layers of a net.

    The extension of the file selects the format: .svg, .png and .pdf need matplotlib, .dot is text for Graphviz. -phase
    TRAIN or TEST omits the layers of the other phase; ALL shows every layer. TRAIN is the default for a net with layers
    of one phase. The shapes of blobs are shown if the net can be built, which needs its data.

        caffe draw deploy.prototxt net.svg -rankdir TB
    """
    from caffe import draw as pictures
    from caffe.proto import caffe_pb2, upgrade

    source, target = flags.arguments
    name = flags.phase
    if name and name not in _PHASES:
        raise CaffeError(f'phase is "{name}"{did_you_mean(name, _PHASES)}, expected one of {", ".join(_PHASES)}')
    net = upgrade.read_net(source)
    asked = None if name in ("", "ALL") else caffe_pb2.Phase.Value(name)
    phase = asked if name else pictures.phase_of(net)
    shapes = _shapes(net, phase)
    pictures.draw_net_to_file(net, target, flags.rankdir, phase, flags.display_lrm, shapes)
    drawn = "" if phase is None else f" (phase {caffe_pb2.Phase.Name(phase)})"
    print(f"wrote {target}{drawn}")


def _shapes(net: Any, phase: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the net's blobs; empty if the net cannot be built, for example because its data is missing.

    A Python layer is not imported for a picture.
    """
    from contextlib import closing

    from caffe import log
    from caffe.net import Net
    from caffe.proto.caffe_pb2 import TRAIN

    try:
        with (
            log.quiet(),
            closing(Net(net, TRAIN if phase is None else phase, device="meta", python_layers=False)) as built,
        ):
            return {name: tuple(blob.shape) for name, blob in built.blobs.items()}
    except CaffeError:
        return {}
