"""Bar charts of the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.goals import value

COLOURS = {
    "Cafetière": "#6f4518",
    "PyTorch eager": "#f4a261",
    "PyTorch tuned": "#e76f51",
    "PyTorch compiled": "#9b2226",
    "real Caffe": "#577590",
    "ONNX Runtime": "#2a9d8f",
    "OpenVINO": "#43aa8b",
    "OpenVINO bf16": "#90be6d",
    "OpenCV": "#8d99ae",
}
SKIPPED = ("matrix product",)


def draw(title: str, rows: Mapping[str, Any], path: Path) -> None:
    """Each row's engines as bars, as multiples of the first engine, and their geometric order of the rows kept."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    engines = [name for name in next(iter(rows.values()))["engines"] if name not in SKIPPED]
    figure, axis = pyplot.subplots(figsize=(max(7, 0.32 * len(rows) * len(engines) + 2), 4.5))
    width = 0.85 / len(engines)
    for place, engine in enumerate(engines):
        for column, row in enumerate(rows.values()):
            took, first = value(row["engines"].get(engine, {})), value(row["engines"][engines[0]])
            if took is None or first is None:
                continue
            left = column + (place - (len(engines) - 1) / 2) * width
            label = engine if column == 0 else None
            axis.bar(left, took / first, width * 0.95, color=COLOURS.get(engine), label=label)
            text = f"{took:,.0f}" if took >= 100 else f"{took:.3g}"
            axis.text(left, took / first, text, ha="center", va="bottom", fontsize=6, rotation=90)
    axis.axhline(1, color="black", linewidth=0.6)
    axis.set_xticks(
        range(len(rows)), [name + (f"\nbatch {row['batch']}" if "batch" in row else "") for name, row in rows.items()]
    )
    axis.set(title=title, ylabel=f"multiple of {engines[0]}")
    axis.margins(y=0.12)
    axis.legend(fontsize="small", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
