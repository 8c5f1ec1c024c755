"""Pictures of the race: contours with the paths, 3D surfaces, and films. Imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from caffe.errors import ArgumentError
from caffe.race.paths import Path
from caffe.race.surfaces import Surface

__all__ = ["FILMS", "contour", "film", "space"]

FILMS = (".gif", ".mp4")
_COLOURS = [f"C{index}" for index in range(10)]


def _height(surface: Surface, values: Any) -> Any:
    """Scale the height above the minimum so that low values are spread out."""
    return np.log1p(100 * np.maximum(0, np.asarray(values) - surface.minimum) / _top(surface))


def _top(surface: Surface) -> float:
    return max(1e-9, float(surface.grid(101)[2].max()) - surface.minimum)


def contour(surface: Surface, paths: Sequence[Path], steps: int | None = None) -> Figure:
    """Draw contour lines with the paths of the racers, and beside them the heights over the steps.

    `steps` draws only the first steps, as in a film; the axes are those of the whole race.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    x, y, values = surface.grid(201)
    left.contourf(x, y, _height(surface, values), 24, cmap="Blues", alpha=0.8)
    left.contour(x, y, _height(surface, values), 24, colors="white", linewidths=0.4)
    for index, path in enumerate(paths):
        points, heights = path.points[: None if steps is None else steps + 1], path.values - surface.minimum
        style: dict[str, Any] = {"color": _COLOURS[index % 10], "linestyle": "-" if index < 10 else "--"}
        left.plot(
            *points.T, marker=".", markersize=3, linewidth=1.4, label=f"{path.racer.name} ({path.rate:g})", **style
        )
        left.plot(*points[-1], "o", markersize=8, markeredgecolor="white", color=style["color"])
        right.semilogy(np.maximum(heights[: len(points)], 1e-12), **style)
    left.plot(*surface.start, "ks", markersize=5)
    left.set_xlim(*surface.window[:2])
    left.set_ylim(*surface.window[2:])
    figure.suptitle(f"{surface.name}: {surface.about}", fontsize=10)
    left.legend(fontsize=7, loc="upper right", title="rule (rate)", title_fontsize=7)
    longest = max(len(path.values) for path in paths)
    top = float(paths[0].values[0]) - surface.minimum
    right.set_xlim(0, max(1, longest - 1))
    right.set_ylim(max(1e-12, 1e-7 * top), max(5 * top, 1e-11))
    right.set_xlabel("step")
    right.set_ylabel("height above the minimum")
    right.grid(alpha=0.3)
    return figure


def space(surface: Surface, paths: Sequence[Path]) -> Figure:
    """Draw the surface in three dimensions with the paths on it."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    axis: Any = figure.add_subplot(projection="3d")
    axis.computed_zorder = False
    x, y, values = surface.grid(81)
    axis.plot_surface(x, y, _height(surface, values), cmap="Blues", alpha=0.7, linewidth=0, zorder=1)
    a, b, c, d = surface.window
    for index, path in enumerate(paths):
        inside = [
            (px, py, v) for (px, py), v in zip(path.points, path.values, strict=True) if a <= px <= b and c <= py <= d
        ]
        xs, ys, heights = np.array(inside).T
        axis.plot(xs, ys, _height(surface, heights) + 0.03, color=_COLOURS[index % 10], label=path.racer.name, zorder=2)
    axis.view_init(48, -60)
    axis.set_title(f"{surface.name} (heights on a logarithmic scale)")
    axis.legend(fontsize=8)
    return figure


def film(target: FilePath, surface: Surface, paths: Sequence[Path], frames: int = 60) -> None:
    """Write the race as a film: .gif, or .mp4 by OpenCV."""
    longest = max(len(path.values) for path in paths) - 1
    steps = sorted({round(longest * (index / (frames - 1)) ** 1.5) for index in range(frames)})
    pictures = [_pixels(contour(surface, paths, step)) for step in steps]
    pictures += [pictures[-1]] * 15
    if target.suffix == ".gif":
        from PIL import Image

        images = [Image.fromarray(each).convert("P", palette=Image.Palette.ADAPTIVE, colors=64) for each in pictures]
        images[0].save(target, save_all=True, append_images=images[1:], duration=80, loop=0, optimize=True)
        return
    import cv2

    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), 12, (width, height))  # type: ignore[attr-defined]
    if not writer.isOpened():
        raise ArgumentError(f"{target}: this OpenCV cannot write MP4; use .gif")
    for each in pictures:
        writer.write(cv2.cvtColor(each, cv2.COLOR_RGB2BGR))
    writer.release()


def _pixels(figure: Figure) -> np.ndarray:
    figure.set_dpi(70)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
