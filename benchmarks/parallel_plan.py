"""A calculation of how data parallel training of three nets would scale to 8, 64 and 1,024 GPUs. Draws a picture.

    python -m benchmarks.parallel_plan [OUT.png]

The step of n processes that compute for T seconds and exchange M bytes over links of latency L and bandwidth B:

    ring   2 (n - 1) (L + M / (n B))
    tree   2 ceil(log2 n) (L + M / B / pieces) + 2 M / B (pieces - 1) / pieces, in pieces of 1 MB
    step   T + max(0, exchange - hidden T)

`hidden` is the fraction of the step in which gradients are ready to be sent: the backward pass except for the last
bucket. T follows from the operations of a step and an assumed rate. All constants are below and can be changed.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOLD = (8, 64, 1024)
LATENCY, BANDWIDTH = 10e-6, 12.5e9
"""Of a link between machines: latency in seconds, and bytes per second (100 Gbit/s)."""
RATE = 20e12
"""Operations per second of a GPU in these nets, float32 with TF32 products: a third of the nominal rate."""
HIDDEN = 0.6
PIECE = 1e6


@dataclass(frozen=True)
class Plan:
    """A net: its parameters, operations per image of a training step, and the batch size of one GPU."""

    name: str
    parameters: float
    operations: float
    batch: int

    def computing(self) -> float:
        """Seconds of a step without the exchange."""
        return self.operations * self.batch / RATE


NETS = (
    Plan("AlexNet", 61.0e6, 3 * 1.45e9, 128),
    Plan("GoogLeNet", 13.4e6, 3 * 3.2e9, 64),
    Plan("ResNet-50", 25.6e6, 3 * 8.2e9, 32),
)


def ring(count: int, size: float) -> float:
    """Seconds of a sum over a ring."""
    return 2 * (count - 1) * (LATENCY + size / (count * BANDWIDTH))


def tree(count: int, size: float) -> float:
    """Seconds of a sum over a tree, in pipelined pieces."""
    depth, pieces = math.ceil(math.log2(count)) if count > 1 else 0, max(1, math.ceil(size / PIECE))
    return 2 * (depth + pieces - 1) * (LATENCY + size / pieces / BANDWIDTH) if depth else 0.0


def efficiency(plan: Plan, count: int, width: int = 4) -> float:
    """Return the speed with `count` processes relative to `count` times one process; `width` is bytes per gradient
    value.
    """
    size, alone = plan.parameters * width, plan.computing()
    exchange = min(ring(count, size), tree(count, size))
    return alone / (alone + max(0.0, exchange - HIDDEN * alone))


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="docs/images/parallel_plan.png", metavar="OUT.png")
    out = parser.parse_args().out
    if not out.endswith(".png"):
        parser.error(f"the picture {out} has no name that ends in .png")
    for plan in NETS:
        size = plan.parameters * 4
        print(f"{plan.name}: {size / 1e6:.0f} MB a step, {plan.computing() * 1e3:.0f} ms of computing")
        for count in TOLD:
            times = f"ring {ring(count, size) * 1e3:6.1f} ms, tree {tree(count, size) * 1e3:6.1f} ms"
            shares = f"efficiency {efficiency(plan, count):4.0%}, with 16 bits {efficiency(plan, count, 2):4.0%}"
            print(f"  {count:5} GPUs: {times}, {shares}")
    draw(out)


def draw(out: str) -> None:
    """The speed over the number of GPUs, both on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(COUNTS, COUNTS, color="grey", linestyle=":", label="perfect")
    for number, plan in enumerate(NETS):
        for width, style in ((4, "-"), (2, "--")):
            speeds = [count * efficiency(plan, count, width) for count in COUNTS]
            label = f"{plan.name}, {8 * width} bits"
            axes.plot(COUNTS, speeds, style, color=f"C{number}", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("GPUs")
    axes.set_ylabel("times the speed of one GPU")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
