"""`caffe summary`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.cli.plot import OUT
from caffe.errors import CaffeError, did_you_mean

FORMAT = Flag("format", "", "Output format: table, csv or html; the default follows the suffix of -out, else table.")
_FORMATS = ("table", "csv", "html")


@command("phase", "level", "stage", FORMAT, OUT, task="nets", arguments="NET")
def summary(flags: SimpleNamespace, display: Display) -> None:
    """List shapes, parameters, operations and receptive field by layer.

    A multiply-add counts as two operations. Memory is the size of the blobs of a batch. The receptive field is the side
    length of the input region that a cell of the top depends on. `caffe summarize` lists the options of the layers
    instead.

        caffe summary deploy.prototxt
        caffe summary train_val.prototxt -phase TRAIN -out net.csv
    """
    kind = flags.format or {".csv": "csv", ".html": "html", ".htm": "html"}.get(
        flags.out[flags.out.rfind(".") :], "table"
    )
    if kind not in _FORMATS:
        raise CaffeError(f"-format {kind}: expected {', '.join(_FORMATS)}{did_you_mean(kind, _FORMATS)}")
    if flags.phase not in ("", "TRAIN", "TEST"):
        raise CaffeError(f"-phase {flags.phase}: expected TRAIN or TEST")
    from caffe.cli import _nets
    from caffe.net.measure.summary import Summary
    from caffe.proto import files

    flags.model = flags.arguments[0]
    net = _nets.open_net(flags, flags.phase or "TEST")
    try:
        made = Summary(net)
    finally:
        net.close()
    content = {"table": lambda: made.text() + "\n", "csv": made.csv, "html": made.html}[kind]()
    if not flags.out:
        print(content, end="")
        return
    with files.atomic(flags.out) as file:
        file.write(content.encode())
    print(f"wrote {flags.out}")
