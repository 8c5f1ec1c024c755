"""Fine-tuning: a net trained on the digits 0 to 4 learns 5 to 9, with a new name of its last layer.

Weights are copied by layer names. `ip2` is renamed to `ip2_new`, so that this layer starts from its filler, while the
others start from the trained weights.
"""

from __future__ import annotations

from pathlib import Path

import digits
import numpy as np
from learn_lenet import lenet_net


def main(out: Path, iterations: int) -> tuple[float, float]:
    """Learn 5 to 9 from few digits, with and without pretraining on 0 to 4; returns the two final losses; draws
    `finetune.png`.
    """
    teacher = digits.solver(lenet_net(*digits.databases(out, (0, 1, 2, 3, 4), "low")), out, "low")
    teacher.step(iterations)
    teacher.net.save(out / "low.caffemodel")

    net = lenet_net(*digits.databases(out, (5, 6, 7, 8, 9), "high"), batch=16)
    for layer in net.layer:
        if layer.name == "ip2":
            layer.name = "ip2_new"
            layer.param.add(lr_mult=2)
            layer.param.add(lr_mult=4)
        elif layer.type in ("Convolution", "InnerProduct"):
            layer.param.add(lr_mult=0.5)
            layer.param.add(lr_mult=1)
    curves = {}
    for name, weights in (("from scratch", None), ("fine-tuned", out / "low.caffemodel")):
        solver = digits.solver(net, out, "high", base_lr=0.002)
        if weights:
            solver.net.copy_from(weights)
        curves[name] = []
        for _ in range(max(20, iterations // 3)):
            solver.step(1)
            curves[name].append(float(solver.net.blobs["loss"].data))

    page = digits.page(7, 4)
    axis = page.subplots()
    for name, losses in curves.items():
        axis.plot(np.convolve(losses, np.ones(5) / 5, "valid"), label=name)
    axis.set_xlabel("iteration")
    axis.set_ylabel("training loss")
    axis.set_title("Digits 5 to 9, batches of 16")
    axis.legend()
    page.savefig(out / "finetune.png", dpi=110)
    return float(np.mean(curves["from scratch"][-10:])), float(np.mean(curves["fine-tuned"][-10:]))


if __name__ == "__main__":
    digits.command(main)
