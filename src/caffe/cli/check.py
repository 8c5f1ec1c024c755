"""`caffe check`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display


@command("phase", "gpu", "level", "stage", task="nets", arguments="NET")
def check(flags: SimpleNamespace, display: Display) -> int:
    """Check the gradients of a net's layers.

    Each layer is checked separately, in double precision. For every bottom and blob with a gradient, the gradient along
    a random direction is compared with the change of the output for a small step. Bottoms with propagate_down: false
    are skipped. The exit code is 1 if a gradient is wrong. Data comes from the net's own data layers; Input blobs get
    random numbers, and a DummyData layer with a filler gives others.

    Elements with a kink of forward within the step are skipped. "right, 3 of 64 clamped" means that Caffe's gradient
    ignores a clamp of forward there: these elements are not compared. "no slope" means that forward jumps, rounds or
    is NaN, so that the gradient cannot be checked.

        caffe check my_layer.prototxt --import my_layers.py
    """
    from caffe.cli import _device, _nets
    from caffe.net.measure.gradient_check import check_gradients

    _device.use(flags.gpu, "check", f'"-gpu {flags.gpu}"')
    flags.model = flags.arguments[0]
    net = _nets.open_net(flags, flags.phase or "TRAIN")
    try:
        found = [(layer, slopes) for layer, slopes in check_gradients(net) if not layer.splits]
    finally:
        net.close()
    print("\n".join(_table(found)))
    print(f"\n{_summary(found)}")
    return 1 if any(slope.verdict == "WRONG" for _, slopes in found for slope in slopes) else 0


def _summary(found: list[tuple[Any, list[Any]]]) -> str:
    named = {
        verdict: sorted({layer.name for layer, slopes in found for slope in slopes if slope.verdict == verdict})
        for verdict in ("WRONG", "no slope")
    }
    wrong, open_ = (", ".join(names) for names in named.values())
    facts = [f"{sum(bool(slopes) for _, slopes in found)} layers with gradients"]
    facts += [f"wrong in: {wrong}"] if wrong else []
    facts += [f"no slope to compare with in: {open_}"] if open_ else []
    return "; ".join(facts if wrong or open_ else [*facts, "all are right"])


def _table(found: list[tuple[Any, list[Any]]]) -> Iterator[str]:
    """Yield a line for each bottom and blob, with the direction of the largest difference."""
    rows = []
    for layer, slopes in found:
        order = ("right", "no slope", "WRONG")
        worst = {s.what: s for s in sorted(slopes, key=lambda s: (order.index(s.verdict), s.error))}
        for what, slope in sorted(worst.items()):
            numbers = (f"{slope.backward:.6g}", f"{slope.numeric:.6g}", f"{slope.error:.1e}")
            verdict = ", ".join([slope.verdict, *slope.notes])
            rows.append((layer.name, layer.type, what, *numbers, verdict))
        if not slopes:
            rows.append((layer.name, layer.type, "-", "", "", "", "no gradient"))
    heads = ("layer", "type", "of", "backward", "slope", "error", "")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [f"{cell:{'<' if i in (0, 1, 2, 6) else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()
