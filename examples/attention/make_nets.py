"""Write the nets of this example: attention_train_val.prototxt and global_train_val.prototxt.

    python examples/attention/make_nets.py

Both have the same filters and the same last layers. They differ in how a map of features becomes one vector.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P

WIDTH, MAP, COLOURS = 32, 6, 6
MSRA, XAVIER = {"type": "msra"}, {"type": "xavier"}


def features(n: Any) -> Any:
    """Pictures (N, 3, 24, 24) to a map of features (N, 32, 6, 6)."""
    x = n.data
    for index, count in ((1, WIDTH // 2), (2, WIDTH)):
        x = n[f"conv{index}"] = L.Convolution(x, num_output=count, kernel_size=3, pad=1, weight_filler=MSRA)
        n[f"relu{index}"] = L.ReLU(x, in_place=True)
        x = n[f"pool{index}"] = L.Pooling(x, kernel_size=2, stride=2)
    return x


def attended(n: Any, x: Any) -> Any:
    """Average x over its positions, weighted by their similarity to the question: (N, 32, 6, 6) to (N, 32)."""
    n.asked = L.InnerProduct(n.question, num_output=WIDTH, weight_filler=XAVIER)
    n.fit = L.Scale(x, n.asked, axis=0)
    n.fit_tanh = L.TanH(n.fit, in_place=True)
    n.fit_score = L.Convolution(n.fit, num_output=1, kernel_size=1, bias_term=False, weight_filler=XAVIER)
    n.places = L.Reshape(n.fit_score, shape={"dim": [0, MAP * MAP]})
    n.attention = L.Softmax(n.places)
    n.weight = L.Reshape(n.attention, shape={"dim": [0, 1, MAP * MAP]})
    n.weights = L.Tile(n.weight, axis=1, tiles=WIDTH)
    n.features = L.Reshape(x, shape={"dim": [0, 0, MAP * MAP]})
    n.weighed = L.Eltwise(n.features, n.weights, operation=P.Eltwise.PROD)
    n.seen = L.Reduction(n.weighed, axis=2, operation=P.Reduction.SUM)
    return n.seen


def averaged(n: Any, x: Any) -> Any:
    """Average x over all positions: (N, 32, 6, 6) to (N, 32)."""
    n.mean = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    n.seen = L.Flatten(n.mean)
    return n.seen


def network(attention: bool) -> str:
    """The prototxt for training and testing."""
    n = caffe.NetSpec()
    tops = ("data", "question", "label")
    for phase, part, batch in ((caffe.TEST, "test", 100), (caffe.TRAIN, "train", 50)):
        made = L.HDF5Data(
            name="input",
            ntop=3,
            source=f"examples/attention/data/{part}.txt",
            batch_size=batch,
            shuffle=phase == caffe.TRAIN,
            include={"phase": phase},
        )
        for name, top in zip(tops, made, strict=True):
            n[name] = top
        if phase == caffe.TEST:
            tested = n.to_proto().layer[0]
    seen = (attended if attention else averaged)(n, features(n))
    n.known = L.Concat(seen, n.question)
    n.ip1 = L.InnerProduct(n.known, num_output=64, weight_filler=MSRA)
    n.relu = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.ip1, num_output=COLOURS, weight_filler=XAVIER)
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    n.accuracy = L.Accuracy(n.ip2, n.label, include={"phase": caffe.TEST})
    net = n.to_proto()
    net.name = "attention" if attention else "global"
    net.layer.insert(1, tested)
    return str(net)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    folder = parser.parse_args().output
    for name, attention in (("attention", True), ("global", False)):
        (folder / f"{name}_train_val.prototxt").write_text(network(attention))


if __name__ == "__main__":
    main()
