"""`caffe gradcheck`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, did_you_mean

LAYER = Flag("layer", "", "Check only this layer; the others only run forward.")
ELEMENTS = Flag("elements", 10, "Number of elements of each bottom and blob to check one by one; 0: all.")
_WRONG = 1e-2
_ALL = 1 << 30


@command("phase", "gpu", "level", "stage", ELEMENTS, LAYER, task="nets", arguments="NET")
def gradcheck(flags: SimpleNamespace, display: Display) -> int:
    """Check the gradients of a net's layers, element by element.

    As in `caffe check`, each layer runs separately, in double precision. In addition to random directions, some
    elements of each bottom and blob are changed one by one. The command prints the largest relative error |backward -
    slope| / max(|backward|, |slope|), with the usual rating:

        1e-7 or less        right
        up to 1e-4          good enough: rounding, or strong curvature
        up to 1e-2          suspicious, unless there is a kink
        above               wrong

    If forward has a kink within the step, such as a ReLU at 0, the affected elements of the top are left out and
    counted. The exit code is 1 if a gradient is wrong, or suspicious without a kink that explains it.

        caffe gradcheck net.prototxt -layer mine --import my_layers.py
    """
    from caffe.cli import _device, _nets
    from caffe.net.measure.gradient_check import check_gradients

    if flags.elements < 0:
        raise CaffeError(f"-elements {flags.elements}: expected 0 or more")
    _device.use(flags.gpu, "gradcheck", f'"-gpu {flags.gpu}"')
    flags.model = flags.arguments[0]
    net = _nets.open_net(flags, flags.phase or "TRAIN")
    try:
        if flags.layer and flags.layer not in net.layer_names:
            hint = did_you_mean(flags.layer, net.layer_names)
            raise CaffeError(f'{flags.model}: has no layer "{flags.layer}"{hint}')
        found = check_gradients(net, layer=flags.layer, elements=flags.elements or _ALL)
    finally:
        net.close()
    rows = [row for layer, slopes in found if not layer.splits for row in _rows(layer, slopes)]
    heads = ("layer", "type", "of", "checked", "relative error", "kinks", "")
    print("\n".join(_lines([heads, *(row[:-1] for row in rows)])))
    bad = sorted({row[0] for row in rows if row[-1]})
    print(f"\n{len(rows)} gradients; " + (f"not right in: {', '.join(bad)}" if bad else "none is wrong"))
    return 1 if bad else 0


def _rows(layer: Any, slopes: list[Any]) -> list[tuple[Any, ...]]:
    """Yield a row for each bottom and blob that has a gradient. The last entry says whether it is bad."""
    kinds: dict[str, list[Any]] = {}
    for slope in slopes:
        kinds.setdefault(slope.what, []).append(slope)
    rows = []
    for what, each in sorted(kinds.items()):
        worst = max(each, key=lambda slope: (slope.verdict == "WRONG", slope.verdict == "no slope", slope.error))
        singles = min(len(each), each[0].size)
        kinks = max(slope.kinks for slope in each)
        reading, bad = _reading(worst)
        shown = (f"{singles} of {each[0].size}", f"{worst.error:.1e}", str(kinks or ""))
        rows.append((layer.name, layer.type, what, *shown, ", ".join([reading, *worst.notes]), bad))
    return rows


def _reading(slope: Any) -> tuple[str, bool]:
    """Return the rating of a relative error, and whether it is bad."""
    from caffe.net.measure.gradient_check import FINE, TOLERANCE

    if slope.verdict == "no slope":
        return "no slope: forward jumps or rounds", False
    if slope.error <= FINE:
        return "right", False
    if slope.error <= TOLERANCE or slope.verdict == "right":
        return "good enough", False
    return ("WRONG", True) if slope.error > _WRONG else ("SUSPICIOUS", True)


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = (0, 1, 2, 6)
    cells = [[f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]
