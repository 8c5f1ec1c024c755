"""`caffe draw`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, did_you_mean

RANKDIR = Flag("rankdir", "LR", "Where the data flows: LR, TB, BT or RL (left to right, top to bottom, ...).")
DISPLAY_LRM = Flag("display_lrm", False, "Show the learning rates of layers that learn.")

_PHASES = ("ALL", "TRAIN", "TEST")


@command("phase", RANKDIR, DISPLAY_LRM, arguments="NET PICTURE")
def draw(flags: SimpleNamespace, display: Display) -> None:
    """Draw the layers of a net.

    The picture's name tells its kind: .svg, .png and .pdf need matplotlib, .dot is text for Graphviz. -phase TRAIN or
    TEST leaves out the layers of the other one; ALL, the default, shows every layer.

        caffe draw deploy.prototxt net.svg -rankdir TB
    """
    from caffe import draw as pictures
    from caffe.proto import caffe_pb2, upgrade

    source, target = flags.arguments
    name = flags.phase or "ALL"
    if name not in _PHASES:
        raise CaffeError(f'phase is "{name}"{did_you_mean(name, _PHASES)}, expected one of {", ".join(_PHASES)}')
    phase = None if name == "ALL" else caffe_pb2.Phase.Value(name)
    pictures.draw_net_to_file(upgrade.read_net(source), target, flags.rankdir, phase, flags.display_lrm)
    print(f"wrote {target}")
