"""Non-maximum suppression of SSD300's 8,732 boxes in 21 classes, compared with torchvision, or OpenCV if that is
missing.

    python -m benchmarks.nms [--rounds 9] [--threads 1] [--dry]

The boxes are random, small or large, so that few or many overlap. The scores are a softmax of random numbers. `top_k`
400 is the setting of SSD; "all" uses every box of each of the 20 classes. The candidates take turns; medians of the
processor's time are reported, which depend less on other programs than the time of the clock. The table
is printed and, without --dry, written to benchmarks/results/nms.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import keep
from benchmarks.update import measure
from caffe.layers.support.boxes import batched_nms

RESULTS = Path(__file__).parent / "results"
BOXES, CLASSES, THRESHOLD = 8732, 21, 0.45
Candidate = Callable[[Tensor, Tensor, int | None], int]


def scene(size: float) -> tuple[Tensor, Tensor]:
    """Return boxes (P, 4) with sides up to `size` of the image, and scores (C, P) of the classes without the
    background.
    """
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(BOXES, 2, generator=generator)
    half = (torch.rand(BOXES, 2, generator=generator) * size + 0.02) / 2
    scores = torch.softmax(3 * torch.randn(BOXES, CLASSES, generator=generator), 1)
    return torch.cat([centre - half, centre + half], 1), scores.T[1:].contiguous()


def ours(boxes: Tensor, scores: Tensor, top_k: int | None) -> int:
    """Return the number of boxes that ours keeps."""
    classes, places = torch.arange(len(scores)).repeat_interleave(BOXES), torch.arange(BOXES).repeat(len(scores))
    return len(batched_nms(boxes, scores.flatten(), classes, THRESHOLD, top_k=top_k, places=places))


def other() -> tuple[str, Candidate]:
    """Return the function to compare with, and its name."""
    try:
        from torchvision.ops import nms  # type: ignore[import-not-found,unused-ignore]
    except Exception:  # missing, or built for another version of torch
        return "OpenCV", opencv

    def torchvision(boxes: Tensor, scores: Tensor, top_k: int | None) -> int:
        kept = 0
        for score in scores:
            places = score.topk(top_k or BOXES).indices
            kept += len(nms(boxes[places], score[places], THRESHOLD))
        return kept

    return "torchvision", torchvision


def opencv(boxes: Tensor, scores: Tensor, top_k: int | None) -> int:
    """Return the number of boxes that OpenCV keeps."""
    import cv2

    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).double().numpy()
    return sum(len(cv2.dnn.NMSBoxes(sides, score.numpy(), 0.0, THRESHOLD, top_k=top_k or 0)) for score in scores)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, theirs = other()
    lines = [
        f"{BOXES:,} boxes, {CLASSES - 1} classes, {given.threads} thread(s), median processor time of {given.rounds}\n",
        f"| boxes up to | top_k | kept | ours ms | {name} ms | {name} / ours |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    ratios: dict[str, float] = {}
    for size in (0.02, 0.1, 0.5):
        boxes, scores = scene(size)
        for top_k in (400, None):
            steps = {"ours": ours, "theirs": theirs}
            candidates = {key: (bound(run, boxes, scores, top_k), 0) for key, run in steps.items()}
            seconds = measure(candidates, given.rounds, time.process_time)
            figures = f"{1e3 * seconds['ours']:.1f} | {1e3 * seconds['theirs']:.1f}"
            kept = f"{ours(boxes, scores, top_k):,}"
            ratio = seconds["theirs"] / seconds["ours"]
            ratios[f"{size:g}, {top_k or 'all'}"] = ratio
            lines.append(f"| {size:g} | {top_k or 'all'} | {kept} | {figures} | {ratio:.2f} |")
    print("\n".join(lines))
    if not given.dry:
        (RESULTS / "nms.md").write_text("\n".join(lines) + "\n")
        keep("nms", {"against OpenCV": float(name == "OpenCV"), **ratios})


def bound(run: Candidate, boxes: Tensor, scores: Tensor, top_k: int | None) -> Callable[[], None]:
    """Return a step for `measure`."""

    def step() -> None:
        run(boxes, scores, top_k)

    return step


if __name__ == "__main__":
    main()
