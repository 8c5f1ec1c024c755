"""More faulty and healthy runs, with nets, rates and data that were not used to develop the checks."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.exercise.nets import Run, data, dense, loss, over
from caffe.exercise.nets import conv as convolution
from caffe.exercise.planted import ADAM, M, drop, gauss

__all__ = ["others"]


def deep(
    unit: str = "ReLU", layers: int = 6, width: int = 32, filler: str = 'type: "msra"', end: str = "", drops: str = ""
) -> str:
    """Return a deep multilayer perceptron for the patterns."""
    text, bottom = data("patterns", 40), "data"
    for number in range(layers):
        text += dense(f"f{number}", bottom, width, filler) + over(unit, f"f{number}")
        bottom = f"f{number}"
    return text + drops + dense("out", bottom, 8, filler if "gauss" in filler else 'type: "xavier"') + (end or loss())


def wide(
    filler: str = 'type: "xavier"', source: str = "digits255", end: str = "", transform: str = "scale: 0.00392157"
) -> str:
    """Return a net of two strided convolutions with ELU."""
    text = data(source, 60, scale=transform)
    text += convolution("a", "data", "num_output: 12 kernel_size: 3 stride: 2", filler) + over("ELU", "a")
    text += convolution("b", "a", "num_output: 20 kernel_size: 3", filler) + over("ELU", "b")
    return text + dense("out", "b", 10, filler) + (end or loss())


def recurrent(filler: str = 'type: "xavier"') -> str:
    """Return a plain RNN for the streams of symbols."""
    text = data("sequence", 20, 50, kind="HDF5Data")
    text += 'layer { name: "embed" type: "Embed" bottom: "data" top: "embed" embed_param { input_dim: 8 num_output: 16 '
    text += 'bias_term: false weight_filler { type: "gaussian" std: 0.3 } } }\n'
    text += 'layer { name: "rnn" type: "RNN" bottom: "embed" bottom: "cont" top: "rnn"\n'
    text += f"  recurrent_param {{ num_output: 40 weight_filler {{ {filler} }} }} }}\n"
    text += 'layer { name: "out" type: "InnerProduct" bottom: "rnn" top: "out"\n'
    text += '  inner_product_param { axis: 2 num_output: 8 weight_filler { type: "xavier" } } }\n'
    return text + loss(axis="axis: 2")


def others() -> Iterator[Run]:
    """Return all of them."""
    sgd, steps = {"base_lr": 0.02, **M}, {"test_iter": 20}
    adam: dict[str, object] = {"base_lr": 0.003, **ADAM}
    for rate in (0.005, 0.01, 0.03):
        yield Run(f"ok deep {rate}", deep(), sgd | {"base_lr": rate})
        yield Run(f"ok wide {rate}", wide(), sgd | {"base_lr": rate})
    for layers in (3, 8):
        yield Run(f"ok deep TanH {layers}", deep("TanH", layers, filler='type: "xavier"'), sgd)
        yield Run(f"ok deep dropout {layers}", deep(layers=layers, drops=drop(f"f{layers - 1}", 0.3)), sgd)
    yield Run("ok deep Sigmoid 2", deep("Sigmoid", 2, filler='type: "xavier"'), adam)
    yield Run("ok deep Sigmoid 2 SGD", deep("Sigmoid", 2, filler='type: "xavier"'), sgd | {"base_lr": 0.5})
    yield Run("ok wide hinge", wide(end=loss(kind="HingeLoss")), sgd | {"base_lr": 0.003})
    for rate in (0.001, 0.003, 0.01):
        yield Run(f"ok rnn {rate}", recurrent(), adam | {"base_lr": rate} | steps)
    yield Run("ok wide gaussian", wide(gauss(0.1)), sgd)
    yield Run("ok deep gaussian", deep(filler=gauss(0.2)), sgd)
    bytes_ = "mean_value: 78"
    for rate in (1e-5, 1e-4):
        yield Run(f"ok wide bytes {rate}", wide(transform=bytes_), sgd | {"base_lr": rate})
    yield Run("ok wide bytes Adam", wide(transform=bytes_), adam | {"base_lr": 0.001})
    for rate in (0.3, 1, 10, 100):
        yield Run(f"deep rate {rate}", deep(), sgd | {"base_lr": rate}, ("rate-too-high",))
    for rate in (1e-5, 1e-7):
        yield Run(f"deep rate {rate}", deep(), sgd | {"base_lr": rate}, ("rate-too-low",))
        yield Run(f"wide rate {rate}", wide(), sgd | {"base_lr": rate}, ("rate-too-low",))
        yield Run(f"rnn rate {rate}", recurrent(), adam | {"base_lr": rate} | steps, ("rate-too-low",))
    yield Run("rnn rate 1", recurrent(), adam | {"base_lr": 1} | steps, ("rate-too-high",))
    yield Run("wide bytes", wide(transform="scale: 1"), sgd, ("input-scale", "rate-too-high"))
    yield Run("deep Sigmoid", deep("Sigmoid", 6, filler='type: "xavier"'), sgd, ("gradients-vanish",))
    yield Run("deep small", deep(filler=gauss(0.01)), sgd, ("activations-vanish", "gradients-vanish"))
    yield Run("deep large", deep(filler=gauss(1.5)), sgd, ("activations-explode", "rate-too-high", "gradients-explode"))
    yield Run("deep decay", deep(), sgd | {"weight_decay": 0.3}, ("weight-decay-too-high",))
    yield Run("wide momentum", wide(), sgd | {"momentum": 0.995}, ("momentum-too-high",))
    yield Run("deep dropout", deep(drops=drop("f5", 0.95)), sgd, ("dropout-too-strong",))
    yield Run("deep linear", deep("", filler='type: "xavier"'), sgd, ("no-nonlinearity",))
    yield Run("deep twice", deep(end=_twice()), sgd, ("softmax-twice",))
    yield Run("deep narrow", deep(width=1), sgd, ("narrow-layer",))
    yield Run("wide constant", wide('type: "constant"'), sgd, ("weights-all-equal",))


def _twice() -> str:
    return 'layer { name: "p" type: "Softmax" bottom: "out" top: "p" }\n' + loss("p")
