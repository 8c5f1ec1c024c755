"""Inference of trained nets, compared with ONNX Runtime, OpenVINO, OpenCV's DNN module and real Caffe.

    python -m benchmarks inference [-nets alexnet] [-engines onnx,vino] [-threads 1,2] [-rounds 5]
    python -m benchmarks single    the same for one image: LeNet, the three nets of MTCNN, GoogLeNet

All engines use the same weights and data, get the data as an array in each run, and return the outputs as arrays. The
table also shows how far their outputs differ from ours. ONNX Runtime and OpenVINO read an ONNX file that torch exports.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.plain_torch import PlainNet
from benchmarks.rounds import OURS, Engine, Kind, chosen, measure, options
from benchmarks.workloads import NETS, Work, prepare
from caffe.proto import weights

ENGINES = [
    Kind(OURS, "ours", "infer"),
    Kind(f"{OURS} compiled", "ours", "infer", {"compiled": True}, like=OURS, extra=True),
    Kind(f"{OURS}, OpenVINO", "ours", "infer", {"engine": "openvino"}),
    Kind("ONNX Runtime", "onnx_runtime", "infer"),
    Kind("OpenVINO", "open_vino", "infer"),
    Kind("OpenCV", "opencv", "infer"),
    Kind("real Caffe", "real_caffe", "infer"),
    Kind(f"{OURS} bf16", "ours", "infer", {"precision": "bfloat16"}, like=OURS),
    Kind(
        f"{OURS}, OpenVINO bf16",
        "ours",
        "infer",
        {"precision": "bfloat16", "engine": "openvino"},
        like=f"{OURS}, OpenVINO",
    ),
    Kind("OpenVINO bf16", "open_vino", "infer", {"precision": "bf16"}, like="OpenVINO"),
]


class OnnxLrn(torch.autograd.Function):
    """LRN as a single ONNX operator; torch's own export writes six."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
        return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)

    @staticmethod
    def symbolic(g: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        return g.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=k)


def export(param: Any, folder: Path) -> None:
    """Export the folder's net as `net.onnx`."""
    net = PlainNet(param, weights.read(folder / "net.caffemodel")).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.LocalResponseNorm):
            how = (module.size, module.alpha, module.beta, module.k)
            module.forward = lambda x, how=how: OnnxLrn.apply(x, *how)  # type: ignore[method-assign]
    data = torch.from_numpy(np.load(folder / "data.npy"))
    names = {"input_names": ["data"], "output_names": list(dict.fromkeys(net.outputs))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this export deprecated; the new one needs more packages
        torch.onnx.export(net, (data,), str(folder / "net.onnx"), dynamo=False, opset_version=17, **names)


def agreement(folder: Path) -> Callable[[Engine], dict[str, float]]:
    """Return a function that measures the largest difference of an engine's outputs, relative to the largest value of
    the first engine.
    """
    first: dict[str, np.ndarray] = {}

    def compare(engine: Engine) -> dict[str, float]:
        engine.ask("result", folder / "result.npz")
        with np.load(folder / "result.npz") as found:
            arrays = {name: found[name] for name in found.files}
        first.update(arrays if not first else {})
        return {"difference": max(float(np.abs(arrays[n] - v).max() / np.abs(v).max()) for n, v in first.items())}

    return compare


def main(argv: list[str], part: str = "inference", works: Mapping[str, Work] = NETS) -> None:
    """Measure, print, and write the results if all nets were measured."""
    given = options(part, works, argv)
    found = {}
    for name in given.nets:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            export(prepare(works[name], folder, train=False), folder)
            engines = measure(chosen(ENGINES, given), folder, given, agreement(folder))
            found[name] = {"batch": works[name].shape[0], "engines": engines}
        report.progress(name, engines)
    report.save(part, found, given)


if __name__ == "__main__":
    main(sys.argv[1:])
