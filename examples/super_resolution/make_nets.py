"""Write the nets of this example.

    python examples/super_resolution/make_nets.py

`train_val.prototxt` has both nets, `condition_train_val.prototxt` the conditioning net alone, `deploy.prototxt` both
for sampling.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P

LEVELS = 8
"""Grey levels of a pixel."""
MSRA, XAVIER = {"type": "msra"}, {"type": "xavier"}
A, B = P.MaskedConvolution.A, P.MaskedConvolution.B


def data(n: Any, part: str, batch: int, phase: int) -> None:
    """The small images `low` (N, 1, side/4, side/4), and the grey levels `level` (N, 1, side, side) of the large."""
    source = f"examples/super_resolution/data/{part}.txt"
    include = {"phase": phase}
    n.low, n.level = L.HDF5Data(
        name="data", ntop=2, source=source, batch_size=batch, shuffle=phase == caffe.TRAIN, include=include
    )


def conditioning(n: Any, width: int) -> Any:
    """Compute a score for each level of each pixel from the small image. The pixels are independent of each other."""
    x = n.low
    for index in (1, 2):
        x = n[f"cond/conv{index}"] = L.Convolution(x, num_output=width, kernel_size=3, pad=1, weight_filler=MSRA)
        n[f"cond/relu{index}"] = L.ReLU(x, in_place=True)
        x = n[f"cond/up{index}"] = L.Deconvolution(
            x, convolution_param={"num_output": width, "kernel_size": 4, "stride": 2, "pad": 1, "weight_filler": MSRA}
        )
        n[f"cond/up_relu{index}"] = L.ReLU(x, in_place=True)
    x = n["cond/conv3"] = L.Convolution(x, num_output=width, kernel_size=3, pad=1, weight_filler=MSRA)
    n["cond/relu3"] = L.ReLU(x, in_place=True)
    n["cond/score"] = L.Convolution(x, num_output=LEVELS, kernel_size=1, weight_filler=XAVIER)
    return n["cond/score"]


def gate(n: Any, name: str, x: Any) -> Any:
    """tanh of one half of the channels, times the sigmoid of the other."""
    content, opening = L.Slice(x, ntop=2, name=f"{name}/halves", axis=1)
    n[f"{name}/content"], n[f"{name}/opening"] = content, opening
    n[f"{name}/tanh"], n[f"{name}/sigmoid"] = L.TanH(content), L.Sigmoid(opening)
    n[f"{name}/gate"] = L.Eltwise(n[f"{name}/tanh"], n[f"{name}/sigmoid"], operation=P.Eltwise.PROD)
    return n[f"{name}/gate"]


def pixels(n: Any, width: int, depth: int, kernel: int = 5) -> Any:
    """Compute a score for each level of a pixel from the earlier pixels in raster order: a gated PixelCNN.

    The stack `v` reads the rows above. The stack `h` reads the pixels to the left, and `v` at its own position.
    """
    n["pix/grey"] = L.Power(n.level, scale=2 / (LEVELS - 1), shift=-1)
    v = h = n["pix/grey"]
    square = {"kernel_size": kernel, "pad": kernel // 2, "weight_filler": XAVIER}
    line = {"kernel_h": 1, "kernel_w": kernel, "pad_h": 0, "pad_w": kernel // 2, "weight_filler": XAVIER}
    for index in range(1, depth + 1):
        name, mask = f"pix{index}", A if index == 1 else B
        v = n[f"{name}/v"] = L.MaskedConvolution(v, num_output=2 * width, mask=mask, rows=True, **square)
        row = n[f"{name}/row"] = L.MaskedConvolution(h, num_output=2 * width, mask=mask, **line)
        above = n[f"{name}/above"] = L.Convolution(v, num_output=2 * width, kernel_size=1, weight_filler=XAVIER)
        both = n[f"{name}/both"] = L.Eltwise(row, above)
        if index < depth:
            v = gate(n, f"{name}/v", v)
        out = gate(n, f"{name}/h", both)
        out = n[f"{name}/out"] = L.Convolution(out, num_output=width, kernel_size=1, weight_filler=XAVIER)
        if index > 1:
            out = n[f"{name}/sum"] = L.Eltwise(out, h)
        h = out
    x = n["pix/last"] = L.Convolution(h, num_output=2 * width, kernel_size=1, weight_filler=MSRA)
    n["pix/relu"] = L.ReLU(x, in_place=True)
    n["pix/score"] = L.Convolution(x, num_output=LEVELS, kernel_size=1, weight_filler={"type": "gaussian", "std": 0.01})
    return n["pix/score"]


def training(pixelwise: bool, width: int = 16, depth: int = 5, batch: int = 16) -> str:
    """The prototxt of both nets, or of the conditioning net alone; losses are nats a pixel."""
    n = caffe.NetSpec()
    data(n, "test", 100, caffe.TEST)
    tested = n.to_proto().layer[0]
    data(n, "train", batch, caffe.TRAIN)
    score = conditioning(n, 2 * width)
    n.condition_loss = L.SoftmaxWithLoss(score, n.level, softmax_param={"axis": 1})
    if pixelwise:
        n.score = L.Eltwise(score, pixels(n, width, depth))
        n.loss = L.SoftmaxWithLoss(n.score, n.level, softmax_param={"axis": 1})
    net = n.to_proto()
    net.name = "pixel_recursive" if pixelwise else "conditioning"
    net.layer.insert(1, tested)
    return str(net)


def deploy(side: int = 32, width: int = 16, depth: int = 5, count: int = 16) -> str:
    """The prototxt for sampling: probabilities of the levels of each pixel, given `low` and the pixels before."""
    n = caffe.NetSpec()
    n.low = L.Input(shape={"dim": [count, 1, side // 4, side // 4]})
    n.level = L.Input(shape={"dim": [count, 1, side, side]})
    n.score = L.Eltwise(conditioning(n, 2 * width), pixels(n, width, depth))
    n.prob = L.Softmax(n.score)
    net = n.to_proto()
    net.name = "pixel_recursive"
    return str(net)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    folder = parser.parse_args().output
    (folder / "train_val.prototxt").write_text(training(pixelwise=True))
    (folder / "condition_train_val.prototxt").write_text(training(pixelwise=False))
    (folder / "deploy.prototxt").write_text(deploy())


if __name__ == "__main__":
    main()
