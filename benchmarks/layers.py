"""`net.forward()` and `net.backward()` layer by layer on one image, compared with real Caffe.

    python -m benchmarks layers [-nets lenet,rnet] [-engines real] [-threads 1,2] [-rounds 5]

Scripts such as DeepDream and detection loops run nets in this way: every blob and every diff is filled and can be read.
The nets have `force_backward`, so that backward computes the gradient of the image. The last lines of the output are
our own time per layer: the time of a chain of 200 layers of one number, minus the time of the same torch functions
alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import caffe
from benchmarks import report
from benchmarks.rounds import OURS, Kind, chosen, measure, options
from benchmarks.workloads import SINGLE, Work, prepare
from caffe import torch_internals
from caffe.proto import caffe_pb2, text

NETS = {
    "lenet": SINGLE["lenet"],
    "pnet_288x384": SINGLE["pnet_288x384"],
    "pnet": SINGLE["pnet"],
    "rnet": SINGLE["rnet"],
    "onet": SINGLE["onet"],
    "caffenet": Work("", "models/bvlc_reference_caffenet/deploy.prototxt", (1, 3, 227, 227)),
}
WAYS = ("forward", "backward")
CHAIN = 200


def engines(way: str) -> list[Kind]:
    """The engines that run forward, or backward."""
    return [Kind(OURS, "ours", "layers", {"way": way}), Kind("real Caffe", "real_caffe", "layers", {"way": way})]


def overhead() -> dict[str, float]:
    """Microseconds that a layer takes beyond its torch function, forward and backward, with and without gradients."""
    torch.set_num_threads(1)
    x = torch.ones(1)
    found = {}
    for way, forced in (("forward", False), ("forward with history", True), ("backward", True)):
        net = _chain(forced)
        net.forward()
        work: Callable[[], Any] = net.backward if way == "backward" else net.forward
        alone = _gradients(x) if way == "backward" else _functions(x, forced)
        ours, theirs = [], []
        for _ in range(30):
            ours.append(_timed(work))
            theirs.append(_timed(alone))
        found[way] = (statistics.median(ours) - statistics.median(theirs)) / CHAIN * 1e6
    return found


def _chain(forced: bool) -> caffe.Net:
    param = caffe_pb2.NetParameter(force_backward=forced)
    data = param.layer.add(name="data", type="Input", top=["x0"])
    data.input_param.shape.add().dim.append(1)
    for index in range(CHAIN):
        param.layer.add(name=f"layer{index}", type="Sigmoid", bottom=[f"x{index}"], top=[f"x{index + 1}"])
    return caffe.Net(param, caffe.TEST)


def _functions(x: torch.Tensor, forced: bool) -> Callable[[], None]:
    def work() -> None:
        with torch.set_grad_enabled(forced):
            for _ in range(CHAIN):
                torch.sigmoid(x.detach().requires_grad_() if forced else x)

    return work


def _gradients(x: torch.Tensor) -> Callable[[], None]:
    leaves = [x.clone().requires_grad_() for _ in range(CHAIN)]
    tops = [torch.sigmoid(leaf) for leaf in leaves]
    diffs = [torch.ones(1) for _ in range(CHAIN)]
    engine = torch_internals.gradients

    def work() -> None:
        with torch.autograd.set_multithreading_enabled(False):
            for index, (leaf, top, diff) in enumerate(zip(leaves, tops, diffs, strict=True)):
                (diffs[index],) = engine((top,), (diff,), (leaf,))  # type: ignore[call-overload]

    return work


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main(argv: list[str]) -> None:
    """Measure, print, and write the results if all nets were measured."""
    given = options("layers", NETS, argv)
    found = {}
    for name in given.nets:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            param = prepare(NETS[name], folder, train=False)
            param.force_backward = True
            text.write(folder / "forced.prototxt", param)
            for way in WAYS:
                found[f"{name} {way}"] = {"engines": measure(chosen(engines(way), given), folder, given)}
                report.progress(f"{name} {way}", found[f"{name} {way}"]["engines"])
    report.save("layers", found, given)
    figures = overhead()
    for way, took in figures.items():
        print(f"beyond the torch function, {way}: {took:.1f} microseconds a layer")
    if given.whole:
        report.keep("overhead", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
