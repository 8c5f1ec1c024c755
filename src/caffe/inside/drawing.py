"""Draws results into matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe.errors import ArgumentError

__all__ = ["draw_heat", "draw_map", "draw_neighbours", "draw_tiles", "picture", "tiles"]

_MOST = 256


def picture(image: np.ndarray, bgr: bool = True) -> np.ndarray:
    """Scale an image (C, H, W) to pixels from 0 to 1: (H, W) or, for three channels, (H, W, 3) in RGB."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    low, high = float(image.min()), float(image.max())
    image = (image - low) / (high - low or 1)
    if len(image) >= 3:
        return image[2::-1].transpose(1, 2, 0) if bgr else image[:3].transpose(1, 2, 0)
    return image[0]


def tiles(stack: np.ndarray, columns: int = 0, bgr: bool = True) -> np.ndarray:
    """Combine filters or maps to one picture (H, W, 3) from 0 to 1. Each of at most 256 tiles is scaled separately.

    (N, 1, H, W) and (N, 3, H, W) give N tiles. Other channel counts give one tile per channel, with a row for each of
    N. (N, H, W) are grey.
    """
    stack = np.asarray(stack, np.float32)
    stack = stack[:, None] if stack.ndim == 3 else stack
    if stack.ndim != 4 or not stack.size:
        raise ArgumentError(f"tiles have shape {stack.shape}; expected (N, H, W) or (N, C, H, W)")
    if stack.shape[1] not in (1, 3):
        columns = columns or min(stack.shape[1], 32)
        stack = stack[: max(1, _MOST // columns), :columns].reshape(-1, 1, *stack.shape[2:])
    stack = stack[:_MOST]
    columns = min(columns or int(np.ceil(np.sqrt(len(stack)))), len(stack))
    height, width = stack.shape[2] + 1, stack.shape[3] + 1
    canvas = np.ones((-(-len(stack) // columns) * height - 1, columns * width - 1, 3), np.float32)
    for number, each in enumerate(stack):
        top, left = number // columns * height, number % columns * width
        shown = picture(each, bgr)
        canvas[top : top + height - 1, left : left + width - 1] = shown if shown.ndim == 3 else shown[..., None]
    return canvas


def draw_tiles(axes: Any, stack: np.ndarray, title: str = "", columns: int = 0) -> None:
    """Draw filters or a blob's maps, (N, H, W) or (N, C, H, W), in rows."""
    axes.imshow(tiles(stack, columns), interpolation="nearest")
    _finish(axes, title)


def draw_heat(axes: Any, image: np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """Draw a heat map (H, W) over its image (C, H, W) in grey.

    If it has negative values, 0 is the centre of the colour scale.
    """
    shown = picture(image)
    axes.imshow(shown if shown.ndim == 2 else shown.mean(2), cmap="gray", interpolation="nearest")
    low, high = float(np.min(heat)), float(np.max(heat))
    most = max(-low, high) or 1
    signed = low < -0.05 * most
    colours = (
        {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "inferno", "vmin": 0, "vmax": most}
    )
    axes.imshow(heat, alpha=0.6, interpolation="nearest", **colours)
    _finish(axes, title)


def draw_map(
    axes: Any,
    points: np.ndarray,
    labels: Sequence[Any] | None = None,
    images: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Draw points (N, 2), with a colour for each label, or with a small image (C, H, W) at each."""
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ArgumentError(f"the points have shape {points.shape}; expected (N, 2)")
    names = list(dict.fromkeys(labels)) if labels is not None else [None]
    shades = [_colours("tab20" if len(names) > 10 else "tab10")(number % 20) for number in range(len(names))]
    of_point = [names.index(label) for label in labels] if labels is not None else [0] * len(points)
    for number, name in enumerate(names):
        chosen = np.equal(of_point, number)
        axes.scatter(*points[chosen].T, s=14, color=[shades[number]], label=None if name is None else str(name))
    if images is not None:
        _put_images(axes, points, images, [shades[number] for number in of_point])
    if labels is not None and len(names) <= 20:
        axes.legend(fontsize=8, markerscale=1.5)
    _finish(axes, title)


def draw_neighbours(axes: Any, query: np.ndarray, images: np.ndarray, distances: np.ndarray, title: str = "") -> None:
    """Draw an image (C, H, W) and its neighbours (N, C, H, W), with their distances below."""
    row = np.concatenate([np.asarray(query)[None], images])
    axes.imshow(tiles(row, len(row)), interpolation="nearest")
    width = row.shape[3] + 1
    texts = ["query", *(f"{distance:.3g}" for distance in distances)]
    axes.set_xticks([width * (number + 0.5) - 1 for number in range(len(row))], texts)
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)


def _put_images(axes: Any, points: np.ndarray, images: np.ndarray, shades: Sequence[Any]) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for point, image, shade in zip(points, images, shades, strict=True):
        box = OffsetImage(picture(image), zoom=22 / max(image.shape[1:]), cmap="gray")
        axes.add_artist(AnnotationBbox(box, point, pad=0.12, bboxprops={"facecolor": shade, "edgecolor": "none"}))


def _colours(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name]


def _finish(axes: Any, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)
