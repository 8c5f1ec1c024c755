"""The list of goals in benchmarks/results/goals.md: each goal, its measurement, and a link to an explanation."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import goals
from benchmarks.goals import COMPILED, FLOAT, Goal
from benchmarks.rounds import OURS

Stored = Mapping[str, Any]
HEAD = ["# Goals", "", "| work | goal | measured | | why it is missed |", "| --- | --- | --- | --- | --- |"]
PAGE = "../../docs/speed.md#"


@dataclass(frozen=True)
class Item:
    """A goal. `measure` returns the text of what was measured, and whether the goal is met; it raises KeyError where a
    figure is missing.
    """

    work: str
    wanted: str
    measure: Callable[[Stored], tuple[str, bool]]
    why: str
    """The anchor of the paragraph in docs/speed.md that explains why the goal is missed."""


def ratio(part: str, peers: tuple[str, ...], ours: str = OURS, **goal: Any) -> Callable[[Stored], tuple[str, bool]]:
    """Measure a goal for the ratios of a part's rows."""

    def measure(stored: Stored) -> tuple[str, bool]:
        wanted = Goal(part, "", peers, ours=FLOAT, **goal)
        found = goals.ratios(wanted, stored[part]["rows"], ours)
        if not found:
            raise KeyError(part)
        text, verdict = wanted.judge(found)
        return text, verdict == "met"

    return measure


def figure(
    part: str, chosen: Callable[[str], bool], most: float = 0.0, least: float = 0.0, unit: str = ""
) -> Callable[[Stored], tuple[str, bool]]:
    """Measure a goal for the figures of a part whose names are `chosen`: all are at most, or at least, so much."""

    def measure(stored: Stored) -> tuple[str, bool]:
        found = {name: value for name, value in stored[part]["figures"].items() if chosen(name)}
        if not found:
            raise KeyError(part)
        shown = ", ".join(f"{name.split(',')[0]} {value:.3g}{unit}" for name, value in found.items())
        worst, best = max(found.values()), min(found.values())
        return shown, worst <= most if most else best >= least

    return measure


def ends(*words: str) -> Callable[[str], bool]:
    """Names that end with one of these words."""
    return lambda name: name.endswith(words)


def detectors(stored: Stored) -> tuple[str, bool]:
    """Compare the faster of our engines with OpenCV, for each model."""
    figures = stored["detection"]["figures"]
    best: dict[str, float] = {}
    for name, found in figures.items():
        model = name.split(",")[0]
        best[model] = max(best.get(model, 0), found)
    own = min(found for name, found in figures.items() if name.endswith(", torch"))
    least = min(best, key=lambda model: best[model])
    shown = f"geometric mean {statistics.geometric_mean(best.values()):.2f}, least {best[least]:.2f} ({least}); "
    return f"{shown}without OpenVINO least {own:.2f}", best[least] >= 1.2


def suppression(stored: Stored) -> tuple[str, bool]:
    """Compare with torchvision. Without torchvision, the figures are relative to OpenCV, and do not count."""
    if stored["nms"]["figures"]["against OpenCV"]:
        raise KeyError("torchvision")
    found = {name: value for name, value in stored["nms"]["figures"].items() if name != "against OpenCV"}
    least = min(found, key=lambda name: found[name])
    return f"least {found[least]:.2f} (boxes up to {least})", found[least] >= 0.8


def memory(rows: str) -> Callable[[Stored], tuple[str, bool]]:
    """Measure the growth of the process, relative to eager PyTorch's, for all nets."""
    ours, most = (OURS, 0.75) if rows == "plain" else (f"{OURS} recompute", 0.4)

    def measure(stored: Stored) -> tuple[str, bool]:
        found = {
            name.split(":")[0]: row["engines"][ours]["MB"] / row["engines"]["PyTorch eager"]["MB"]
            for name, row in stored["memory"]["rows"].items()
            if name.endswith("less imports") and "MB" in row["engines"].get("PyTorch eager", {})
        }
        if not found:
            raise KeyError("memory")
        largest = max(found, key=lambda name: found[name])
        text = ", ".join(f"{name} {share:.2f}" for name, share in found.items())
        return f"most {found[largest]:.2f} ({largest}); {text}", found[largest] <= most

    return measure


LARGE = ("alexnet", "googlenet", "resnet50")
BF16 = (f"{OURS} bf16",)
GOALS = [
    Item(
        "training step, float32",
        "time / limit at most 1.5 for AlexNet, GoogLeNet, ResNet-50",
        ratio("limits", ("limit",), most=1.5, rows=LARGE),
        "limit-ratio",
    ),
    Item(
        "training step, float32, ten nets",
        "best of PyTorch tuned and compiled / ours: geometric mean 1.6, none under 1.2",
        ratio("training", COMPILED, mean=1.6, least=1.2),
        "training-compared-with-pytorch",
    ),
    Item(
        "training step, float32, ten nets",
        "real Caffe / ours: none under 2.5",
        ratio("training", ("real Caffe",), least=2.5),
        "training-compared-with-real-caffe",
    ),
    Item(
        "training step of small nets",
        "best of PyTorch tuned and compiled / ours: 1.5",
        ratio("small", COMPILED, least=1.5),
        "small-nets",
    ),
    Item(
        "one image layer by layer: LeNet, MTCNN, CaffeNet",
        "real Caffe / ours: none under 1",
        ratio("layers", ("real Caffe",), least=1.0),
        "layer-by-layer",
    ),
    Item(
        "our own time in forward layer by layer",
        "at most 5 us a layer",
        figure("overhead", lambda name: name == "forward", most=5, unit=" us"),
        "layer-by-layer",
    ),
    Item(
        "our own time in backward layer by layer",
        "at most 8 us a layer",
        figure("overhead", lambda name: name == "backward", most=8, unit=" us"),
        "layer-by-layer",
    ),
    Item(
        "building ResNet-152, SSD-300, 1,000 tiny layers",
        "before / now: 3",
        figure("building", ends("before / now"), least=3),
        "building-and-reshaping",
    ),
    Item(
        "building is linear in layers",
        "a layer of 2,000 at most 1.25 of a layer of 125",
        figure("building", ends("of 125"), most=1.25),
        "building-and-reshaping",
    ),
    Item(
        "reshape to a size seen before costs nothing",
        "at most 0.1 of a new size: ResNet-152, SSD-300",
        figure("building", lambda name: name.endswith("seen / new") and not name.startswith("chain"), most=0.1),
        "building-and-reshaping",
    ),
    Item(
        "from `caffe train` to the first iteration of LeNet",
        "under 1.5 s",
        figure("building", ends("iteration, s"), most=1.5, unit=" s"),
        "start",
    ),
    Item(
        "our share of this time", "under 0.3 s", figure("building", ends("our share, s"), most=0.3, unit=" s"), "start"
    ),
    Item("`caffe --help`", "under 0.15 s", figure("building", ends("help, s"), most=0.15, unit=" s"), "start"),
    Item("peak memory of training", "ours / eager at most 0.75 on all nets", memory("plain"), "peak-memory"),
    Item(
        "peak memory with `recompute: true`",
        "ours / eager at most 0.4 on ResNet-50",
        lambda stored: only(memory("recompute"), "resnet50", stored),
        "peak-memory",
    ),
    Item(
        "time of a step with `recompute: true`, ResNet-50",
        "with / without at most 1.35",
        figure("recompute", lambda name: name == "resnet50", most=1.35),
        "peak-memory",
    ),
    Item(
        "training step, bfloat16",
        "our float32 / our bfloat16: 2.5 with AMX, 1.5 with AVX-512 BF16",
        lambda stored: bfloat16(stored),
        "bfloat16",
    ),
    Item("images a second from JPEG", "4 times the DataLoader", figure("data", ends("JPEG"), least=4), "data"),
    Item("images a second from raw records", "8 times the DataLoader", figure("data", ends("raw"), least=8), "data"),
    Item("detection, one image", "OpenCV / ours: 1.2", detectors, "detection-and-suppression"),
    Item("non-maximum suppression", "torchvision / ours: 0.8", suppression, "detection-and-suppression"),
]
"""The goals, in the order in which they are shown."""


def only(measure: Callable[[Stored], tuple[str, bool]], net: str, stored: Stored) -> tuple[str, bool]:
    """The same measurement for one net of `memory`."""
    rows = {name: row for name, row in stored["memory"]["rows"].items() if name.startswith(net)}
    return measure({"memory": {"rows": rows}})


def bfloat16(stored: Stored) -> tuple[str, bool]:
    """The goal depends on the processor that ran the benchmark."""
    least = 2.5 if "amx_bf16" in stored["training"]["machine"] else 1.5
    return ratio("training", (OURS,), BF16[0], mean=0.01, least=least)(stored)


def lines(stored: Stored) -> Iterator[str]:
    """Yield the page; goals of which a figure is missing are "not measured"."""
    yield from HEAD
    for item in GOALS:
        try:
            text, met = item.measure(stored)
            verdict = "met" if met else "**missed**"
        except KeyError:
            text, verdict = "not measured", "-"
        pointer = "" if verdict == "met" else f"[{item.why}]({PAGE}{item.why})"
        yield f"| {item.work} | {item.wanted} | {text} | {verdict} | {pointer} |"
