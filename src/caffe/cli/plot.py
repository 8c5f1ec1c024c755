"""`caffe plot`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag

OUT = Flag("out", "", "File to write.", ("o",))


@command(OUT, task="tools", arguments="LOG...")
def plot(flags: SimpleNamespace, display: Display) -> None:
    """Draw the curves of training runs from their logs.

    Reads logs of BVLC Caffe, of its forks and of this package. Several logs are drawn into one picture for comparison.
    By default the picture has the first log's name and the suffix .png.

        caffe plot train.log -o curves.png
    """
    from caffe import plot as curves

    out = flags.out or str(Path(flags.arguments[0]).with_suffix(".png"))
    curves.check_output(out)
    curves.draw([curves.read_log(path) for path in flags.arguments], out)
    print(f"wrote {out}")
