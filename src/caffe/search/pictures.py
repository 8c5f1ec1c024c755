"""The pictures of a search. Imports matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from caffe.search.space import Dimension
from caffe.search.study import Search

__all__ = ["draw"]


def draw(search: Search, folder: Path) -> list[Path]:
    """Draw the trials: learning curves, parallel coordinates, importance, and random points compared with a grid."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for make in (curves, parallel, importance, coverage):
        figure = make(search)
        if figure is not None:
            written.append(folder / f"{search.name}_{make.__name__}.png")
            figure.savefig(written[-1], dpi=110)
    return written


def _better(search: Search) -> dict[int, float]:
    """Return the rank of each trial with a value, from 0 (worst) to 1 (best)."""
    best = [trial.number for trial in search.ranked]
    return {number: 1 - index / max(1, len(best) - 1) for index, number in enumerate(best)}


def _colour(rank: float | None) -> Any:
    from matplotlib import colormaps

    return "lightgrey" if rank is None else colormaps["viridis"](rank)


def curves(search: Search) -> Figure:
    """Draw the validation values of all trials over the iterations. Trials that were stopped early end with a cross."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis, ranks = figure.subplots(), _better(search)
    for trial in search.trials:
        steps = sorted(trial.intermediate_values)
        values = [trial.intermediate_values[step] for step in steps]
        rank = ranks.get(trial.number)
        axis.plot(steps, values, color=_colour(rank), linewidth=1.5 if rank is not None else 1, zorder=rank or 0)
        if rank is None and steps:
            axis.plot(steps[-1:], values[-1:], "x", color="tab:red")
    if search.ranked:
        axis.set_title(f"{len(search.trials)} trials; the best is number {search.ranked[0].number}")
    axis.set_xlabel("iteration")
    axis.set_ylabel(f"validation: {search.goal.output}")
    axis.grid(alpha=0.3)
    return figure


def parallel(search: Search) -> Figure | None:
    """Draw each trial as a line through its settings to its rank. The best trials are bright."""
    dimensions, ranks = search.space.dimensions, _better(search)
    if not ranks:
        return None
    figure = Figure(figsize=(2 + 2 * len(dimensions), 5), layout="constrained")
    axis = figure.subplots()
    done = sorted(search.ranked, key=lambda trial: ranks[trial.number])
    for trial in done:
        heights = [_share(dimension, trial.params[dimension.name]) for dimension in dimensions]
        heights.append(ranks[trial.number])
        axis.plot(range(len(heights)), heights, color=_colour(ranks[trial.number]), linewidth=1.5)
    names = [_short(dimension.name) for dimension in dimensions]
    ends = [_ends(dimension) for dimension in dimensions] + [
        (f"worst {done[0].value:.4g}", f"best {done[-1].value:.4g}")
    ]
    for place, (low, high) in enumerate(ends):
        axis.axvline(place, color="black", linewidth=0.8)
        axis.text(place, -0.03, low, ha="center", va="top", fontsize=8)
        axis.text(place, 1.03, high, ha="center", va="bottom", fontsize=8)
    axis.set_xticks(range(len(ends)), [*names, search.goal.output])
    axis.tick_params(axis="x", pad=14)
    axis.set_yticks([])
    axis.set_ylim(-0.02, 1.02)
    for side in ("top", "bottom", "left", "right"):
        axis.spines[side].set_visible(False)
    return figure


def importance(search: Search) -> Figure | None:
    """Draw how much of the difference between good and other trials each setting explains (PED-ANOVA)."""
    import optuna

    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(search.study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # too few trials, or all equal
        return None
    if not found or not all(np.isfinite(value) for value in found.values()):
        return None
    figure = Figure(figsize=(7, 1 + 0.5 * len(found)), layout="constrained")
    axis = figure.subplots()
    names = list(found)[::-1]
    bars = axis.barh([_short(name) for name in names], [found[name] for name in names], color="tab:blue")
    axis.bar_label(bars, fmt=" %.2f")
    axis.set_xlim(0, 1.15 * max(found.values()) or 1)
    axis.set_xlabel("importance")
    return figure


def coverage(search: Search) -> Figure | None:
    """Draw the trials over the first two settings, beside a grid with the same number of points.

    The ticks on the margins show how many values of each setting are tried: random trials try a new value each time.
    """
    ranks, dimensions = _better(search), search.space.dimensions[:2]
    if len(dimensions) < 2 or not search.trials:
        return None
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    points = [[_share(d, trial.params[d.name]) for d in dimensions] for trial in search.trials]
    side = max(1, round(len(points) ** 0.5))
    grid = [[(i + 0.5) / side, (j + 0.5) / side] for i in range(side) for j in range(side)]
    for trial, (x, y) in zip(search.trials, points, strict=True):
        left.plot(x, y, "o", color=_colour(ranks.get(trial.number)), markersize=9, markeredgecolor="grey")
    for x, y in grid:
        right.plot(x, y, "o", color="lightgrey", markersize=9, markeredgecolor="grey")
    for axis, shown, title in ((left, points, search.plan.method), (right, grid, "grid of as many points")):
        for x, y in shown:
            axis.plot([x, x], [-0.1, -0.06], color="tab:orange")
            axis.plot([-0.1, -0.06], [y, y], color="tab:orange")
        tried = " x ".join(str(len({round(point[k], 6) for point in shown})) for k in (0, 1))
        axis.set_title(f"{title}: {len(shown)} points, {tried} values")
        axis.set_xlabel(_range(dimensions[0]))
        axis.set_xticks([])
        axis.set_yticks([])
    left.set_ylabel(_range(dimensions[1]))
    return figure


def _share(dimension: Dimension, value: Any) -> float:
    """Return the position of a value in its range, from 0 to 1."""
    if dimension.kind == "choice":
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    low, high, here = dimension.low, dimension.high, float(value)
    if dimension.logarithmic:
        low, high, here = np.log(low), np.log(high), np.log(here)
    return float((here - low) / (high - low))


def _ends(dimension: Dimension) -> tuple[str, str]:
    if dimension.kind == "choice":
        return str(dimension.values[0]), str(dimension.values[-1])
    return f"{dimension.low:.3g}", f"{dimension.high:.3g}"


def _range(dimension: Dimension) -> str:
    low, high = _ends(dimension)
    return f"{_short(dimension.name)}: {low} to {high}{' (log)' if dimension.logarithmic else ''}"


def _short(name: str) -> str:
    """Return the distinctive part of a path: `ip1 num_output`."""
    if name.startswith("solver."):
        return name.removeprefix("solver.")
    layer, _, rest = name.removeprefix("net.layer[").partition("]")
    return f"{layer.strip(chr(34) + chr(39))} {rest.rpartition('.')[2]}"
