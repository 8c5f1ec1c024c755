"""The pictures of `caffe doctor -plot`. Imports matplotlib: see `Report.draw`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from caffe.doctor.exam import Exam
from caffe.doctor.first_step import FILLERS, first_filters, numbers

__all__ = ["draw"]

_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.fontsize": 8,
    "legend.edgecolor": "none",
}
_COLUMNS, _CURVES, _FILTERS = 6, 8, 64


def draw(exam: Exam, folder: Path) -> list[Path]:
    """Write all pictures for which there are measurements, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Exam], Figure | None]] = {
        "activations": lambda exam: _histograms(exam, "activations"),
        "gradients": lambda exam: _histograms(exam, "gradients"),
        "rates": _rates,
        "updates": _updates,
        "classes": _classes,
        "mean": _mean,
        "filters": _filters,
        "trials": _trials,
    }
    written = []
    with mpl.rc_context(_STYLE):
        for name, make in makers.items():
            figure = make(exam)
            if figure is not None:
                written.append(folder / f"{name}.png")
                figure.savefig(written[-1], dpi=110)
    return written


def _histograms(exam: Exam, what: str) -> Figure | None:
    """Draw a row per filler and a column per learned layer: histograms of the values at the first step."""
    rows = {kind or "as it is": numbers(exam, kind) for kind in FILLERS}
    rows = {kind: row for kind, row in rows.items() if row}
    if not rows:
        return None
    names = _spread_over(list(next(iter(rows.values()))))
    page = Figure(figsize=(1.2 + 1.9 * max(3, len(names)), 0.9 + 1.7 * len(rows)), layout="constrained")
    page.suptitle(f"{what.capitalize()} at the first step, by layer and weight filler")
    axes = page.subplots(len(rows), len(names), squeeze=False)
    for line, (kind, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(kind)
        for axis, name in zip(line, names, strict=True):
            _histogram(axis, name, getattr(row[name], what) if name in row else np.zeros(0))
    return page


def _histogram(axis: Any, name: str, values: np.ndarray) -> None:
    values = values[np.isfinite(values)]
    std = float(values.std()) if values.size else 0.0
    axis.set_yticks([])
    axis.set_title(f"{_short(name)}\nstd {std:.2g}" if values.size else f"{_short(name)}\nnone", fontsize=8)
    if values.size and std:
        end = float(np.abs(values).max())
        counts, _, _ = axis.hist(values, bins=41, range=(-end, end), color="tab:blue")
        zeros, others = float((values == 0).mean()), float(np.delete(counts, len(counts) // 2).max())
        if zeros > 0.1 and others:  # zeros of a rectifier would dominate the histogram
            axis.set_ylim(0, 1.25 * others)
            axis.text(0.98, 0.97, f"0: {100 * zeros:.0f} %", ha="right", va="top", fontsize=7, transform=axis.transAxes)
        axis.set_xticks([-end, 0, end], [f"{-end:.1g}", "0", f"{end:.1g}"], fontsize=7)
    else:
        axis.text(0.5, 0.5, "all alike" if values.size else "no values", ha="center", transform=axis.transAxes)
        axis.set_xticks([])


def _rates(exam: Exam) -> Figure | None:
    found = exam.rates
    if found is None:
        return None
    page = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = page.subplots()
    axis.axvspan(found.low, found.high, color="tab:green", alpha=0.15, label="the loss falls")
    axis.plot(found.rates, found.losses, color="tab:blue", alpha=0.35, linewidth=1, label="loss of a step")
    axis.plot(found.rates, found.smoothed, color="tab:blue", linewidth=2, label="smoothed")
    axis.axvline(found.suggested, color="tab:green", linewidth=1.5, label=f"suggested: {found.suggested:.1g}")
    axis.axvline(found.given, color="tab:orange", linewidth=1.5, linestyle="--", label=f"base_lr: {found.given:g}")
    axis.set_xscale("log")
    low, begin = float(np.nanmin(found.smoothed)), float(found.losses[0])
    if math.isfinite(low) and math.isfinite(begin):
        axis.set_ylim(low - 0.15 * abs(begin - low) - 1e-6, begin + 1.2 * max(abs(begin - low), 0.05 * abs(begin)))
    axis.set_xlabel("rate")
    axis.set_ylabel("loss")
    axis.set_title("Range test: the rate grows at every step")
    axis.legend(loc="upper left")
    return page


def _updates(exam: Exam) -> Figure | None:
    blobs = [blob for blob in exam.blobs if math.isfinite(blob.ratio) and blob.ratio > 0]
    if not blobs:
        return None
    blobs = _spread_over(blobs, 30)
    page = Figure(figsize=(7.5, 1.5 + 0.28 * len(blobs)), layout="constrained")
    axis = page.subplots()
    axis.axvspan(1e-4, 1e-2, color="tab:green", alpha=0.15, label="usual: about 1e-3")
    axis.barh(range(len(blobs)), [blob.ratio for blob in blobs], color="tab:blue", height=0.6)
    axis.set_yticks(range(len(blobs)), [f"{_short(blob.layer, 24)} [{blob.index}]" for blob in blobs])
    axis.set_ylim(len(blobs) - 0.4, -0.6)
    axis.set_xscale("log")
    ratios = [blob.ratio for blob in blobs]
    axis.set_xlim(min([*ratios, 1e-4]) / 3, max([*ratios, 1e-2]) * 3)
    axis.set_xlabel("size of the first update against that of the values")
    axis.set_title("Updates, blob by blob")
    page.legend(loc="outside lower right")
    return page


def _classes(exam: Exam) -> Figure | None:
    head = exam.head
    labels = exam.sample.arrays.get(head.labels) if head is not None and head.classes else None
    if labels is None:
        return None
    values, counts = np.unique(labels, return_counts=True)
    page = Figure(figsize=(7.5, 3.4), layout="constrained")
    axis = page.subplots()
    axis.bar(range(len(values)), counts, color="tab:blue")
    axis.axhline(counts.mean(), color="tab:orange", linestyle="--", label="an even split")
    if len(values) <= 25:
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axis.set_xlabel("class")
    axis.set_ylabel("items read")
    axis.set_title(f"Balance of {len(values)} classes in {labels.size:,} labels")
    axis.legend(loc="lower right", framealpha=0.9)
    return page


def _mean(exam: Exam) -> Figure | None:
    x = next((exam.sample.arrays[name] for name in exam.inputs() if name in exam.sample.arrays), None)
    if x is None or x.ndim != 4 or min(x.shape[2:]) < 4:
        return None
    shown = {"first item": x[0], "mean": x.mean(0), "standard deviation": x.std(0)}
    page = Figure(figsize=(8.4, 3.2), layout="constrained")
    page.suptitle(f"Input as the net gets it, of {len(x):,} items")
    for axis, (name, image) in zip(page.subplots(1, 3), shown.items(), strict=True):
        picture = axis.imshow(_image(image), cmap="gray")
        axis.set_title(f"{name}\n{float(image.min()):.3g} to {float(image.max()):.3g}", fontsize=9)
        axis.set_axis_off()
        if picture.get_array().ndim == 2:
            page.colorbar(picture, ax=axis, shrink=0.8)
    return page


def _filters(exam: Exam) -> Figure | None:
    found = first_filters(exam)
    if found is None:
        return None
    name, pairs = found
    page = Figure(figsize=(9, 4.6), layout="constrained")
    page.suptitle(f'Filters of the first learned layer "{name}"')
    for axis, (when, weights) in zip(page.subplots(1, 2), pairs.items(), strict=True):
        axis.imshow(_tiles(weights[:_FILTERS]), cmap=mpl.colormaps["gray"].with_extremes(bad="lightsteelblue"))
        axis.set_title(when)
        axis.set_axis_off()
    return page


def _trials(exam: Exam) -> Figure | None:
    """Yield the losses of the unchanged run and of the best changes."""
    steps = exam.steps
    runs = [
        (change, run) for (change, count, _), run in exam.trials.outcomes.items() if count == steps and not run.error
    ]
    runs = [(change, run) for change, run in runs if len(run.losses) > 2 and (change is None or change.edits)]
    runs = [(change, run) for change, run in runs if change is None or change != exam.swept]
    runs.sort(key=lambda pair: (pair[0] is not None, -pair[1].quality))
    if not runs:
        return None
    page = Figure(figsize=(8, 3.6 + 0.22 * min(len(runs), _CURVES)), layout="constrained")
    axis = page.subplots()
    finite = [loss for _, run in runs for loss in run.losses[:1] if np.isfinite(loss)]
    top = 2 * max(finite, default=1.0)
    for change, run in runs[:_CURVES]:
        width = 2.2 if change is None else 1.2
        axis.plot(
            np.minimum(run.losses, top), linewidth=width, label=_short(f"{change.text if change else 'unchanged'}", 70)
        )
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_title("The unchanged run, and the run with one change each")
    page.legend(loc="outside lower center")
    return page


def _tiles(weights: np.ndarray) -> np.ndarray:
    """Combine filters (N, C, H, W) into one image, each scaled to 0 ... 1, separated by lines of NaN."""
    count, columns = len(weights), math.ceil(math.sqrt(len(weights)))
    images = [_image(each) for each in weights]
    height, width = images[0].shape[:2]
    shape = (-(-count // columns) * (height + 1) + 1, columns * (width + 1) + 1, *images[0].shape[2:])
    page = np.full(shape, np.nan if images[0].ndim == 2 else 1.0)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        low, high = image.min(), image.max()
        top, left = 1 + row * (height + 1), 1 + column * (width + 1)
        page[top : top + height, left : left + width] = (image - low) / ((high - low) or 1)
    return page


def _image(values: np.ndarray) -> np.ndarray:
    """Convert an array (C, H, W) for matplotlib: three channels, which are BGR, become RGB from 0 to 1."""
    if len(values) != 3:
        return np.asarray(values[0])
    low, high = values.min(), values.max()
    return np.asarray((values[::-1].transpose(1, 2, 0) - low) / ((high - low) or 1))


def _spread_over(items: list[Any], most: int = _COLUMNS) -> list[Any]:
    """Return at most so many of the items, evenly sampled, including the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
