"""The goals of each benchmark, and whether they are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.rounds import OURS

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A goal for ratios (time of the best of `peers` / time of ours) in the rows of one part of the benchmarks.

    `mean` is the smallest allowed geometric mean, `least` the smallest allowed ratio; `most` is the largest allowed
    inverse, ours / best peer.
    """

    part: str
    text: str
    peers: tuple[str, ...]
    mean: float = 0.0
    least: float = 0.0
    most: float = 0.0
    ours: tuple[str, ...] = (OURS,)
    """Names of our engines; two separated by EITHER mean the faster of both in each row."""
    rows: tuple[str, ...] = ()
    """Only these rows; the default is all."""

    def wanted(self) -> str:
        """Describe the goal."""
        words = [f"geometric mean {self.mean:g}"] if self.mean else []
        words += [f"none under {self.least:g}"] if self.least else []
        return ", ".join([*words, *([f"ours / theirs at most {self.most:g}"] if self.most else [])])

    def judge(self, ratios: Mapping[str, float]) -> tuple[str, str]:
        """Return a description of the measurement, and the verdict."""
        worst = min(ratios, key=lambda name: ratios[name])
        if self.most:
            return f"at most {1 / ratios[worst]:.2f} ({worst})", _verdict(1 / ratios[worst] <= self.most)
        mean = statistics.geometric_mean(ratios.values())
        found = f"geometric mean {mean:.2f}, " if self.mean else ""
        return f"{found}least {ratios[worst]:.2f} ({worst})", _verdict(
            mean >= self.mean and ratios[worst] >= self.least
        )


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


EITHER = " or "
FLOAT = (OURS, f"{OURS} compiled")
OPENVINO = f"{OURS}, OpenVINO"
COMPILED = ("PyTorch tuned", "PyTorch compiled")
ENGINES = ("ONNX Runtime", "OpenVINO", "OpenCV")
GOALS = [
    Goal("training", "training step, float32", ("real Caffe",), least=2.5, ours=FLOAT),
    Goal("training", "training step, float32", COMPILED, 1.6, 1.2, ours=FLOAT),
    Goal("training", "training step, bfloat16 with AMX", (OURS,), least=2.5, ours=(f"{OURS} bf16",)),
    Goal(
        "limits", "training step, float32", ("limit",), most=1.5, ours=FLOAT, rows=("alexnet", "googlenet", "resnet50")
    ),
    Goal("inference", "inference, float32", ENGINES, 1.15, 1.0, ours=(*FLOAT, OPENVINO, f"{OURS}{EITHER}{OPENVINO}")),
    Goal("inference", "inference, bfloat16", ("OpenVINO bf16",), 1.5, 1.0, ours=(f"{OURS} bf16", f"{OPENVINO} bf16")),
    Goal(
        "single",
        "inference of one image",
        ("OpenCV", "ONNX Runtime", "real Caffe"),
        least=1.0,
        ours=(OURS, OPENVINO, f"{OURS}{EITHER}{OPENVINO}"),
    ),
    Goal("small", "training step of small nets", COMPILED, least=1.5, ours=FLOAT),
    Goal("layers", "one image layer by layer", ("real Caffe",), least=1.0),
    Goal("loading", "240 MB of weights read", ("OpenCV",), least=3.0),
    Goal("loading", "240 MB of weights read", ("real Caffe",), least=3.0),
    Goal("memory", "peak memory of training", ("PyTorch eager",), most=0.75),
]
"""The goals, in display order."""


def value(found: Mapping[str, Any]) -> float | None:
    """Return the measurement of an engine, in the part's unit; None if it was not measured."""
    return found.get("ms", found.get("MB"))


def ratios(goal: Goal, rows: Rows, ours: str) -> dict[str, float]:
    """Return for each row the time of the best peer relative to `ours`, where both were measured."""
    made = {}
    for name, row in rows.items():
        took = {engine: value(found) for engine, found in row["engines"].items()}
        peers, mine = ([took[n] for n in names if took.get(n)] for names in (goal.peers, ours.split(EITHER)))
        if peers and mine and (not goal.rows or name in goal.rows):
            made[name] = min(peers) / min(mine)
    return made


def judged(part: str, rows: Rows) -> Iterator[str]:
    """Yield the lines of a Markdown table, one for each goal of the part."""
    for goal in GOALS:
        for ours in goal.ours:
            needed = set(ours.split(EITHER))
            if goal.part != part or not any(needed <= row["engines"].keys() for row in rows.values()):
                continue
            against = goal.peers[0] if len(goal.peers) == 1 else f"best of {', '.join(goal.peers)}"
            found = ratios(goal, rows, ours)
            shown, verdict = goal.judge(found) if found else ("not measured", "-")
            who = f"the quicker of {ours}" if EITHER in ours else ours
            yield f"| {who}: {goal.text} | {against} | {goal.wanted()} | {shown} | {verdict} |"
