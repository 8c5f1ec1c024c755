"""Bar charts of the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.goals import value

COLOURS = {
    "Cafetière": "#6f4518",
    "Cafetière compiled": "#a47148",
    "Cafetière bf16": "#d4a276",
    "Cafetière, OpenVINO": "#553c9a",
    "Cafetière, OpenVINO bf16": "#cbb8e6",
    "PyTorch eager": "#f4b942",
    "PyTorch tuned": "#e76f51",
    "PyTorch compiled": "#9b2226",
    "real Caffe": "#577590",
    "ONNX Runtime": "#1b7f79",
    "OpenVINO": "#7048a8",
    "OpenVINO bf16": "#b79ad8",
    "OpenCV": "#8d99ae",
}
SKIPPED = ("matrix product",)


def draw(title: str, rows: Mapping[str, Any], path: Path) -> None:
    """Draw the engines of each row as bars relative to the first engine, with the figures on top."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    engines = [name for name in next(iter(rows.values()))["engines"] if name not in SKIPPED]
    figure, axis = pyplot.subplots(figsize=(max(7, 0.24 * len(rows) * len(engines) + 3), 4.5))
    width = 0.86 / len(engines)
    for place, engine in enumerate(engines):
        points = []
        for column, row in enumerate(rows.values()):
            took, first = value(row["engines"].get(engine, {})), value(row["engines"][engines[0]])
            if took is not None and first is not None:
                points.append((column + (place - (len(engines) - 1) / 2) * width, took / first, took))
        if points:
            lefts, heights, figures = zip(*points, strict=True)
            bars = axis.bar(lefts, heights, width * 0.94, color=COLOURS.get(engine), label=engine)
            shown = [f"{took:,.0f}" if took >= 100 else f"{took:.3g}" for took in figures]
            axis.bar_label(bars, shown, padding=2, fontsize=7, rotation=90)
    axis.axhline(1, color="black", linewidth=0.6)
    names = [name + (f"\nbatch {row['batch']}" if "batch" in row else "") for name, row in rows.items()]
    axis.set_xticks(range(len(rows)), names)
    axis.set(title=title, ylabel=f"multiple of {engines[0]}; less is better")
    axis.margins(x=0.02, y=0.12)
    axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
