"""A training step of small nets, in which the work between the kernels counts, compared with hand-written PyTorch.

    python -m benchmarks small [-nets mlp,lstm] [-engines tuned] [-threads 1,2] [-rounds 5]

LeNet with 64 images, a perceptron, an autoencoder, a siamese net with shared weights, and an LSTM of 64 units over 16
steps. The modules of PyTorch are in `benchmarks/engines/handwritten.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.rounds import OURS, Kind, chosen, measure, options
from benchmarks.workloads import NETS as CLASSIC
from benchmarks.workloads import Work, prepare
from caffe.proto import caffe_pb2, text

FILL = 'weight_filler { type: "xavier" }'


def _dense(name: str, bottom: str, outputs: int, shared: str = "") -> str:
    names = f'param {{ name: "{shared}w" }} param {{ name: "{shared}b" }}' if shared else ""
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {names} '
        f"inner_product_param {{ num_output: {outputs} {FILL} }} }}\n"
    )


def _unit(kind: str, blob: str) -> str:
    return f'layer {{ name: "{blob}_{kind}" type: "{kind}" bottom: "{blob}" top: "{blob}" }}\n'


def _inputs(*sizes: int, label: str = "") -> str:
    dims = " ".join(f"dim: {size}" for size in sizes)
    shapes = f"shape {{ {dims} }} shape {{ {label or f'dim: {sizes[0]}'} }}"
    return f'layer {{ name: "data" type: "Input" top: "data" top: "label" input_param {{ {shapes} }} }}\n'


def _mlp() -> str:
    made = _inputs(64, 1, 28, 28) + _dense("ip1", "data", 256) + _unit("ReLU", "ip1")
    made += _dense("ip2", "ip1", 128) + _unit("ReLU", "ip2") + _dense("ip3", "ip2", 10)
    return made + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip3" bottom: "label" top: "loss" }'


def _autoencoder() -> str:
    made, below = _inputs(64, 784), "data"
    for index, size in enumerate((256, 64, 16, 64, 256)):
        made, below = made + _dense(f"ip{index}", below, size) + _unit("Sigmoid", f"ip{index}"), f"ip{index}"
    made += _dense("out", below, 784) + 'layer { name: "unused" type: "Silence" bottom: "label" }'
    return made + 'layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "data" top: "loss" }'


def _siamese() -> str:
    made = _inputs(64, 2, 28, 28)
    made += 'layer { name: "slice" type: "Slice" bottom: "data" top: "a0" top: "b0" slice_param { slice_point: 1 } }'
    for side in "ab":
        made += _dense(f"{side}1", f"{side}0", 128, "ip1") + _unit("ReLU", f"{side}1")
        made += _dense(f"{side}2", f"{side}1", 10, "ip2") + _dense(f"{side}3", f"{side}2", 2, "ip3")
    return made + (
        'layer { name: "loss" type: "ContrastiveLoss" bottom: "a3" bottom: "b3" bottom: "label" top: "loss" '
        "contrastive_loss_param { margin: 1 } }"
    )


def _lstm() -> str:
    made = _inputs(16, 32, 64, label="dim: 16 dim: 32")
    made += (
        'layer { name: "cont" type: "DummyData" top: "cont" dummy_data_param { shape { dim: 16 dim: 32 } '
        'data_filler { type: "constant" value: 1 } } }'
        'layer { name: "lstm" type: "LSTM" bottom: "data" bottom: "cont" top: "lstm" '
        f"recurrent_param {{ num_output: 64 {FILL} }} }}"
        'layer { name: "ip" type: "InnerProduct" bottom: "lstm" top: "ip" '
        f"inner_product_param {{ num_output: 10 axis: 2 {FILL} }} }}"
    )
    return made + (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" '
        "softmax_param { axis: 2 } }"
    )


def _work(written: str, shape: tuple[int, ...]) -> Work:
    def build(batch: int, size: int, train: bool) -> Any:
        return text.parse(written, caffe_pb2.NetParameter())

    return Work(build, build, shape)  # type: ignore[arg-type]


NETS = {
    "lenet": CLASSIC["lenet"],
    "mlp": _work(_mlp(), (64, 1, 28, 28)),
    "autoencoder": _work(_autoencoder(), (64, 784)),
    "siamese": _work(_siamese(), (64, 2, 28, 28)),
    "lstm": _work(_lstm(), (16, 32, 64)),
}


def engines(name: str) -> list[Kind]:
    """The engines for a net. LeNet's module is made from its prototxt."""
    module, extra = ("pytorch", {}) if name == "lenet" else ("handwritten", {"net": name})
    tuned = {**extra, "tuned": True}
    return [
        Kind(OURS, "ours", "train"),
        Kind(f"{OURS} compiled", "ours", "train", {"compiled": True}, like=OURS, extra=True),
        Kind("PyTorch eager", module, "train", extra),
        Kind("PyTorch tuned", module, "train", tuned),
        Kind("PyTorch compiled", module, "train", {**tuned, "compiled": True}, like="PyTorch tuned"),
        Kind("real Caffe", "real_caffe", "train"),
    ]


def main(argv: list[str]) -> None:
    """Measure, print, and write the results if all nets were measured."""
    given = options("small", NETS, argv)
    found = {}
    for name in given.nets:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(NETS[name], folder, train=True)
            batch = NETS[name].shape[0]
            found[name] = {"batch": batch, "engines": measure(chosen(engines(name), given), folder, given)}
        report.progress(name, found[name]["engines"])
    report.save("small", found, given)


if __name__ == "__main__":
    main(sys.argv[1:])
