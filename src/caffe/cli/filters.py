"""`caffe filters`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.cli.plot import OUT

LAYER = Flag("layer", "", "Layer whose filters are drawn; the default is the first layer with filters.")


@command(LAYER, OUT, task="nets", arguments="WEIGHTS")
def filters(flags: SimpleNamespace, display: Display) -> None:
    """Draw the filters of a trained net's first layer.

    Filters with three channels are drawn in colour. Others are drawn in grey, with a row of channels for each filter,
    256 tiles at most. The values of each tile are scaled separately. By default the picture is named after the weights,
    with the suffix .png.

        caffe filters lenet_iter_10000.caffemodel
        caffe filters net.caffemodel -layer conv2 -o conv2.png
    """
    from caffe.errors import require_extra

    require_extra("matplotlib", "plot", "drawing filters")
    from caffe import inside
    from caffe.plot import check_output
    from caffe.proto import files

    (source,) = flags.arguments
    out = flags.out or str(Path(source).with_suffix(".png"))
    check_output(out)
    if flags.layer:
        name, stack = flags.layer, inside.filters_of(source, flags.layer)
    else:
        name, stack = inside.first_filters(source)
    from matplotlib.figure import Figure

    page = Figure(figsize=(8, 8), layout="constrained")
    inside.draw_tiles(page.subplots(), stack, f'filters of "{name}", {" x ".join(map(str, stack.shape))}')
    with files.atomic(out) as file:
        page.savefig(file, format=Path(out).suffix.lstrip(".").lower(), dpi=120)
    print(f'wrote {out}: {len(stack)} filters of layer "{name}"')
