"""Draws training curves. Imports matplotlib: see `plot`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from caffe.pictures.series import Curves, Series

__all__ = ["figure"]

_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.fontsize": 9,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.7,
    "lines.solid_capstyle": "round",
}
_MARKS = "osD^vP"
_WIDE = 50


def figure(runs: Sequence[Curves]) -> Figure:
    """Draw panels over a common iteration axis: loss, test scores (if any), learning rate (if known)."""
    panels = [(_losses, "loss", 3.4)]
    if any(run.scores for run in runs):
        panels.append((_scores, "test score", 2.4))
    if any(run.rate.points for run in runs):
        panels.append((_rates, "learning rate", 1.3))
    heights = [height for _, _, height in panels]
    with mpl.rc_context(_STYLE):
        page = Figure(figsize=(9, 1.2 + sum(heights)), layout="constrained")
        page.suptitle(_title(runs), fontsize=13)
        axes = page.subplots(len(panels), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        for axis, (draw, label, _) in zip(axes, panels, strict=True):
            for index, run in enumerate(runs):
                prefix = f"{run.name}: " if len(runs) > 1 else ""
                draw(axis, run, prefix, f"C{index % 10}" if prefix else None)
            axis.set_ylabel(label)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(loc="best", ncols=1 + (len(axis.lines) > 8))
        axes[-1].set_xlabel("iteration")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes[0].margins(x=0.02)
    return page


def _title(runs: Sequence[Curves]) -> str:
    nets = " and ".join(dict.fromkeys(run.net for run in runs if run.net))
    if len(runs) > 1:
        return f"Training of {nets}: {len(runs)} runs" if nets else f"{len(runs)} training runs"
    return f"Training of {nets} ({runs[0].name})" if nets and nets != runs[0].name else f"Training of {runs[0].name}"


def _losses(axis: Any, run: Curves, prefix: str, colour: Any) -> None:
    xs, ys = run.loss.columns
    wide = _is_wide(run.loss.smoothed()[1]) and all(y > 0 for y in ys if math.isfinite(y))
    means = run.loss.smoothed(logarithmic=wide)
    train, test = colour or "tab:blue", colour or "tab:orange"
    if len(xs) < 25:
        _line(axis, run.loss, f"{prefix}training loss", color=train, linewidth=1.8)
    else:
        axis.plot(xs, ys, color=train, alpha=0.3, linewidth=0.8, label=None if prefix else "training loss")
        label = f"{prefix}training loss, smoothed" if prefix else "smoothed"
        axis.plot(*means, color=train, linewidth=1.8, label=label)
    for index, (name, series) in enumerate(run.test_loss.items()):
        many = len(run.test_loss) > 1
        title = f"{prefix}test {name if many or 'loss' not in name else 'loss'}{_last(series)}"
        dashed = "--" if prefix else "-"
        _line(axis, series, title, color=_shade(test, index, prefix), marker=_MARKS[index % 6], linestyle=dashed)
    bad = run.loss.first_not_finite
    if bad is not None:
        axis.axvline(bad, color="tab:red", linestyle=":", label=f"{prefix}loss is not finite from iteration {bad:,.0f}")
    if wide:
        axis.set_yscale("log")


def _scores(axis: Any, run: Curves, prefix: str, colour: Any) -> None:
    for index, (name, series) in enumerate(run.scores.items()):
        shade = colour or f"C{(index + 2) % 10}"
        title = f"{prefix}{name}{_last(series, highest=True)}"
        _line(axis, series, title, color=shade, marker=_MARKS[index % 6])


def _rates(axis: Any, run: Curves, prefix: str, colour: Any) -> None:
    xs, ys = run.rate.columns
    axis.plot(xs, ys, color=colour or "tab:grey", linewidth=1.5)
    if _is_wide(ys):
        axis.set_yscale("log")


def _is_wide(values: Sequence[float]) -> bool:
    """Whether the values span enough powers of ten for a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _WIDE


def _line(axis: Any, series: Series, label: str, **style: Any) -> None:
    xs, ys = series.columns
    axis.plot(xs, ys, label=label, markersize=4, markevery=max(1, len(xs) // 40), **style)


def _last(series: Series, highest: bool = False) -> str:
    """Return `: last 0.9908, highest 0.9913`, for a legend."""
    ys = [y for _, y in series.points if math.isfinite(y)]
    if not ys:
        return ""
    return f": last {ys[-1]:.4g}" + (f", highest {max(ys):.4g}" if highest else "")


def _shade(colour: Any, index: int, prefix: str) -> Any:
    """Return the next colour, for a second test loss of a single run."""
    return colour if prefix or index == 0 else mpl.colormaps["Dark2"](index % 8)
