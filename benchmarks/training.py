"""A training step of ten nets, compared with real Caffe, PyTorch, and the limit of the machine.

    python -m benchmarks training [-nets lenet,alexnet] [-engines eager,real] [-threads 1,2] [-rounds 5]

All engines start from the same weights and use the same random batch in every step. A step of the FCN is a step for
each of three sizes of images in turn. The limit is the time for three
times the operations of the forward pass at the speed of a large matrix product by oneDNN, measured in the same rounds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from benchmarks.plain_torch import batches, read
from benchmarks.rounds import OURS, Kind, chosen, measure, options
from benchmarks.workloads import TRAINED, prepare

ENGINES = [
    Kind(OURS, "ours", "train"),
    Kind(f"{OURS} compiled", "ours", "train", {"compiled": True}, like=OURS, extra=True),
    Kind(f"{OURS} bf16", "ours", "train", {"precision": "BFLOAT16"}),
    Kind("PyTorch eager", "pytorch", "train"),
    Kind("PyTorch tuned", "pytorch", "train", {"tuned": True}),
    Kind("PyTorch compiled", "pytorch", "train", {"tuned": True, "compiled": True}, like="PyTorch tuned"),
    Kind("real Caffe", "real_caffe", "train"),
    Kind("matrix product", "pytorch", "matrix_product"),
]


def forward_flops(folder: Path) -> int:
    """Return the operations of a forward pass; a multiplication and an addition count as two."""
    net = read(folder).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for data, label in batches(folder):
            net(data.to("meta"), label.to("meta"))
    return counter.get_total_flops()


def main(argv: list[str]) -> None:
    """Measure, print, and write the results if all nets were measured."""
    given = options("training", TRAINED, argv)
    found: dict[str, dict[str, Any]] = {}
    for name in given.nets:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(TRAINED[name], folder, train=True)
            found[name] = {"batch": TRAINED[name].examples, "flops": forward_flops(folder)}
            found[name]["engines"] = measure(chosen(ENGINES, given), folder, given)
        report.progress(name, found[name]["engines"])
    report.save("training", found, given)


if __name__ == "__main__":
    main(sys.argv[1:])
